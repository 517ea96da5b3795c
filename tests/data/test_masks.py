"""Masks of annotations: measured like their pixels, and refused before they harm."""

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask

from d2_isonet.config.loading import load_config
from d2_isonet.data.masks import measured, right_areas
from d2_isonet.data.unreadable_images import NamingDatasetMapper
from d2_isonet.utils.messages import UserError


def _mask(x0: float, y0: float, x1: float, y1: float) -> list:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


@pytest.mark.parametrize("kind", ["polygons", "rle", "counts"])
def test_bounds_and_areas_of_masks_are_those_of_their_pixels(kind):
    boxes = np.random.default_rng(0).integers(1, 40, (300, 4))
    boxes[:, 2:] += boxes[:, :2]
    masks = [_mask(*box) for box in boxes.tolist()]
    if kind != "polygons":
        masks = [coco_mask.frPyObjects(mask, 90, 90)[0] for mask in masks]
    if kind == "counts":
        masks = [_counts(coco_mask.decode(mask)) for mask in masks]
    bounds, areas = measured([*masks, None], [None] * 300 + ["none"])
    np.testing.assert_allclose(bounds[:-1], boxes)
    np.testing.assert_allclose(areas[:-1], (boxes[:, 2:] - boxes[:, :2]).prod(1))
    assert np.isnan(bounds[-1]).all() and np.isnan(areas[-1])


def _counts(pixels: np.ndarray) -> dict:
    flat = pixels.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0)) if flat.any() else []
    return {"counts": np.diff([0, *edges, flat.size]).tolist(), "size": list(pixels.shape)}


def test_areas_that_mask_or_box_allow_stay_as_they_are():
    boxes = np.array([[0, 0, 100, 50]] * 5, float)
    areas = np.array([5000, 2500, 5080, 1500, 700], float)
    np.testing.assert_array_equal(right_areas(areas, boxes, np.full(5, np.nan)), areas)
    right = right_areas(areas, boxes, np.full(5, 2500.0))
    np.testing.assert_array_equal(right, [5000, 2500, 5080, 1500, 2500])


@pytest.fixture
def sample(tmp_path):
    """What the training's mapper makes of a dict with one object, whose mask is given."""

    def mapped(mask: object, **changes: object) -> dict:
        Image.new("RGB", (90, 80)).save(tmp_path / "1.png")
        thing = {"bbox": [1, 2, 30, 40], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
        annotations = [{**thing, "segmentation": mask}]
        image = {"file_name": str(tmp_path / "1.png"), "height": 80, "width": 90}
        mapper = NamingDatasetMapper(load_config("configs/risonet18_c4.yaml", []), True)
        return mapper({**image, "annotations": annotations, **changes})

    return mapped


FAR = [[[1e9, 0, 5, 5, 0, 5]], [[-1e8, 0, 5, 5, 0, 5]], {"counts": [9, 99999], "size": [80, 90]}]


@pytest.mark.parametrize("mask", FAR, ids=str)
def test_masks_that_cannot_be_rasterized_are_refused_by_the_mapper(mask, sample):
    with pytest.raises(UserError, match="1.png: an object's mask is malformed or far outside"):
        sample(mask)


def test_sizes_of_floats_are_read_as_whole_numbers(sample):
    mapped = sample(_mask(1, 2, 31, 42), width=90.0, height=80.0)
    assert [type(mapped[key]) for key in ("width", "height")] == [int, int]
