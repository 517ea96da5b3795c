"""Every command that a finding prints as its remedy is typed, and the finding is gone."""

import json
import re
import shlex
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from repository import REPOSITORY

from d2_isonet.__main__ import COMMANDS
from d2_isonet.commands import check_data
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.preflight.data.images import REPAIR
from d2_isonet.preflight.findings import COMMAND

PACKAGE = REPOSITORY / "d2_isonet"


class Row(NamedTuple):
    """What is changed in the json (and the folder) of four images, and what the repair is said to
    write."""

    name: str
    change: Callable[[dict, Path], object]
    writes: str


def first(part: str, **values) -> Callable:
    return lambda content, folder: content[part][0].update(values)


def every(part: str, **values) -> Callable:
    return lambda content, folder: [entry.update(values) for entry in content[part]]


def without(part: str, *keys: str) -> Callable:
    return lambda content, folder: [content[part][0].pop(key) for key in keys]


def called(name: str, file: str = "") -> Callable:
    """The first image has this name in the json; its file is moved to `file`, if that is given."""

    def change(content: dict, folder: Path) -> None:
        content["images"][0]["file_name"] = name.format(folder=folder)
        if file:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "0.jpg").rename(folder / file)

    return change


SIZES, IDS = "with the sizes of the files", "with new ids, 1 to N"
NAMES = "with the names of the files that are there"
CLAIMED = "with those of the files, and see whether the boxes are those of this file"
AREA = "with that of their mask or box"
NFC, NFD = (unicodedata.normalize(form, "Übung é.jpg") for form in ("NFC", "NFD"))
ROWS = [
    Row("no width", without("images", "width"), SIZES),
    Row("no size", without("images", "width", "height"), SIZES),
    Row("null and 0", every("images", width=None, height=0), SIZES),
    Row("text", first("images", width="80", height="60"), SIZES),
    Row("negative", first("images", width=-80, height=60), SIZES),
    Row("a list", first("images", width=[80]), SIZES),
    Row("nan", first("images", width=float("nan")), SIZES),
    Row("another size", first("images", width=81), CLAIMED),
    Row("twice the size", every("images", width=160, height=120), CLAIMED),
    Row("a part of a pixel", first("images", width=80.5), CLAIMED),
    Row("ids twice", every("annotations", id=5), IDS),
    Row("one id twice", first("annotations", id=11), IDS),
    Row("no id", without("annotations", "id"), IDS),
    Row("id null", first("annotations", id=None), IDS),
    Row("area as text", first("annotations", area="720"), AREA),
    Row("area null", first("annotations", area=None), AREA),
    Row("area nan", first("annotations", area=float("nan")), AREA),
    Row("backslashes", called("train\\images\\0.jpg"), NAMES),
    Row("a drive", called("C:\\Users\\me\\0.jpg"), NAMES),
    Row("another machine", called("/home/else/data/0.jpg"), NAMES),
    Row("%20", called("a%20b.jpg", "a b.jpg"), NAMES),
    Row("the file has %20", called("a b.jpg", "a%20b.jpg"), NAMES),
    Row("capitals", called("0.JPG"), NAMES),
    Row("capitals of the file", called("img.jpg", "IMG.JPG"), NAMES),
    Row("capitals of the folder", called("Train/0.jpg", "train/0.jpg"), NAMES),
    Row("NFC", called(NFC, NFD), NAMES),
    Row("NFD", called(NFD, NFC), NAMES),
    Row("an address", called("https://host.org/a/0.jpg?size=8"), NAMES),
    Row("file://", called("file://{folder}/0.jpg"), NAMES),
    Row("a folder too many", called("images/0.jpg"), NAMES),
    Row("./ and a folder", called("./images/0.jpg"), NAMES),
    Row("a folder missing", called("0.jpg", "a/b/0.jpg"), NAMES),
    Row("another suffix", called("0.png"), NAMES),
    Row("no suffix", called("0"), NAMES),
    Row("the right folder of two", called("b\\7.jpg", "b/7.jpg"), NAMES),
]


def check(json_file: Path, folder: Path, tmp_path: Path, *words: str) -> list[dict]:
    report = tmp_path / "report.json"
    check_data.main(["--annotations", str(json_file), "--images", str(folder), *words,
                     "--json-report", str(report)])  # fmt: skip
    return json.loads(report.read_text())


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_what_the_remedy_says_is_typed_and_the_finding_is_gone(row, coco_files, tmp_path, capsys):
    file, folder = coco_files
    content = json.loads(file.read_text())
    (folder / "a").mkdir()
    (folder / "a/7.jpg").write_bytes((folder / "1.jpg").read_bytes())
    row.change(content, folder)
    file = file.rename(tmp_path / "my set's.json")  # a name that the shell would split
    file.write_text(json.dumps(content))
    before = file.read_bytes()
    repaired = [x for x in check(file, folder, tmp_path) if "--repair" in x["remedy"]]
    assert any(f" writes a json {row.writes}" in x["remedy"] for x in repaired), repaired
    commands = {match[0] for x in repaired if (match := COMMAND.search(x["remedy"]))}
    (command,) = commands
    assert command in capsys.readouterr().out.splitlines()
    assert shlex.split(command)[:2] == ["d2-isonet", "check-data"]
    assert check_data.main(shlex.split(command)[2:]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "there was nothing to fill in" not in said
    assert file.read_bytes() == before
    new = tmp_path / "my set's_repaired.json"
    assert not [x for x in check(new, folder, tmp_path) if x["severity"] == "error"]
    assert read_annotations(str(new))["images"][0]["width"] == 80
    again = [x for x in check(file, folder, tmp_path) if "--repair" in x["remedy"]]
    assert "_repaired2.json" in again[0]["remedy"]


def test_each_remedy_with_a_command_has_a_row():
    """A new remedy needs a row above, which shows that its command works."""
    sources = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
    written = set(re.findall(r"\{REPAIR\} ([^\"{]*)", sources)) | {CLAIMED, AREA}
    suffixes = {row.writes for row in ROWS}
    assert {text for text in written if not any(text in x for x in suffixes)} == set()
    assert sources.count("--repair NEW") == 1 and REPAIR.endswith("--repair NEW writes a json")


def test_a_command_in_a_message_has_the_name_and_the_options_of_one():
    sources = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
    named = re.findall(r"d2-isonet ([a-z][a-z-]*)((?: --?[a-z-]+(?: [A-Z]+)?)*)", sources)
    named = [(command, options) for command, options in named if command not in ("alone", "of")]
    assert {command for command, _ in named} <= {*COMMANDS}
    for command, options in named:
        parser = __import__(
            f"d2_isonet.commands.{command.replace('-', '_')}", fromlist=["argument_parser"]
        ).argument_parser()
        assert set(re.findall(r"--[a-z-]+", options)) <= parser._option_string_actions.keys()


def test_what_can_be_had_without_guessing_is_filled_in_and_said(coco_files, tmp_path):
    file, folder = coco_files
    content = json.loads(file.read_text())
    areas = [-720.0, 0, 1.0, 1e9, None, "x", 719.5]
    for annotation, area in zip(content["annotations"], areas, strict=True):
        annotation["area"] = area
    content["annotations"][0]["id"] = 0
    content["annotations"][1]["segmentation"] = {"counts": [0, 300, 4500], "size": [60, 80]}
    content["annotations"][2]["segmentation"] = []
    content["annotations"][2].pop("iscrowd")
    content["images"][0].update(width=80.0)
    file.write_text(json.dumps(content))
    done = [x["what"] for x in check(file, folder, tmp_path, "--repair", f"{tmp_path}/new.json")]
    assert done == [
        "1 images have the width and height of their files; see whether the boxes are of them: "
        "0.jpg (80.0 x 60 -> 80 x 60)",
        "7 annotations have new ids, 1 to 7",
        "6 annotations have the area of their mask or box: annotation 1 (-720.0 -> 720), "
        "annotation 2 (0 -> 300), annotation 3 (1.0 -> 720), annotation 4 (1000000000.0 -> 720), "
        "annotation 5 (None -> 720) and 1 more",
        "1 annotations have iscrowd 0",
    ]
    areas = [a["area"] for a in read_annotations(f"{tmp_path}/new.json")["annotations"]]
    assert areas == [720, 300, 720, 720, 720, 720, 719.5]


def test_the_repair_does_not_guess(coco_files, tmp_path):
    """Two files of one name, a size before EXIF's orientation, a box that is none stay."""
    file, folder = coco_files
    content = json.loads(file.read_text())
    for name in ("a/x.jpg", "b/x.jpg"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes((folder / "0.jpg").read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "1.jpg").save(folder / "1.jpg", exif=exif)
    content["images"][0]["file_name"] = "x.jpg"
    content["annotations"][0].update(bbox=None, area=-1)
    file.write_text(json.dumps(content))
    found = check(file, folder, tmp_path)
    assert not [x for x in found if "--repair" in x["remedy"]]
    done = check(file, folder, tmp_path, "--repair", f"{tmp_path}/new.json")
    assert [x["what"] for x in done] == ["there was nothing to fill in"]
