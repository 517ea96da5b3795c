"""What is no COCO json is named, with the way to one."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import zipfile

import pytest
from detectron2.data import DatasetCatalog

from d2_isonet.data.coco_json import read_annotations
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.evaluation.build import coco_evaluator
from d2_isonet.utils.messages import UserError

COCO = {
    "images": [{"id": 1, "file_name": "höhe.jpg", "width": 8, "height": 8}],
    "annotations": [],
    "categories": [{"id": 1, "name": "Bär"}],
}
TEXT = json.dumps(COCO, ensure_ascii=False)
VOC = "<annotation><filename>1.jpg</filename><object/></annotation>"
YOLO = "0 0.5 0.5 0.2 0.3\n12 0.1 0.1 1e-2 0.05\n"


def archive(kind: str) -> bytes:
    opened = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(opened, "w") as file:
            file.writestr("a.coco.json", TEXT)
    else:
        with tarfile.open(fileobj=opened, mode="w") as tar:
            entry = tarfile.TarInfo("a.coco.json")
            entry.size = len(TEXT.encode())
            tar.addfile(entry, io.BytesIO(TEXT.encode()))
    return opened.getvalue()


# what is given; what it is called; whether the remedy is a command that makes a.coco.json
GIVEN = [
    (gzip.compress(TEXT.encode()), "a gzip archive", True),
    (bz2.compress(TEXT.encode()), "a bzip2 archive", True),
    (lzma.compress(TEXT.encode()), "an xz archive", True),
    (archive("zip"), "a zip archive", True),
    (archive("tar"), "a tar archive", True),
    (TEXT.encode("utf-16"), "text in UTF-16", True),
    (TEXT.encode("utf-16-le"), "text in UTF-16LE", True),
    (TEXT.encode("utf-16-be"), "text in UTF-16BE", True),
    (TEXT.encode("utf-32"), "text in UTF-32", True),
    (TEXT.encode("cp1252"), "no text in UTF-8", True),
    (VOC, "XML of PASCAL VOC; .*globox convert /.* /.*.coco.json -F coco -A -f pascalvoc", False),
    (f'<?xml version="1.0"?>\n<!-- x -->\n{VOC}', "XML of PASCAL VOC", False),
    ("<annotations><version>1.1</version>", "XML of CVAT; .*a.json .*-f cvat", False),
    ("<kml></kml>", "it is XML; export COCO json", False),
    ("<!DOCTYPE html><html>", "an HTML page", False),
    (YOLO, "YOLO's text of one image; .*-f yolov5 --img_folder", False),
    ("# data\ntrain: a/\nnames: [a, b]\n", "YOLO's yaml", False),
    ("file,x1,y1,x2,y2,name\na.jpg,1,2,3,4,cat\n", r"a table \(csv\)", False),
    ("version https://git-lfs.github.com/spec/v1\noid", "a git-lfs pointer; git lfs pull", False),
    (b"\x89PNG\r\n\x1a\n", "an image", False),
    (b"\xff\xd8\xff\xe0", "an image", False),
    (b"\x80\x04\x95", "a pickle", False),
    (b"", "it is no json", False),
    (TEXT[:-9], "it is no json", False),
    (f"{TEXT}\n{TEXT}", r"it is no json \(Extra data", False),
    ({"shapes": [], "imagePath": "1.jpg"}, "a json of labelme", False),
    ({"_via_img_metadata": {}}, "a json of the VGG Image Annotator", False),
    ({"1.jpg7": {"filename": "1.jpg", "regions": []}}, "a json of the VGG Image", False),
    ([{"image_id": 1, "bbox": [], "score": 1}], "a json of detections .COCO results.", False),
    ([{"image": "1.jpg", "annotations": []}], "a json of CreateML", False),
    ([{"id": 1, "data": {}, "annotations": []}], "a json of Label Studio", False),
    ({"annotations": [{"segments_info": []}]}, "a json of COCO's panoptic task", False),
    ({"annotations": [{"caption": "a"}]}, "a json of COCO's captions", False),
    ([], "it is a list, not an object; it needs images", False),
    ({"images": []}, "it has no categories; it needs images", False),
]


@pytest.mark.parametrize(("given", "said", "is_command"), GIVEN, ids=[x[1] for x in GIVEN])
def test_it_is_called_what_it_is(given, said, is_command, tmp_path):
    file = tmp_path / "a.json"
    given = given if isinstance(given, bytes | str) else json.dumps(given)
    file.write_bytes(given if isinstance(given, bytes) else given.encode())
    with pytest.raises(UserError, match=f"/a.json is no COCO annotation file: .*{said}") as error:
        read_annotations(str(file))
    if is_command:
        command = error.value.remedy.removeprefix("if it has an older encoding: ")
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602
        assert read_annotations(str(tmp_path / "a.coco.json")) == COCO


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("b.json", "{}", "it is a folder; name a file in it: b.json"),
        ("1.xml", VOC, "it is a folder, with 1.xml: it is XML of PASCAL VOC; .*globox convert"),
        ("1.txt", YOLO, "it is a folder, with 1.txt: it is YOLO's"),
        ("x/y", "", "it is a folder; name the json"),
    ],
)
def test_a_folder_is_said_to_be_one(name, content, said, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read_annotations(str(tmp_path))


def test_a_byte_order_mark_is_read_by_the_check_the_training_and_the_evaluation(tmp_path):
    file = tmp_path / "bom.json"
    file.write_text(TEXT, encoding="utf-8-sig")
    assert read_annotations(str(file)) == COCO
    assert register_coco_files("bom", str(file), str(tmp_path)) == ["Bär"]
    assert DatasetCatalog.get("bom")[0]["file_name"] == os.path.join(tmp_path, "höhe.jpg")
    assert coco_evaluator("bom", str(tmp_path))._coco_api.imgs[1]["file_name"] == "höhe.jpg"
