"""Annotation files from strangers: whatever is in them, our errors and no others."""

import copy
import json
from collections.abc import Callable

import numpy as np
import pytest
from coco_content_examples import COCO
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask

from d2_isonet.data.coco_json import read_annotations
from d2_isonet.data.masks import mask_problem
from d2_isonet.preflight.data.coco_content import coco_entries, coco_findings
from d2_isonet.preflight.data.objects import Demands
from d2_isonet.preflight.findings import SEVERITIES, findings_table

# The second in the slow suite: 3,300 inputs in all.
EXAMPLES = pytest.mark.parametrize("examples", [70, pytest.param(1100, marks=pytest.mark.slow)])

KEYS = ("id", "name", "images", "annotations", "categories", "image_id", "category_id", "bbox",
        "segmentation", "iscrowd", "area", "file_name", "width", "height", "counts", "size",
        "ignore")  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([0, 1, 3, 7, 10**400, -1, "1", float("nan"), "\0", "\ud800", 1.0])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=3)
COCO_LIKE = st.fixed_dictionaries({key: OBJECTS | VALUES for key in KEYS[2:5]})
VALID = {
    **COCO,
    "annotations": [
        *COCO["annotations"],
        {"id": 3, "image_id": 2, "category_id": 7, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0,
         "segmentation": {"counts": "8:5Ia0", "size": [6, 8]}},
    ],
}  # fmt: skip
REMOVED = object()
PLAUSIBLE = st.integers(0, 9) | st.floats(0, 9) | st.lists(st.integers(0, 9), max_size=6)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths to all parts of a json value."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path, *(p for key, part in inner for p in places(part, (*path, key)))]


@st.composite
def spoilt(draw) -> dict:
    """VALID with one or two parts replaced or removed."""
    content = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(content)[1:] or [("images",)]))
        value = draw(PLAUSIBLE | VALUES | st.just(REMOVED))
        part = content
        for key in path[:-1]:
            part = part[key]
        if value is REMOVED:
            part.pop(path[-1], None) if isinstance(part, dict) else part.pop(path[-1])
        else:
            part[path[-1]] = value
    return content


def for_each(inputs: st.SearchStrategy, examples: int, check: Callable) -> None:
    silent = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    silent(given(inputs)(check))()


def check_file(file) -> list | None:
    """What is found in the annotations; None where they are refused, which names the file."""
    try:
        content = read_annotations(str(file))
    except ValueError as error:
        assert str(file) in str(error) and "no COCO annotation file" in str(error)
        return None
    coco_entries(content, str(file.parent))
    findings = coco_findings(content, Demands(str(file), masks=True)).findings
    assert {f.severity for f in findings} <= set(SEVERITIES)
    findings_table(findings)
    return findings


@EXAMPLES
def test_any_bytes_are_read_or_refused(examples, tmp_path):
    file = tmp_path / "a.json"

    def check(data: bytes) -> None:
        file.write_bytes(data)
        check_file(file)

    prefixes = st.sampled_from([b"", b"{", b"[" * 5000, b'{"images": [', b"\xef\xbb\xbf{}"])
    for_each(st.builds(bytes.__add__, prefixes, st.binary(max_size=60)), examples, check)


@EXAMPLES
def test_any_json_of_the_right_outline_is_checked_or_refused(examples, tmp_path):
    file = tmp_path / "a.json"

    def check(content: object) -> None:
        file.write_text(json.dumps(content))
        check_file(file)

    for_each(COCO_LIKE | VALUES, examples, check)


@EXAMPLES
def test_what_passes_without_an_error_is_loaded_by_detectron2(examples, tmp_path):
    file = tmp_path / "a.json"
    loaded = []

    def check(content: dict) -> None:
        file.write_text(json.dumps(content))
        findings = check_file(file)
        if findings is None or any(f.severity == "error" for f in findings):
            return
        MetadataCatalog.pop("fuzz_set", None)
        dicts = load_coco_json(str(file), "", "fuzz_set")
        assert len(dicts) == len(content["images"])
        loaded.append(content)

    for_each(spoilt(), examples, check)
    assert len(loaded) >= examples / 20


def test_what_is_spoilt_here_is_valid_before(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(VALID))
    assert not [f for f in check_file(file) if f.severity != "fact"]


@pytest.mark.parametrize("seed", range(20))
def test_masks_as_pycocotools_writes_them_are_no_problem(seed):
    random = np.random.RandomState(seed)
    height, width = random.randint(1, 60, 2).tolist()
    pixels = random.rand(height, width) > random.rand()
    rle = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    assert mask_problem(rle, (width, height)) is None
    assert mask_problem({**rle, "size": [height, width - 1]}, None) == "malformed"
    assert mask_problem({**rle, "counts": rle["counts"][:-1] + b"o"}, None) == "malformed"
