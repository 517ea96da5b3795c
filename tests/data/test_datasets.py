"""A user's COCO-format data: registration, and validation before training."""

import json
from argparse import Namespace

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from d2_isonet.config.defaults import add_isonet_config
from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import (
    OWN_SETS,
    load_registered,
    register_coco_files,
    register_own_data,
    use_own_data,
)
from d2_isonet.evaluation.build import coco_evaluator
from d2_isonet.preflight.data.sets import check_datasets


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
        (("train_json",), "--train-annotations and --train-images go together"),
        (("val_json", "val_images"), "--val-annotations without --train-annotations"),
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
    cfg, val = config(), str(tmp_path / "val.json")
    given = {"train_json": str(json_file), "train_images": str(images)}
    use_own_data(cfg, arguments(**given, val_json=val, val_images=str(images)))
    with pytest.raises(ValueError, match="data set 'own_val': .*boat, and 'own_train' .*ship"):
        check_datasets(cfg)


@pytest.mark.parametrize("keys", [("TRAIN", "TEST"), ("TRAIN", "TRAIN"), ("TEST", "TEST")])
def test_data_sets_of_a_run_must_agree_on_their_classes(keys, coco_files, tmp_path):
    json_file, images = coco_files
    content = json.loads(json_file.read_text())
    for category, name in zip(content["categories"], ("cat", "ship", "tree"), strict=True):
        category["name"] = name
    (tmp_path / "other.json").write_text(json.dumps(content))
    cfg = config("DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.ROI_HEADS.NUM_CLASSES", "3")
    for name, file, key in zip("ab", (json_file, tmp_path / "other.json"), keys, strict=True):
        register_coco_instances(f"agree_{name}", {}, str(file), str(images))
        cfg.DATASETS[key] += (f"agree_{name}",)
    try:
        with pytest.raises(ValueError, match="data set 'agree_b': it has the classes .*'agree_a'"):
            check_datasets(cfg, eval_only=keys[0] == "TEST")
    finally:
        for name in "ab":
            DatasetCatalog.remove(f"agree_{name}")
            MetadataCatalog.remove(f"agree_{name}")


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


def test_annotations_without_area_and_iscrowd_are_evaluated(coco_files, tmp_path):
    def change(content):
        for annotation in content["annotations"]:
            del annotation["area"], annotation["iscrowd"]

    register_coco_files("bare_set", *broken(coco_files, change))
    evaluator = coco_evaluator("bare_set", str(tmp_path / "inference"))
    annotation = evaluator._coco_api.loadAnns(1)[0]
    assert (annotation["area"], annotation["iscrowd"]) == (18 * 40, 0)


def test_a_missing_own_file_is_named(coco_files, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json"):
        register_coco_files("no_set", str(tmp_path / "none.json"), str(coco_files[1]))


@pytest.mark.parametrize(("key", "eval_only"), [("TRAIN", False), ("TEST", True)])
def test_an_empty_list_of_the_data_sets_needed_is_refused(key, eval_only):
    with pytest.raises(ValueError, match=f"DATASETS.{key}: it is empty"):
        check_datasets(config(f"DATASETS.{key}", "()"), eval_only)


def test_one_may_train_without_a_validation_set(coco_files):
    cfg = config()
    use_own_data(cfg, arguments(train_json=str(coco_files[0]), train_images=str(coco_files[1])))
    assert cfg.DATASETS.TEST == ()
    check_datasets(cfg)


def given(coco_files, *splits: str, **options) -> Namespace:
    """The flags of own data for these splits."""
    values = dict(zip(("json", "images"), coco_files, strict=True))
    return arguments(**{f"{s}_{k}": str(v) for s in splits for k, v in values.items()}, **options)


def test_a_run_is_repeated_from_its_config_without_flags(coco_files, tmp_path, monkeypatch):
    cfg = config()
    monkeypatch.chdir(coco_files[0].parent)
    use_own_data(cfg, given([path.name for path in coco_files], "train", "val"))
    paths = tuple(map(str, coco_files))  # absolute, whatever was typed
    assert cfg.DATASETS.OWN_TRAIN == cfg.DATASETS.OWN_VAL == paths
    (tmp_path / "config.yaml").write_text(cfg.dump())
    for name in OWN_SETS:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    monkeypatch.chdir("/")
    again = get_cfg()
    add_isonet_config(again)
    again.merge_from_file(str(tmp_path / "config.yaml"))  # as plain detectron2 does
    use_own_data(again, arguments())
    assert again.DATASETS == cfg.DATASETS
    check_datasets(again)


def test_flags_replace_one_set_of_the_config(coco_files, tmp_path):
    cfg = config()
    use_own_data(cfg, given(coco_files, "train", "val"))
    new = tmp_path / "new.json"
    new.write_text(coco_files[0].read_text())
    use_own_data(cfg, given((new, coco_files[1]), "val"))
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("own_train",), ("own_val",))
    assert cfg.DATASETS.OWN_TRAIN[0] == str(coco_files[0]) and cfg.DATASETS.OWN_VAL[0] == str(new)
    assert MetadataCatalog.get("own_val").json_file == str(new)


def test_data_that_have_moved_are_named_with_their_flags(coco_files):
    cfg = config()
    use_own_data(cfg, given(coco_files, "train", "val"))
    for name in OWN_SETS:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    coco_files[0].unlink()
    use_own_data(cfg, arguments())  # the demo and the export do not need them
    with pytest.raises(ValueError, match="there is no file .* by --val-annotations and --val-imag"):
        check_datasets(cfg, eval_only=True)


def test_a_key_of_one_path_is_refused():
    with pytest.raises(ValueError, match="DATASETS.OWN_VAL is .*give an annotation file and"):
        register_own_data(config("DATASETS.OWN_VAL", "('a.json',)"))


def test_the_folders_of_a_pretraining_are_found_by_their_names(tmp_path):
    for split in ("train", "val"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / label / "0.png")
    dicts, classes = load_registered(f"{tmp_path}/val")  # as its config.yaml names it
    assert classes == ["a", "b"] and len(dicts) == 2
