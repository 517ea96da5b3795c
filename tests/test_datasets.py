"""COCO-format data of one's own, and what is found out before training."""

import json
from argparse import Namespace

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from d2_isonet.command_line import load_config
from d2_isonet.compat import coco_evaluator
from d2_isonet.datasets import check_datasets, register_coco_files, use_own_data


def arguments(**given) -> Namespace:
    names = ("train_json", "train_images", "val_json", "val_images")
    return Namespace(**{**dict.fromkeys(names), "eval_only": False, **given})


def config(*opts: str):
    return load_config("configs/risonet18_c4.yaml", list(opts))


def test_classes_come_from_the_file_in_the_order_of_their_ids(coco_files):
    assert register_coco_files("fact_set", *map(str, coco_files)) == ["cat", "tree", "ship"]
    dicts = DatasetCatalog.get("fact_set")
    assert len(dicts) == 4
    assert MetadataCatalog.get("fact_set").thing_classes == ["cat", "tree", "ship"]
    assert {a["category_id"] for d in dicts for a in d["annotations"]} == {0, 1, 2}


def test_registering_again_takes_the_new_file(coco_files, tmp_path):
    json_file, images = coco_files
    register_coco_files("again_set", str(json_file), str(images))
    content = json.loads(json_file.read_text())
    content["categories"][0]["name"] = "boat"
    (tmp_path / "new.json").write_text(json.dumps(content))
    names = register_coco_files("again_set", str(tmp_path / "new.json"), str(images))
    assert names == ["cat", "tree", "boat"]


def test_own_data_sets_names_and_the_heads_classes(coco_files):
    json_file, images = map(str, coco_files)
    cfg = config()
    use_own_data(
        cfg,
        arguments(train_json=json_file, train_images=images, val_json=json_file, val_images=images),
    )
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("own_train",), ("own_val",))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    check_datasets(cfg)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("train_json",), "--train-json and --train-images go together"),
        (("val_json", "val_images"), "--val-json without --train-json"),
    ],
)
def test_incomplete_own_data_is_refused(given, message, coco_files):
    values = dict(zip(("json", "images"), map(str, coco_files), strict=True))
    with pytest.raises(ValueError, match=message):
        use_own_data(config(), arguments(**{g: values[g.split("_")[1]] for g in given}))


def test_other_categories_for_validation_are_refused(coco_files, tmp_path):
    json_file, images = coco_files
    content = json.loads(json_file.read_text())
    content["categories"][0]["name"] = "boat"
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'ship'.*'boat'"):
        use_own_data(
            config(),
            arguments(
                train_json=str(json_file),
                train_images=str(images),
                val_json=str(tmp_path / "val.json"),
                val_images=str(images),
            ),
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "no COCO annotation file"), ('{"images": []}', "categories"), ("[]", "no COCO"),
     ('{"images": [], "annotations": [], "categories": []}', "empty list of categories")],
)  # fmt: skip
def test_a_json_that_is_no_coco_file_is_refused(content, message, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=f"bad.json.*{message}"):
        register_coco_files("bad_set", str(tmp_path / "bad.json"), str(tmp_path))


def broken(coco_files, change) -> tuple[str, str]:
    json_file, images = coco_files
    content = json.loads(json_file.read_text())
    change(content)
    json_file.write_text(json.dumps(content))
    return str(json_file), str(images)


def all_crowd(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=8), r"1 of 7 .*none of \[3, 7, 9\]"),
        (lambda c: c["annotations"][0].update(image_id=99), "image_id that no image has"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "four finite"),
        (lambda c: c["annotations"][0].pop("bbox"), "1 of 7 annotations have no bbox"),
        (lambda c: c["annotations"][1].pop("segmentation"), "no segmentation .*MASK_ON False"),
        (lambda c: c.update(annotations=[]), "no annotation can be learned .there are none"),
        (all_crowd, "no annotation can be learned .all are iscrowd"),
    ],
)
def test_annotations_that_would_end_a_training_midway_are_refused(change, message, coco_files):
    with pytest.raises(ValueError, match=message):
        register_coco_files("broken_set", *broken(coco_files, change), masks=True)


def test_images_in_another_folder_are_named(coco_files, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="4 of 4 looked for .*empty, the first is 0.jpg"):
        register_coco_files("folder_set", str(coco_files[0]), str(tmp_path / "empty"))


def test_annotations_without_area_and_iscrowd_are_evaluated(coco_files, tmp_path):
    def change(content):
        for annotation in content["annotations"]:
            del annotation["area"], annotation["iscrowd"]

    register_coco_files("bare_set", *broken(coco_files, change))
    evaluator = coco_evaluator("bare_set", str(tmp_path / "inference"))
    annotation = evaluator._coco_api.loadAnns(1)[0]
    assert (annotation["area"], annotation["iscrowd"]) == (18 * 40, 0)


def test_missing_own_files_are_named(coco_files, tmp_path):
    json_file, images = map(str, coco_files)
    with pytest.raises(FileNotFoundError, match="none.json"):
        register_coco_files("no_set", str(tmp_path / "none.json"), images)
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        register_coco_files("no_set", json_file, str(tmp_path / "nowhere"))


def test_a_misspelt_name_gets_the_nearest():
    cfg = config("DATASETS.TRAIN", "('coco_2017_trian',)")
    with pytest.raises(ValueError, match="DATASETS.TRAIN.*'coco_2017_trian'.*'coco_2017_train'"):
        check_datasets(cfg)


@pytest.mark.parametrize(("key", "eval_only"), [("TRAIN", False), ("TEST", True)])
def test_an_empty_list_of_the_data_sets_needed_is_refused(key, eval_only):
    with pytest.raises(ValueError, match=f"DATASETS.{key} is empty"):
        check_datasets(config(f"DATASETS.{key}", "()"), eval_only)


def test_one_may_train_without_a_validation_set(coco_files):
    cfg = config()
    use_own_data(cfg, arguments(train_json=str(coco_files[0]), train_images=str(coco_files[1])))
    assert cfg.DATASETS.TEST == ()
    check_datasets(cfg)


def test_coco_that_is_not_there_names_the_path_and_the_variable():
    MetadataCatalog.get("absent_set").set(json_file="somewhere/absent.json", image_root="x")
    DatasetCatalog.register("absent_set", list)
    cfg = config("DATASETS.TRAIN", "('absent_set',)")
    with pytest.raises(FileNotFoundError, match="/somewhere/absent.json.*DETECTRON2_DATASETS"):
        check_datasets(cfg)


@pytest.mark.parametrize("number", [2, 4, 80])
def test_a_head_with_another_number_of_classes_is_refused(number, coco_files):
    register_coco_files("count_set", *map(str, coco_files))
    cfg = config(
        "DATASETS.TRAIN", "('count_set',)", "DATASETS.TEST", "('count_set',)",
        "MODEL.ROI_HEADS.NUM_CLASSES", str(number),
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"NUM_CLASSES is {number}.*has 3 classes .*cat, tree"):
        check_datasets(cfg)
