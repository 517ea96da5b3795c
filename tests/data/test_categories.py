"""A detector never gets the class names of another data set."""

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.config.loading import load_config
from d2_isonet.data.categories import categories_of, categories_of_json, categories_record
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.engine.predictor import Predictor
from d2_isonet.export.record import find_class_names

SMALL = "configs/quickstart/small_risonet18_dc5.yaml"


def config(classes: int, train: str = "", test: str = "", *opts: str):
    sets = ["DATASETS.TRAIN", repr(tuple(filter(None, [train])))]
    sets += ["DATASETS.TEST", repr(tuple(filter(None, [test])))]
    number = ["MODEL.ROI_HEADS.NUM_CLASSES", str(classes), "MODEL.DEVICE", "cpu"]
    return load_config(SMALL, [*sets, *number, *opts])


@pytest.fixture
def three_classes():
    """The name of a registered set of three classes with ids 3, 7, 9."""
    name = "three_classes"
    MetadataCatalog.get(name).thing_classes = ["cat", "tree", "ship"]
    MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = {3: 0, 7: 1, 9: 2}
    yield name
    MetadataCatalog.remove(name)


def test_the_record_of_a_training_has_the_names_and_ids_of_its_set(three_classes):
    record = categories_record(config(3, three_classes))
    assert record == {"categories": {"names": ["cat", "tree", "ship"], "ids": [3, 7, 9]}}


def test_names_of_another_head_or_of_no_set_are_not_recorded(three_classes):
    assert categories_record(config(4, three_classes)) == {}
    assert categories_record(config(3)) == categories_record(config(3, "nowhere")) == {}


def test_the_weights_own_names_come_before_those_of_the_config(three_classes):
    record = {"categories": {"names": ["a", "b", "c"], "ids": ["x", "y", "z"]}}
    found = categories_of(config(3, three_classes), record, "w.pth")
    assert found == (["a", "b", "c"], ["x", "y", "z"], "w.pth")


@pytest.mark.parametrize(
    "record",
    [
        None,
        {"categories": {"names": ["a", "b"], "ids": [1, 2]}},  # of another head
        {"categories": "cat, tree, ship"},
        {"categories": {"names": "cat", "ids": [1, 2, 3]}},
        {"categories": {"names": ["a", "b", 3], "ids": [1, 2, 3]}},
        {"categories": {"names": ["a", "b", "c"], "ids": [1, 2, [3]]}},
        {"categories": {"names": ["a", "b", "c"], "ids": [1, 2]}},
    ],
)
def test_without_a_record_of_this_head_the_data_sets_name_them(three_classes, record):
    found = categories_of(config(3, "", three_classes), record, "w.pth")
    assert found == (["cat", "tree", "ship"], [3, 7, 9], "data set 'three_classes'")


def test_a_set_of_another_number_of_classes_names_nothing(three_classes):
    found = categories_of(config(2, three_classes, "coco_2017_val"), None, "w.pth")
    assert found == (["class 1", "class 2"], [1, 2], "")


def test_a_set_without_ids_counts_from_one():
    MetadataCatalog.get("no_ids").thing_classes = ["a", "b"]
    assert categories_of(config(2, "no_ids"), None, "").ids == [1, 2]
    MetadataCatalog.remove("no_ids")


def test_a_json_names_them_in_the_order_of_their_ids(coco_files):
    found = categories_of_json(read_annotations(str(coco_files[0])), "a.json")
    assert found == (["cat", "tree", "ship"], [3, 7, 9], "a.json")


def test_trained_weights_carry_their_classes_to_the_predictor(coco_files, tmp_path):
    register_coco_files("own_train", str(coco_files[0]), str(coco_files[1]))
    DatasetCatalog.get("own_train")  # as the loader does before the checkpointer is built
    cfg = config(3, "own_train", "", "OUTPUT_DIR", str(tmp_path))
    build_checkpointer(cfg, build_model(cfg)).save("trained")
    elsewhere = config(3, "", "", "MODEL.WEIGHTS", str(tmp_path / "trained.pth"))
    predictor = Predictor(elsewhere)
    assert predictor.categories == (["cat", "tree", "ship"], [3, 7, 9], elsewhere.MODEL.WEIGHTS)
    assert predictor.metadata.thing_classes == ["cat", "tree", "ship"]
    record = torch.load(elsewhere.MODEL.WEIGHTS, weights_only=True)["meta"]
    names, source = find_class_names(cfg, "detector", None, record, elsewhere.MODEL.WEIGHTS)
    assert (names, source) == (["cat", "tree", "ship"], elsewhere.MODEL.WEIGHTS)
    (tmp_path / "names.txt").write_text("cat\nship\ntree\n")
    with pytest.raises(ValueError, match="--class-names: .* has 'ship' in place of 'tree' in"):
        find_class_names(
            cfg, "detector", str(tmp_path / "names.txt"), record, elsewhere.MODEL.WEIGHTS
        )


def test_a_config_with_other_names_than_the_weights_is_warned_of(three_classes, caplog):
    record = {"categories": {"names": ["cat", "ship", "tree"], "ids": [1, 2, 3]}}
    categories_of(config(3, three_classes), record, "w.pth")
    assert (
        "named by w.pth: cat, ship, tree. In the config, data set 'three_classes' has cat, tree"
        in (caplog.text)
    )


def test_a_json_that_was_not_loaded_yet_names_its_classes(coco_files):
    register_coco_instances("unloaded", {}, str(coco_files[0]), str(coco_files[1]))
    found = categories_of(config(3, "", "unloaded"), None, "w.pth")
    assert found == (["cat", "tree", "ship"], [3, 7, 9], "data set 'unloaded'")
    DatasetCatalog.remove("unloaded")
    MetadataCatalog.remove("unloaded")


def test_weights_from_before_the_record_are_read(tmp_path):
    cfg = config(3, "", "", "MODEL.WEIGHTS", str(tmp_path / "old.pth"))
    torch.save({"model": build_model(cfg).state_dict()}, cfg.MODEL.WEIGHTS)
    assert Predictor(cfg).categories.names == ["class 1", "class 2", "class 3"]
