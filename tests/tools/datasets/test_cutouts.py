"""The composed data set: exact masks, disjoint splits, the same bytes from the same seed."""

import contextlib
import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets.cutouts import library
from datasets.cutouts.compose import arrange, crop_photograph, render, transform, visible_masks
from datasets.cutouts.dataset import build
from datasets.cutouts.library import SHAPES, SPLITS, Cutout, shapes_material, split_material
from datasets.cutouts.pictures import Job, Painter, box_of, polygons_of
from datasets.cutouts.scales import SCALES
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

TINY = replace(
    SCALES["small"],
    scenes=(8, 4),
    scene_size=(96, 80),
    objects=(2, 4),
    object_side=(20, 48),
    images=(24, 16),
    image_side=48,
)


@pytest.fixture(scope="module")
def material():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "VARIANTS", 8)
        patch.setattr(library, "GROUND_SIZE", (300, 240))
        yield shapes_material(seed=0)


@pytest.fixture(scope="module")
def built(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build(folder, material, TINY, seed=0, workers=1)
    return folder


def scenes(material, count=20):
    """(background, layers) of random scenes."""
    train = split_material(material, seed=0)["train"]
    pool = [cutout for label in train.classes for cutout in train.cutouts[label]]
    for number in range(count):
        generator = np.random.default_rng(number)
        background = crop_photograph(train.photographs[0], TINY.scene_size, generator)
        chosen = [pool[i] for i in generator.integers(len(pool), size=4)]
        sides = TINY.object_side
        yield background, arrange(chosen, sides, background, TINY.visibility, generator)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def annotations(folder, split):
    return json.loads((folder / "detection" / f"instances_{split}.json").read_text())


def rasterized(polygons, shape):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))) > 0


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


# What is pasted where


def test_masks_are_the_topmost_object_at_each_pixel(material):
    for background, layers in scenes(material, count=3):
        masks = visible_masks(layers, TINY.scene_size)
        for y, x in np.ndindex(background.shape[:2]):
            owner = None
            for number, layer in enumerate(layers):
                row, column = y - layer.top, x - layer.left
                inside = 0 <= row < layer.patch.shape[0] and 0 <= column < layer.patch.shape[1]
                if inside and layer.patch[row, column, 3] > 0.5:
                    owner = number
            assert [bool(mask[y, x]) for mask in masks] == [n == owner for n in range(len(layers))]


def test_rendered_pixels_are_alpha_over_in_paste_order(material):
    for background, layers in scenes(material, count=3):
        expected = background.astype(np.float64)
        for layer in layers:
            for row, column in np.ndindex(layer.patch.shape[:2]):
                y, x = row + layer.top, column + layer.left
                if 0 <= y < expected.shape[0] and 0 <= x < expected.shape[1]:
                    *colour, alpha = layer.patch[row, column]
                    expected[y, x] = expected[y, x] * (1 - alpha) + colour
        assert np.abs(render(background, layers) - expected).max() < 0.51


def test_no_object_is_hidden_below_the_visibility(material):
    for _, layers in scenes(material):
        for layer, mask in zip(layers, visible_masks(layers, TINY.scene_size), strict=True):
            assert mask.sum() >= TINY.visibility * (layer.patch[..., 3] > 0.5).sum()


def test_a_cutout_is_enlarged_at_most_2_2_times():
    cutout = Cutout("square", "square", np.full((40, 40, 4), 255, np.uint8))
    side = np.sqrt((transform(cutout, 400, np.random.default_rng(0))[..., 3] > 0.5).sum())
    assert side == pytest.approx(2.2 * 40, rel=0.01)


# Boxes and polygons


def test_box_is_tight():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 7:8] = mask[6, 5:12] = True
    assert box_of(mask) == [5, 4, 7, 5]


@pytest.mark.parametrize("holes", [False, True])
def test_polygons_without_tolerance_are_the_mask(holes):
    y, x = np.mgrid[:60, :70]
    mask = (x - 30) ** 2 + (y - 28) ** 2 < 500
    mask[:, 50:55] = True  # a second part
    if holes:
        mask &= ((x - 26) ** 2 + (y - 25) ** 2 > 30) & ((x - 38) ** 2 + (y - 33) ** 2 > 20)
    assert np.array_equal(rasterized(polygons_of(mask, 0.0), mask.shape), mask)


def test_polygons_of_scenes_are_faithful(material):
    overlaps = []
    for _, layers in scenes(material):
        for mask in visible_masks(layers, TINY.scene_size):
            polygons = polygons_of(mask, TINY.polygon_tolerance)
            overlaps.append(overlap(rasterized(polygons, mask.shape), mask))
    assert np.mean(overlaps) > 0.98 and min(overlaps) > 0.9


def test_annotations_agree_with_their_polygons(built):
    content = annotations(built, "train")
    assert len(content["images"]) == 8 and len(content["annotations"]) >= 16
    for annotation in content["annotations"]:
        mask = rasterized(annotation["segmentation"], (80, 96))
        assert np.abs(np.subtract(box_of(mask), annotation["bbox"])).max() <= 1
        assert mask.sum() == pytest.approx(annotation["area"], rel=0.1, abs=4)


def test_coordinates_are_floats_because_detectron2_cuts_resized_integers(built):
    for annotation in annotations(built, "train")["annotations"]:
        numbers = [*annotation["bbox"], *sum(annotation["segmentation"], [])]
        assert all(type(number) is float for number in numbers)


@pytest.mark.parametrize("split", SPLITS)
def test_category_is_the_class_of_the_cutout(built, split):
    content = annotations(built, split)
    names = {category["id"]: category["name"] for category in content["categories"]}
    for annotation in content["annotations"]:
        assert annotation["cutout"].startswith(names[annotation["category_id"]] + "-")


def test_pycocotools_reads_the_annotations(built):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(built / "detection" / "instances_val.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == sorted(SHAPES)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert coco.annToMask(annotation).shape == (80, 96)


@pytest.mark.parametrize("split", SPLITS)
def test_detectron2_reads_the_annotations(built, split):
    from detectron2.data.datasets import load_coco_json

    folder = built / "detection"
    read = load_coco_json(str(folder / f"instances_{split}.json"), str(folder / split))
    expected = annotations(built, split)
    assert sum(len(r["annotations"]) for r in read) == len(expected["annotations"])
    assert all(Image.open(r["file_name"]).size == (r["width"], r["height"]) for r in read)


# The splits and the tree


def used(folder, split):
    """Names of cut-outs and backgrounds in both tasks of a split."""
    with (folder / "classification" / f"sources_{split}.csv").open() as file:
        rows = list(csv.DictReader(file))
    content = annotations(folder, split)
    instances, images = content["annotations"], content["images"]
    return {r["cutout"] for r in rows} | {a["cutout"] for a in instances}, {
        r["background"] for r in [*rows, *images]
    }


def test_no_cutout_and_no_background_is_in_both_splits(built):
    for train, val in zip(used(built, "train"), used(built, "val"), strict=True):
        assert train and val and not train & val


def test_split_keeps_a_quarter_of_every_class_for_validation(material):
    libraries = split_material(material, seed=3)
    for label, cutouts in material.cutouts.items():
        sizes = [len(libraries[split].cutouts[label]) for split in SPLITS]
        assert sizes == [0.75 * len(cutouts), 0.25 * len(cutouts)]


def test_classification_tree_has_the_same_classes_in_both_splits(built):
    for split, count in zip(SPLITS, TINY.images, strict=True):
        folder = built / "classification" / split
        assert sorted(path.name for path in folder.iterdir()) == sorted(SHAPES)
        files = list(folder.glob("*/*.jpg"))
        assert len(files) == count and Image.open(files[0]).size == (48, 48)


# The same seed, the same bytes


def test_two_processes_write_the_bytes_of_one(built, material, tmp_path):
    build(tmp_path, material, TINY, seed=0, workers=2)
    assert digests(tmp_path) == digests(built)


def test_another_seed_gives_other_pictures(built, material, tmp_path):
    build(tmp_path, material, TINY, seed=1, workers=1)
    same = digests(tmp_path).items() & digests(built).items()
    assert not [name for name, _ in same if name.endswith(".jpg")]


def test_the_seed_changes_the_scene_on_the_same_material(material):
    libraries = split_material(material, seed=0)
    job = Job("detection", "train", 0)
    first, second = (
        Painter(libraries, TINY, seed, Path()).generator(job).random() for seed in (0, 1)
    )
    assert first != second


def test_generated_shapes_depend_on_the_seed_alone(material):
    again = shapes_material(seed=0)
    assert np.array_equal(again.photographs[3].rgb, material.photographs[3].rgb)
    assert np.array_equal(again.cutouts["star"][5].rgba, material.cutouts["star"][5].rgba)
