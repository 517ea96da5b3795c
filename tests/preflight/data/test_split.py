"""--val-fraction: a part of the images is set aside for evaluation, once."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from d2_isonet.commands import check_data, train
from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import use_own_data
from d2_isonet.preflight.data import split
from d2_isonet.preflight.data.split import use_split
from d2_isonet.preflight.run import run_findings
from d2_isonet.utils.messages import UserError

CONFIG = ["--config-file", "configs/risonet18_fpn.yaml"]


@pytest.fixture
def own(tmp_path) -> list[str]:
    """A set of 20 images, of which 0 to 3 are one and the same."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for i in range(20):
        file = tmp_path / "images" / f"{i}.png"
        Image.new("RGB", (30, 20), (max(3, i), 0, 0)).save(file)
        images.append({"id": i, "file_name": file.name, "width": 30, "height": 20})
        box = {"bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0, "category_id": 1}
        annotations.append({"id": i + 1, "image_id": i, **box})
    content = {"images": images, "annotations": annotations, "info": {"year": 2026}}
    content["categories"] = [{"id": 1, "name": "cat"}]
    (tmp_path / "own.json").write_text(json.dumps(content))
    return ["--train-annotations", f"{tmp_path}/own.json", "--train-images", f"{tmp_path}/images"]


def made(own: list[str], *words: str):
    """The arguments after the split, in a folder beside the images."""
    args = train.argument_parser().parse_args([*CONFIG, *own, *words])
    cfg = load_config(args.config_file, ["OUTPUT_DIR", str(Path(own[1]).parent / "out")])
    use_split(cfg, args)
    return args


def parts(args) -> list[dict]:
    return [json.loads(Path(file).read_text()) for file in (args.train_json, args.val_json)]


@pytest.mark.parametrize(("share", "number"), [("0.1", 2), ("0.3", 6), ("0.9", 18), ("0.01", 1)])
def test_every_image_and_annotation_is_in_one_part(share, number, own):
    args = made(own, "--val-fraction", share)
    training, validation = parts(args)
    assert len(validation["images"]) == number and args.val_images == own[3]
    assert training["categories"] == validation["categories"] and training["info"]
    content = json.loads(Path(own[1]).read_text())
    for key in ("images", "annotations"):
        both = sorted([*training[key], *validation[key]], key=lambda entry: entry["id"])
        assert both == content[key]
    for part in (training, validation):
        assert {a["image_id"] for a in part["annotations"]} == {i["id"] for i in part["images"]}


@pytest.mark.parametrize("share", ["0.05", "0.15", "0.2", "0.25", "0.5", "0.85"])
def test_images_that_show_the_same_are_in_the_same_part(share, own):
    training, validation = parts(made(own, "--val-fraction", share))
    sizes = {
        len({i["id"] for i in part["images"]} & {0, 1, 2, 3}) for part in (training, validation)
    }
    assert sizes == {0, 4}


def test_the_split_is_random_and_repeated(own, monkeypatch):
    first = made(own, "--val-fraction", "0.5")
    ids = [image["id"] for image in parts(first)[1]["images"]]
    assert ids == sorted(ids) != list(range(ids[0], ids[0] + 10))
    monkeypatch.setattr(split, "looks_at", None)  # the second time, no image is read
    assert vars(made(own, "--val-fraction", "0.5")) == vars(first)


def test_the_config_of_the_run_has_the_files_of_the_split(own):
    args = made(own, "--val-fraction", "0.5")
    cfg = load_config(args.config_file, [])
    use_own_data(cfg, args)
    assert cfg.DATASETS.OWN_TRAIN == (args.train_json, own[3])
    assert cfg.DATASETS.OWN_VAL == (args.val_json, own[3])
    assert cfg.DATASETS.TEST == ("own_val",)


def test_another_split_leaves_the_first_and_continues_no_run(own):
    first = made(own, "--val-fraction", "0.5")
    with pytest.raises(UserError, match="has the split of other annotations or fraction") as error:
        made(own, "--val-fraction", "0.2", "--resume")
    words = shlex.split(error.value.remedy.partition(": ")[2])
    assert vars(made(words, "--resume")) == {**vars(first), "resume": True}
    assert made(own, "--val-fraction", "0.2").val_json != first.val_json
    assert Path(first.val_json).exists()
    assert made(own, "--val-fraction", "0.5", "--resume").val_json == first.val_json


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_json": None}, "--val-fraction splits --train-annotations; give these"),
        ({"train_images": None}, "--val-fraction splits --train-annotations; give these and --tr"),
        ({"val_json": "x", "val_images": "y"}, "neither --val-annotations nor --val-images"),
        ({}, "only 1 of 20 images are different; add images"),
    ],
)
def test_what_cannot_be_split_is_refused(change, message, own):
    for number in range(20):
        Image.new("RGB", (30, 20)).save(Path(own[3]) / f"{number}.png")
    args = train.argument_parser().parse_args([*CONFIG, *own, "--val-fraction", "0.5"])
    vars(args).update(change)
    with pytest.raises(UserError, match=message):
        use_split(load_config(args.config_file, ["OUTPUT_DIR", f"{own[3]}/out"]), args)


@pytest.mark.parametrize("share", ["1", "10", "-0.1", "nan"])
def test_a_share_that_is_none_is_refused(share, own, capsys):
    with pytest.raises(SystemExit):
        train.main([*CONFIG, *own, "--val-fraction", share])
    assert f"--val-fraction is {share}; it must be from 0" in capsys.readouterr().err


def test_an_image_id_given_twice_stays_for_the_check_of_the_training_part(own):
    content = json.loads(Path(own[1]).read_text())
    content["images"][7]["id"] = 8
    del content["images"][9]["file_name"]
    Path(own[1]).write_text(json.dumps(content))
    training = parts(made(own, "--val-fraction", "0.85"))[0]
    names = [image.get("file_name") for image in training["images"]]
    assert {"7.png", "8.png", None} <= {*names}


def test_check_data_makes_the_split_of_the_training(own, tmp_path, capsys):
    folder = ["OUTPUT_DIR", str(tmp_path / "out")]
    assert check_data.main([*own, "--val-fraction", "0.25", *folder]) == 0
    printed = capsys.readouterr().out
    assert "15 images to train on and 5 to evaluate" in " ".join(printed.split())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        Path(x).name for x in vars(made(own, "--val-fraction", "0.25")).values() if "own_" in str(x)
    )


def test_a_training_without_validation_is_warned_of(own, capsys):
    assert check_data.main(own) == 0
    assert "add --val-fraction 0.1" in " ".join(capsys.readouterr().out.split())
    args = train.argument_parser().parse_args([*CONFIG, *own])
    cfg = load_config(args.config_file, ["DATASETS.TEST", "()", "DATASETS.TRAIN", "('own_train',)"])
    findings = run_findings(cfg, args)[1]
    assert [f.remedy for f in findings if f.where == "DATASETS.TEST"] == [
        "add --val-fraction 0.1, or --val-annotations and --val-images"
    ]
    args.eval_only = True
    assert not [f for f in run_findings(cfg, args)[1] if f.where == "DATASETS.TEST"]
