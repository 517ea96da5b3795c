"""Boxes, masks and labels are drawn where the objects are, in the colour of the class."""

import cv2
import demo_detector
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2_isonet.engine.drawing import class_colour, draw_instances, draw_objects


def drawn(**rectangles) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its annotated copy."""
    picture = demo_detector.picture(size=(200, 300), **rectangles)
    found = demo_detector.find_bright(picture)
    return picture, draw_instances(picture, found, demo_detector.CATEGORIES.names)


def test_masks_have_their_classes_colour_and_the_rest_is_as_it_was():
    picture, copy = drawn(red=(100, 80, 60, 60))
    expected = 0.55 * picture[110, 130] + 0.45 * np.array(class_colour(0)[::-1])
    assert abs(copy[110, 130] - expected).max() <= 1
    assert (copy[160:, :] == picture[160:, :]).all() and (copy[:, 180:] == picture[:, 180:]).all()
    assert picture[110, 130].tolist() == [30, 30, 250]  # the picture itself is not drawn on


def test_the_box_is_drawn_on_the_edge_and_the_name_above():
    _, copy = drawn(red=(100, 80, 60, 60))
    colour = list(class_colour(0)[::-1])
    assert copy[110, 100].tolist() == copy[140, 130].tolist() == colour
    assert copy[78, 101].tolist() == colour and (copy[64:80, 100:160] == colour).all(2).sum() > 200


@pytest.mark.parametrize("place", [(0, 0, 40, 10), (270, 0, 30, 40), (250, 180, 50, 20)])
def test_names_stay_in_the_picture(place):
    picture, copy = drawn(red=place)
    assert copy.shape == picture.shape and (copy != picture).any()


def test_nothing_found_is_nothing_drawn():
    picture, copy = drawn(red=None)
    np.testing.assert_array_equal(copy, picture)


def test_boxes_without_masks_are_drawn():
    picture = demo_detector.picture()
    found = demo_detector.find_bright(picture)
    found.remove("pred_masks")
    assert (draw_instances(picture, found, demo_detector.CATEGORIES.names) != picture).any()


def test_classes_can_be_told_apart_by_colour():
    colours = np.array([class_colour(index) for index in range(80)], dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours, axis=2) + 1e3 * np.eye(80)
    assert distances.min() > 20 and distances[:12, :12].min() > 80


def test_names_of_other_alphabets_are_drawn():
    picture = demo_detector.picture(size=(200, 300))
    found = demo_detector.find_bright(picture)
    copies = [
        draw_instances(picture, found, [name] * 3) for name in ("кошка", "γάτα", "chat à été")
    ]
    assert all((copies[0] != copy).any() for copy in copies[1:])


def test_names_with_control_characters_and_long_ones_are_drawn():
    picture = demo_detector.picture(size=(200, 300))
    found = demo_detector.find_bright(picture)
    for name in ("a\r\n\x1b[31m\x07\u202e\ud800", "x" * 2_000_000):
        assert (draw_instances(picture, found, [name] * 3) != picture).any()


def test_an_annotated_copy_can_be_encoded():
    assert cv2.imencode(".png", drawn(red=(5, 5, 50, 50))[1])[0]


def square_of(kind: str):
    """The mask of the square from (100, 120) to (180, 200) on an image of 320 x 240."""
    pixels = np.zeros((240, 320), np.uint8, order="F")
    pixels[120:200, 100:180] = 1
    if kind == "polygons":
        return [[100, 120, 180, 120, 180, 200, 100, 200]]
    if kind == "RLE":
        return coco_mask.encode(pixels)
    runs = np.flatnonzero(np.diff(np.r_[2, pixels.ravel("F"), 2]))
    return {"size": [240, 320], "counts": np.diff(runs).tolist()}


@pytest.mark.parametrize("kind", ["polygons", "RLE", "uncompressed RLE"])
@pytest.mark.parametrize("width", [160, 320, 640])
def test_objects_are_drawn_at_the_size_of_the_picture(kind, width):
    grey = np.full((240, 320, 3), 100, np.uint8)
    objects = [{"bbox": [100, 120, 80, 80], "segmentation": square_of(kind)}]
    drawn = draw_objects(grey, objects, ["x"], [(200, 0, 0)], width)
    assert drawn.shape == (240 * width // 320, width, 3)
    inside = drawn[:: width // 160, :: width // 160][70:98, 54:88]  # but for the edges
    assert (inside == [145, 55, 55]).all() and drawn[-1, -1].tolist() == [100, 100, 100]


def test_an_object_without_a_usable_mask_has_its_box():
    grey = np.full((60, 80, 3), 100, np.uint8)
    for segmentation in (None, [], [[1, 2, 3, 4]], {"size": [60, 80]}):
        objects = [{"bbox": [40, 30, 20, 20], "segmentation": segmentation}]
        drawn = draw_objects(grey, objects, ["x"], [(200, 0, 0)], 80)
        assert drawn[50, 50].tolist() == [200, 0, 0] and drawn[40, 55].tolist() == [100, 100, 100]


def test_a_mask_of_another_size_is_refused():
    objects = [{"bbox": [4, 10, 20, 20], "segmentation": square_of("RLE")}]
    with pytest.raises(ValueError, match="a mask has 320 x 240 pixels, its image 30 x 50"):
        draw_objects(np.zeros((50, 30, 3), np.uint8), objects, ["x"], [(200, 0, 0)], 80)
