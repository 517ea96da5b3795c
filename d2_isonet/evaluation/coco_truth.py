"""Puts right what makes COCO's evaluation fail or err in the annotations that it compares with."""

import contextlib
import io
import logging
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO

from d2_isonet.data.coco_json import areas_of, boxes_of, renumber_unusable_ids, whole_sizes
from d2_isonet.data.masks import HARMFUL, Size, mask_problem, measured, right_areas
from d2_isonet.utils.messages import UserError, shortened

logger = logging.getLogger(__name__)


def put_right(truth: COCO, file: str) -> None:
    """Put right, in place, what can only mean one thing; log each kind but what is missing.

    Sizes such as 120.0 become whole numbers. A missing iscrowd is 0. An area that is missing, or
    that mask and box rule out, is that of the mask or box. If an id is no whole number from 1, or
    occurs twice, the annotations are numbered from 1.

    Raises:
        UserError: rasterizing cannot take a mask.
    """
    content = truth.dataset
    for image in content["images"]:
        image |= whole_sizes(image)
    annotations = content.get("annotations", [])
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
    if renumber_unusable_ids(annotations):
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
        logger.warning(f"{file}: the annotations are numbered from 1, as some ids cannot be used")
    number = _put_areas_right(annotations, {i["id"]: _size(i) for i in content["images"]}, file)
    if number:
        logger.warning(
            f"{file}: the area of {number} of {len(annotations)} annotations is not that of their "
            "mask or box, which is taken for AP by size"
        )


def _size(image: dict) -> Size | None:
    size = image.get("width"), image.get("height")
    return size if None not in size else None  # type: ignore[return-value]


def _put_areas_right(annotations: Sequence[dict], sizes: dict, file: str) -> int:
    """Fill in missing areas and replace the ruled out ones; the number of the latter."""
    masks = [a.get("segmentation") for a in annotations]
    problems = [
        mask_problem(mask, sizes.get(a["image_id"]))
        for mask, a in zip(masks, annotations, strict=True)
    ]
    bad = [str(a["id"]) for a, x in zip(annotations, problems, strict=True) if x in HARMFUL]
    if bad:
        what = f"{file}: {len(bad)} annotations have masks that are malformed or far outside of "
        remedy = "d2-isonet check-data says what is wrong with them"
        raise UserError(f"{what}their image: {shortened(bad)}", remedy)
    stated = areas_of(annotations)
    right = right_areas(stated, boxes_of(annotations), measured(masks, problems)[1])
    for place in np.flatnonzero((right != stated) & ~np.isnan(right)).tolist():
        annotations[place]["area"] = float(right[place])
    return int(((right != stated) & ~np.isnan(stated)).sum())
