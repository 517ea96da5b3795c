"""Files in which two values are changed together: a result, or one of our errors, within seconds.

The files: the index of shards, last_checkpoint, the plain values of checkpoints, what a run
records, and COCO annotations.
"""

import contextlib
import copy
import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from coco_content_examples import COCO
from detectron2.engine import TrainerBase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
from d2_isonet.checkpoint.files import find_checkpoint
from d2_isonet.data.shards.index import load_shard_index
from d2_isonet.data.shards.order import ShardOrder
from d2_isonet.engine.hooks.best_checkpoint import _read as read_best
from d2_isonet.engine.run_record import read_run_records
from d2_isonet.preflight.data.objects import Demands
from d2_isonet.preflight.data.sets import check_coco
from d2_isonet.preflight.findings import findings_table
from d2_isonet.reporting.runs.run import read_run
from d2_isonet.utils.messages import UserError

EXAMPLES = pytest.mark.parametrize("examples", [60, pytest.param(700, marks=pytest.mark.slow)])
MOST_SECONDS, MOST_KILOBYTES = 10, 2_000_000
REMOVED = object()
DEEP: list = []
for _ in range(90):
    DEEP = [DEEP]
BOMB: list = ["x"]
for _ in range(12):
    BOMB = [BOMB] * 10
NUMBERS = [0, -1, 1, 2, 10**9, 10**12, 2**63, 10**400, 1.5, 1e308, float("nan"), float("inf")]
TEXTS = ["", "x", "5", "../x", "/etc/passwd", "a\0b", "\x1b[31m\n\u202e", "\ud800", "pipe:true"]
PLAIN = st.sampled_from([*NUMBERS, *TEXTS, None, True, False, [], [1], {}, {"a": 1}, DEEP, REMOVED])
REMARKABLE = PLAIN | st.integers() | st.floats() | st.text(max_size=6)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths to all parts of a value; not those to its beginning."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [p for k, part in inner for p in ((*path, k), *places(part, (*path, k)))]


def changed(value: object, path: tuple, new: object):
    """`value` with another part at `path`, if there is such a place."""
    if not path:
        return new
    with contextlib.suppress(TypeError, LookupError, AttributeError):
        part = changed(value[path[0]], path[1:], new)
        value = copy.copy(value)
        if part is REMOVED:
            del value[path[0]]
        else:
            value[path[0]] = part
    return value


def pairs_of_changes(valid: object, values: st.SearchStrategy):
    change = st.tuples(st.sampled_from(places(valid)), values)

    def apply(changes: list[tuple]):
        result = valid
        for path, new in changes:
            result = changed(result, path, new)
        return result

    return st.lists(change, min_size=2, max_size=2).map(apply)


def fuzz(strategy: st.SearchStrategy, examples: int, check: Callable) -> None:
    """`check` raises nothing but UserError, in seconds and without much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def each(example):
        signal.alarm(MOST_SECONDS)
        with contextlib.suppress(UserError):
            check(example)
        signal.alarm(0)

    signal.signal(signal.SIGALRM, _too_long)
    each()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES


def _too_long(*_):
    raise AssertionError(f"it took more than {MOST_SECONDS} seconds")


def _shard(split: str) -> dict:
    return {"file": f"{split}-00000.tar", "samples": 2, "bytes": 10240, "sha256": "0" * 64}


INDEX = {
    "format": "d2_isonet image shards", "version": 1, "plan": "x", "seed": 0, "classes": ["a", "b"],
    "splits": {split: {"samples": 2, "shards": [_shard(split)]} for split in ("train", "val")},
}  # fmt: skip


@EXAMPLES
def test_an_index_of_shards(examples, tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}-00000.tar").write_bytes(b"\0" * 10240)

    def check(index: object) -> None:
        (tmp_path / "index.json").write_text(json.dumps(index))
        for images in load_shard_index(str(tmp_path)).values():
            order = ShardOrder([x.samples for x in images.shards], 0, 2, 1, 1)
            assert order.members(order.place(0))

    fuzz(pairs_of_changes(INDEX, REMARKABLE), examples, check)


def _state() -> dict:
    return {"weight": torch.ones(2, 3), "bias": torch.ones(2)}


CHECKPOINT = {
    "model": _state(), "matching_heuristics": False, "iteration": 3,
    "trainer": {"iteration": 3, "data_order": {"seed": 1, "processes": 1}, "hooks": {"A": [1]}},
    "meta": {
        "architecture": {"depth": 18, "norm": "BN"},
        "input": {"pixel_mean": [1.0, 2.0, 3.0]},
        "categories": {"names": ["a", "b"], "ids": [1, 2]},
    },
}  # fmt: skip
HUGE = [BOMB, torch.ones(3), torch.ones(1).expand(10**10), float("-inf"), (1, 2), {1: 2}]


class Heads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 3))
        self.bias = torch.nn.Parameter(torch.zeros(2))


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # a tensor as a mapping
@EXAMPLES
def test_the_plain_values_of_a_checkpoint_and_the_tag(examples, tmp_path, caplog):
    caplog.set_level("CRITICAL")
    expected = {k: v for k, v in CHECKPOINT["meta"].items() if k != "categories"}
    names = ["model_1.pth", "../model_1.pth", "a\0b", "\x1b[31m", ".", "..", "x" * 5000, ""]
    tags = st.sampled_from([x.encode() for x in names]) | st.binary(max_size=20)

    def check(example: tuple) -> None:
        content, tag = example
        (tmp_path / "last_checkpoint").write_bytes(tag)
        torch.save(content, tmp_path / "model_1.pth")
        path = find_checkpoint(tmp_path)
        assert path == tmp_path / "model_1.pth"
        assert 0 <= content["trainer"]["iteration"] < 10**12
        checkpointer = ISONetCheckpointer(Heads(), expected_meta=expected, trainer=TrainerBase())
        checkpointer.load(str(path))

    contents = pairs_of_changes(CHECKPOINT, REMARKABLE | st.sampled_from(HUGE))
    fuzz(st.tuples(contents, tags), examples, check)


PER_CLASS = {
    "dataset": "v", "json_file": "a.json", "image_root": "b", "max_detections": 100,
    "tasks": {"bbox": [{"class": "a", "AP": 1.5, "objects": 3}]},
}  # fmt: skip
RECORDS = {
    "metrics.json": {"iteration": 3, "total_loss": 1.0, "lr": 0.1, "bbox/AP": 3.0},
    "config.yaml": {"SOLVER": {"MAX_ITER": 5}, "DATASETS": {"TEST": ["v"]}, "MODEL": {"A": 1}},
    "runs.json": [{"started": "2026", "command": "x", "environment": {"gpu": "none"}}],
    "model_best.json": {"metric": "bbox/AP", "history": [[1, 2.0], [3, 4.0]]},
    "inference/v/per_class.json": PER_CLASS,
}


@EXAMPLES
def test_what_a_run_records(examples, tmp_path, caplog):
    caplog.set_level("CRITICAL")
    (tmp_path / "inference" / "v").mkdir(parents=True)

    def check(records: dict) -> None:
        for name, content in records.items():
            (tmp_path / name).write_text(json.dumps(content))
        read_run_records(tmp_path / "runs.json")
        read_best(tmp_path / "model_best.json")
        run = read_run(Path(tmp_path), "run")
        for key in run.metrics.keys():  # noqa: SIM118
            run.metrics.series(key)

    files = {name: pairs_of_changes(content, REMARKABLE) for name, content in RECORDS.items()}
    fuzz(st.fixed_dictionaries(files), examples, check)


@EXAMPLES
def test_coco_annotations(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "a.json"

    def check(content: object) -> None:
        path.write_text(json.dumps(content))
        checked = check_coco(Demands(str(path), True, True), str(tmp_path))
        table = findings_table(checked.findings)
        assert not {"\x1b", "\u202e", "\0"} & set(table)

    fuzz(pairs_of_changes(COCO, REMARKABLE), examples, check)
