"""Names what was given in place of a COCO json, and the way from there to one."""

import json
import os
import re
import shlex

from d2_isonet.utils.messages import shortened

_BEGINNINGS = {  # of a file: what it is, and what makes NEW of it
    b"\x1f\x8b": ("a gzip archive", "gunzip -c < FILE > NEW"),
    b"BZh": ("a bzip2 archive", "bunzip2 -c < FILE > NEW"),
    b"\xfd7zXZ": ("an xz archive", "xz -dc < FILE > NEW"),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "zstd -dc < FILE > NEW"),
    b"PK\x03\x04": ("a zip archive", "unzip FILE"),
    b"7z\xbc\xaf": ("a 7z archive", "7z x FILE"),
    b"\x89PNG": ("an image", "give the json"),
    b"\xff\xd8\xff": ("an image", "give the json"),
    b"\x80": ("a pickle", "give the json"),
    b"version https://git-lfs": ("a git-lfs pointer", "git lfs pull"),
}
_CONVERT = "pip install globox; globox convert {} NEW -F coco -A -f "
_YOLO = f"{_CONVERT.format('FOLDER')}yolov5 --img_folder IMAGES -m CLASSES.txt (a name a line)"
_TEXTS = {  # what a text matches, in this order
    r"(?i)<!doctype html|<html": ("an HTML page", "download the file with a login"),
    r"(?s)(<\?.*)?<annotations\b": ("XML of CVAT", f"{_CONVERT.format('FILE')}cvat"),
    r"(?s)(<\?.*)?<annotation\b": ("XML of PASCAL VOC", f"{_CONVERT.format('FOLDER')}pascalvoc"),
    r"<": ("XML", "export COCO json from the program that wrote it"),
    r"\d+([ \t]+[-+.\de]+){4,}[ \t]*(\r?\n|\Z)": ("YOLO's text of one image", _YOLO),
    r"(#.*\s+)*(names|train|val|test|path|nc) *:": ("YOLO's yaml", _YOLO),
    r"[^\n{\[]*[,;\t]": ("a table (csv)", "export COCO json from the program that wrote it"),
}
_VIA = ("of the VGG Image Annotator (VIA)", "export COCO from it")
_JSONS = (  # keys of the whole, of its first entry, or of its first annotation
    ("all", {"shapes", "imagePath"}, ("of labelme, of one image", "run its labelme2coco.py")),
    ("all", {"_via_img_metadata"}, _VIA),
    ("entry", {"filename", "regions"}, _VIA),
    ("entry", {"image_id", "score"}, ("of detections (COCO results)", "give the annotations")),
    ("entry", {"image", "annotations"}, ("of CreateML", "export COCO from its program")),
    ("entry", {"data", "annotations"}, ("of Label Studio", "export COCO from it")),
    ("annotation", {"segments_info"}, ("of COCO's panoptic task", "give the instances")),
    ("annotation", {"caption"}, ("of COCO's captions", "give the instances")),
)


def other_format(path: str, beginning: bytes) -> tuple[str, str] | None:
    """What a file is instead of UTF-8 json, and the remedy; None if it is not known.

    Args:
        beginning: some kilobytes of the file.
    """
    kind = next((kind for x, kind in _BEGINNINGS.items() if beginning.startswith(x)), None)
    encoding = json.detect_encoding(beginning).upper().replace("-LE", "LE").replace("-BE", "BE")
    text = beginning.decode("utf-8-sig", "replace").lstrip()
    if beginning[257:262] == b"ustar":
        kind = ("a tar archive", "tar xf FILE")
    elif encoding.startswith(("UTF-16", "UTF-32")):
        kind = kind or (f"text in {encoding}", to_utf8(encoding, path))
    elif text[:1] not in ("", "{", "["):
        kind = kind or next((x for pattern, x in _TEXTS.items() if re.match(pattern, text)), None)
    return kind and (f"it is {kind[0]}", _filled_in(kind[1], path))


def other_json(path: str, content: object) -> tuple[str, str] | None:
    """What the content of a json is instead of COCO annotations, and the remedy, if it is known."""
    annotations = content.get("annotations") if isinstance(content, dict) else None
    parts = {"all": content, "entry": _first(content), "annotation": _first(annotations)}
    for part, keys, (what, remedy) in _JSONS:
        values = parts[part]
        if isinstance(values, dict) and keys <= values.keys():
            return f"it is a json {what}", _filled_in(remedy, path)
    return None


def to_utf8(encoding: str, path: str) -> str:
    """The command that writes a text anew in UTF-8."""
    return _filled_in(f"iconv -f {encoding} -t UTF-8 FILE > NEW", path)


def _first(entries: object) -> object:
    values = entries.values() if isinstance(entries, dict) else entries
    return next(iter(values), None) if isinstance(values, list | type({}.values())) else None


def _filled_in(remedy: str, path: str) -> str:
    stem = os.path.splitext(path.removesuffix(".gz"))[0]
    words = {"FILE": path, "FOLDER": os.path.dirname(path), "NEW": f"{stem}.coco.json"}
    return re.sub("|".join(words), lambda match: shlex.quote(words[match[0]]), remedy)


def what_folder(path: str) -> tuple[str, str]:
    """What a folder is that was given as the file, and the remedy."""
    names = sorted(os.listdir(path))
    jsons = [name for name in names if name.endswith(".json")]
    if jsons:
        return "it is a folder", f"name a file in it: {shortened(jsons)}"
    for name in names[:1]:
        file = os.path.join(path, name)
        kind = os.path.isfile(file) and other_format(file, beginning_of(file))
        if kind:
            return f"it is a folder, with {name}: {kind[0]}", kind[1]
    return "it is a folder", "name the json file"


def beginning_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 12)
