"""d2-isonet check-data: its arguments, its exit codes, and the files that it writes."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from d2_isonet.commands import check_data


def run(*arguments) -> int:
    return check_data.main([*map(str, arguments)])


def own(coco_files) -> list:
    return ["--annotations", coco_files[0], "--images", coco_files[1]]


def change(coco_files, function) -> None:
    content = json.loads(coco_files[0].read_text())
    function(content)
    coco_files[0].write_text(json.dumps(content))


def test_a_good_set_ends_with_0(coco_files, capsys):
    assert run(*own(coco_files)) == 0
    printed = capsys.readouterr().out
    assert "4 of 4 image files looked at" in printed and "0 errors" in printed


def test_a_bad_set_ends_with_1_and_the_report_has_every_name(coco_files, tmp_path):
    def unknown(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = None

    change(coco_files, unknown)
    report = tmp_path / "report.json"
    assert run(*own(coco_files), "--json-report", report) == 1
    findings = [f for f in json.loads(report.read_text()) if "without bbox" in f["what"]]
    assert findings[0]["severity"] == "error" and len(findings[0]["items"]) == 7


def test_a_file_that_is_no_json_ends_with_1(coco_files, capsys):
    coco_files[0].write_text("{")
    assert run(*own(coco_files)) == 1
    words = re.findall(r"\w+", capsys.readouterr().out)  # the table wraps by the path's length
    assert {"error", "COCO", "annotation"} <= set(words)


def test_a_config_adds_what_its_head_needs(coco_files, capsys):
    config = ["--config-file", "configs/risonet18_c4.yaml"]
    assert run(*config, *own(coco_files)) == 1
    assert "it is 80, but data set" in " ".join(capsys.readouterr().out.split())
    assert run(*config, *own(coco_files), "MODEL.ROI_HEADS.NUM_CLASSES", "3") == 0


def test_quick_looks_at_a_sample(coco_files, capsys):
    assert run(*own(coco_files), "--quick", "DATASETS.CHECKED_IMAGES", "2") == 0
    assert "2 of 4 image files looked at" in capsys.readouterr().out


@pytest.fixture
def tree(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            number = hash((split, name)) % 50
            Image.new("RGB", (9, 9 + "ab".index(name)), (number, 0, len(split))).save(
                tmp_path / split / name / "1.png"
            )
    return tmp_path


def test_a_folder_of_classes_is_checked(tree):
    assert run("--data-root", tree) == 0
    (tree / "train/b/1.png").write_bytes(b"")
    assert run("--data-root", tree) == 1


def test_images_in_train_and_val_are_told(tree, capsys):
    (tree / "val/a/2.png").write_bytes((tree / "train/b/1.png").read_bytes())
    assert run("--data-root", tree) == 0
    printed = "".join(
        line.split("|")[2] for line in capsys.readouterr().out.splitlines() if "|" in line
    )
    assert "DATASETS.TEST" in printed


def test_a_folder_that_is_not_there_ends_with_1(tmp_path):
    assert run("--data-root", tmp_path / "nowhere") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the data: --config-file"),
        (["--annotations", "x.json"], "--annotations and --images go together"),
        (["--data-root", "x", "--repair", "y"], "--repair needs --annotations"),
        (["--config-file", "nowhere.yaml"], "there is no file /.*nowhere.yaml"),
    ],
)
def test_arguments_that_do_not_say_which_data_end_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert message.split("/.*")[-1] in capsys.readouterr().err


def test_repair_fills_in_what_can_be_had_without_guessing(coco_files, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(coco_files[1] / "0.jpg").save(coco_files[1] / "0.jpg", exif=exif)

    def spoil(content):
        del content["images"][0]["width"], content["images"][1]["height"]
        for annotation in content["annotations"]:
            annotation["id"] = 1
            del annotation["area"], annotation["iscrowd"]

    change(coco_files, spoil)
    assert run(*own(coco_files)) == 1
    new = tmp_path / "new.json"
    assert run(*own(coco_files), "--repair", new) == 0
    content = json.loads(new.read_text())
    assert [a["id"] for a in content["annotations"]] == list(range(1, 8))
    assert [(i["width"], i["height"]) for i in content["images"][:2]] == [(60, 80), (80, 60)]
    assert {(a["area"], a["iscrowd"]) for a in content["annotations"]} == {(720, 0)}
    assert run("--json", new, "--images", coco_files[1]) == 0
    with pytest.raises(SystemExit):  # it does not write over a file
        run(*own(coco_files), "--repair", new)


def test_the_help_takes_no_time_to_import(coco_files):
    command = [sys.executable, "-X", "importtime", "tools/check_dataset.py", "--help"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0 and "--json-report" in process.stdout
    assert " torch\n" not in process.stderr


def test_train_and_val_are_checked_together(coco_files, tmp_path, capsys):
    content = json.loads(coco_files[0].read_text())
    content["images"][3]["file_name"] = "copy.png"
    (tmp_path / "val.json").write_text(json.dumps(content))
    Image.open(coco_files[1] / "3.jpg").save(coco_files[1] / "copy.png")
    flags = ["--train-annotations", coco_files[0], "--train-images", coco_files[1]]
    flags += ["--val-annotations", tmp_path / "val.json", "--val-images", coco_files[1]]
    report = tmp_path / "report.json"
    assert run(*flags, "--json-report", report) == 0
    (twins,) = (f for f in json.loads(report.read_text()) if f["where"] == "DATASETS.TEST")
    assert twins["what"].startswith("4 of 4 images that are trained on as well")
    assert twins["items"][3] == f"{coco_files[1]}/copy.png (as {coco_files[1]}/3.jpg)"
    assert run(*flags[4:], "--eval-only") == 0
    capsys.readouterr()
    assert run(*flags[4:]) == 1 and "add it, or --eval-only" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(*flags, "--data-root", tmp_path)
