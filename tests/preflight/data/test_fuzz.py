"""Whatever is in a config, a command line or a weights file: our errors, no crash, no code run."""

import contextlib
import os
import pickle
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from bad_files import Hostile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
from d2_isonet.checkpoint.reading import WeightsError, read_state_dict
from d2_isonet.config.loading import load_config
from d2_isonet.utils.messages import UserError

BASE = "configs/quickstart/small_risonet18_dc5.yaml"
# How many inputs each of the four fuzzers tries; together over 10,000 in the slow suite.
AMOUNTS = [100, pytest.param(3500, marks=pytest.mark.slow)]
# What code in an input would do; Python tells of each, also where it fails.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.mkdir", "subprocess.Popen",
             "socket.connect", "shutil.rmtree", "os.remove")  # fmt: skip

_watch: list[str] | None = None  # events while an input is read; None: nobody watches


def _listen(event: str, arguments: tuple) -> None:
    if _watch is not None and event in FORBIDDEN:
        _watch.append(f"{event} {arguments}")


sys.addaudithook(_listen)  # there is no way to remove one


@contextlib.contextmanager
def nothing_executed():
    global _watch
    _watch = events = []
    try:
        yield
    finally:
        _watch = None
    assert events == []


def fuzz(strategy, amount: int, check) -> int:
    """Try `check` on so many examples; returns how many there were."""
    count = 0

    @settings(
        max_examples=amount, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def each(example):
        nonlocal count
        count += 1
        check(example)

    each()
    return count


# ------------------------------------------------------------------- yaml and KEY VALUE pairs

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["(1, 2)", "[1", "{}", "-" * 200 + "1", "(" * 300, "__import__('os').getpid()",
                     "1e999", "\0", "'", "None", "('a',)", "lambda: 0", "0x1F", "1_000"]),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(["MODEL", "SOLVER", "DATASETS", "TRAIN", "WEIGHTS", "RESNETS", "DEPTH", "STEPS",
                     "BASE_LR", "VERSION", "_BASE_", "INPUT", "ISONET", "RESIDUAL_SCALE"]),
    st.text(max_size=5),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FRAGMENTS = st.lists(
    st.sampled_from([
        "MODEL:", "SOLVER:", "_BASE_: ", "&a ", "*a", "<<: ", "!!python/object/apply:os.system ",
        "!!python/name:os.system", "!!int ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ",
        "!!python/object/new:os.mkdir ", "[", "]", "{", "}", "- ", ": ", "? ", "\n", "\n  ", "\t",
        "|", ">", "'", '"', "#", "%YAML 1.1", "---", "...", "0o7", "1:2:3", "2020-99-99", "~", "x",
        "=", "@", "`", "\x00", "\ufeff", "é", ",", "!", "!<", "&", "*", "1e5", ".inf", "true",
    ]),
    max_size=30,
).map("".join)  # fmt: skip
DOCUMENTS = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=4).map(lambda x: yaml.safe_dump(x, allow_unicode=True)),
    FRAGMENTS,
    st.text(max_size=60),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@pytest.fixture
def folder(tmp_path):
    """A folder in memory where there is one, for thousands of small files."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_any_yaml_is_a_config_or_an_error_of_ours(amount, folder):
    path = folder / "fuzzed.yaml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        with nothing_executed():
            try:
                load_config(str(path), [])
            except UserError as error:
                assert "fuzzed.yaml" in str(error)

    assert fuzz(DOCUMENTS | st.binary(max_size=60), amount, check) >= amount


WORDS = st.one_of(
    st.sampled_from(["SOLVER.BASE_LR", "MODEL.WEIGHTS", "DATASETS.TRAIN", "MODEL", "MODEL.", ".",
                     "SOLVER.STEPS", "MODEL.RESNETS.DEPTH", "SOLVER.BASE_LR=1", "A=", "=", "--x",
                     "MODEL.ISONET.RESIDUAL_SCALE", "VERSION", "_BASE_", "MODEL.__class__",
                     "('a',)", "[1, 2", "{'a': 1}", "__import__('os').system('x')", "1e999",
                     "-" * 500 + "1"]),
    SCALARS.map(str),
)  # fmt: skip


@pytest.mark.parametrize("amount", AMOUNTS)
def test_any_pairs_are_a_config_or_an_error_of_ours(amount):
    def check(pairs: list[str]) -> None:
        with nothing_executed():
            try:
                load_config("", pairs)
            except UserError as error:
                assert str(error)

    assert fuzz(st.lists(WORDS, max_size=6), amount, check) >= amount


# ---------------------------------------------------------------------------------- weights


def seeds() -> list[bytes]:
    """Files of several kinds, good and bad, whose bytes are then changed."""
    hostile = Hostile(Path("executed"))
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
    contents = [{"model": tensors, "meta": {"architecture": {"depth": 18}}}, tensors, [1], 3, None,
                {"model": {1: tensors["bias"]}}, {"model": 3}, {"model": {"a": hostile}}, hostile,
                {"model": tensors, "meta": [1]}, {"model": tensors, "trainer": {}}, {"model": "x"},
                {"model": tensors, "meta": {"architecture": 3, "input": {"pixel_mean": "x"}}},
                {"model": tensors, "matching_heuristics": True, "__author__": "Caffe2"},
                "model", {"model": tensors, "optimizer": complex(1)}]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        files = []
        for content in contents:
            for zipped in (True, False):
                path = Path(name) / "seed.pth"
                torch.save(content, path, _use_new_zipfile_serialization=zipped)
                files.append(path.read_bytes())
        return [*files, *(pickle.dumps(content) for content in contents)]


SEEDS = seeds()


@st.composite
def damaged_files(draw) -> bytes:
    """One of the seeds with some bytes replaced, cut out, or cut off."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@st.composite
def crafted_archives(draw) -> bytes:
    """A zip of torch.save's form around a pickle program of any operations."""
    hostile = pickle.dumps({"model": Hostile(Path("executed"))}, protocol=2)
    operations = [b"\x80\x02", b"cos\nmkdir\n", b"(S'executed'\ntR.", b"}", b"]", b"q\x00", b"s",
                  b"X\x05\x00\x00\x00model", b"X\x07\x00\x00\x00storage", b"h\x00", b"a", b"Q",
                  b".", b"(", b"t", b"R", b"N", b"K\x01", b"u", b"b", b"\x81", b")", b"\x93",
                  b"cbuiltins\neval\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"\x8a\xff",
                  b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n",
                  b"B\xff\xff\xff\x7f", b"I999999999\n"]  # fmt: skip
    program = draw(st.lists(st.sampled_from(operations), max_size=20).map(b"".join))
    with tempfile.SpooledTemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", draw(st.sampled_from([program, hostile])))
            archive.writestr("archive/version", draw(st.sampled_from(["3\n", "", "x", "99999\n"])))
            if draw(st.booleans()):
                archive.writestr("archive/data/0", draw(st.binary(max_size=24)))
        file.seek(0)
        return file.read()


class Heads(torch.nn.Module):
    """A model whose tensors have the names of the seeds."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = (
            torch.nn.Parameter(torch.zeros(2, 3)),
            torch.nn.Parameter(torch.zeros(2)),
        )


EXPECTED = {"architecture": {"depth": 18, "norm": "BN"}, "input": {"pixel_mean": [1.0, 2.0, 3.0]}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("load", ["training", "rehearsal"])
def test_any_file_is_weights_or_an_error_of_ours(load, amount, folder, caplog):
    path = str(folder / "fuzzed.pth")
    caplog.set_level("CRITICAL")

    def check(content: bytes) -> None:
        Path(path).write_bytes(content)
        with torch.device("cpu" if load == "training" else "meta"):
            checkpointer = ISONetCheckpointer(Heads(), expected_meta=EXPECTED)
        with nothing_executed():
            with contextlib.suppress(WeightsError):
                checkpointer.load(path, [])
            with contextlib.suppress(WeightsError):
                read_state_dict(path)

    strategy = st.one_of(damaged_files(), crafted_archives(), st.binary(max_size=40))
    assert fuzz(strategy, amount, check) >= amount


def test_the_watch_sees_code_run(tmp_path):
    with pytest.raises(AssertionError, match="os.mkdir"), nothing_executed():
        pickle.loads(pickle.dumps(Hostile(tmp_path / "made")))
    assert os.path.isdir(tmp_path / "made")
