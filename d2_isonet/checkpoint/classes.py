"""Compares the class names in a weights file with those of the data that the model meets."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence

import torch

from d2_isonet.data.categories import recorded_categories
from d2_isonet.utils.messages import shortened

from .reading import WeightsError

logger = logging.getLogger(__name__)
# Layers with outputs for each class: of ROI heads, RetinaNet and ImageClassifier.
_CLASS_LAYERS = re.compile(
    r"(roi_heads\.(.*\.)?(cls_score|bbox_pred|predictor)|head\.cls_score|linear)\.(weight|bias)"
)


def class_tensors(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors with rows for each class; boxes and masks may share theirs."""
    shared = {"bbox_pred": 4, "predictor": 1}  # rows of a layer for all classes together
    return [
        name
        for name, tensor in state.items()
        if _CLASS_LAYERS.fullmatch(name) and tensor.shape[0] != shared.get(name.split(".")[-2])
    ]


def match_classes(
    path: str,
    record: Mapping,
    classes: Callable[[], Mapping[str, Sequence[str]]],
    tensors: dict[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    *,
    starts: bool,
) -> str:
    """Compare the class names of the record with those of the data, and say what starts anew.

    The same names in the same order pass. The same names in another order are refused. Other names
    are refused too, unless a new training starts from the file: then the tensors of its class
    layers are removed from `tensors`, so that the model keeps its initialization there.

    Args:
        record: of the file `path`; a file that does not record its classes passes.
        classes: returns the class names by data set.
        tensors: of the file; without class layers (a backbone) it passes.
        state: of the model that loads them.
        starts: whether a new training starts from the file.

    Raises WeightsError if the classes are refused.
    """
    recorded = recorded_categories(record, path)
    layers = [name for name in class_tensors(state) if name in tensors]
    if not recorded or not layers:
        return ""
    for data_set, names in classes().items():
        if list(names) == recorded.names:
            continue
        what = (
            f"{path} was trained on the classes {shortened(recorded.names)}, and data set "
            f"{data_set} has {shortened(names)}"
        )
        if sorted(names) == sorted(recorded.names):
            _refuse_order(what, recorded.names, names)
        if not starts:
            raise WeightsError(what, _OTHER_NAMES)
        for name in layers:
            del tensors[name]
        restarts = f"{what}: the head starts anew in {shortened(layers, most=12)}"
        logger.warning(restarts)
        return restarts
    return ""


_OTHER_NAMES = (
    "give data of the same classes, or the weights of a training on these data (to start one from "
    "this file: MODEL.WEIGHTS without --resume and --eval-only, and another OUTPUT_DIR)"
)


def _refuse_order(what: str, recorded: Sequence[str], names: Sequence[str]) -> None:
    first = next(i for i, pair in enumerate(zip(recorded, names, strict=True)) if len({*pair}) > 1)
    raise WeightsError(
        f"{what}: the same names in another order (number {first + 1} is {recorded[first]!r} in "
        f"the weights, {names[first]!r} in the data)",
        "number the categories of the data in the order of the weights (a json's by their id)",
    )
