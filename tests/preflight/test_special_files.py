"""FIFOs, sockets, devices, folders, broken links and huge files in the place of a file."""

import argparse
import os
import socket
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
from d2_isonet.checkpoint.files import damage_of, find_checkpoint, set_aside_earlier_run
from d2_isonet.checkpoint.reading import read_state_dict
from d2_isonet.config.loading import load_config
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.data.shards.index import load_shard_index
from d2_isonet.data.shards.source import read_all
from d2_isonet.demo.videos import FrameReader
from d2_isonet.engine.hooks.best_checkpoint import _read as read_best
from d2_isonet.engine.run_record import read_run_records
from d2_isonet.evaluation.classification import read_predictions
from d2_isonet.export.record import read_class_names
from d2_isonet.preflight.files import output_findings
from d2_isonet.reporting.runs.detection import read_detections
from d2_isonet.reporting.runs.run import read_run
from d2_isonet.utils.messages import UserError

MOST_SECONDS = 5


@pytest.fixture(autouse=True)
def at_once():
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < MOST_SECONDS


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)  # a socket's whole path has at most 108 characters


def _huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 42)  # it takes no room on the disk


KINDS = {
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": os.mkdir,
    "more than": _huge,
    "no such": lambda path: path.symlink_to("nowhere"),
}


def load(path: str):
    return ISONetCheckpointer(torch.nn.Linear(1, 1)).load(path, [])


REFUSING = {
    "a.json": read_annotations,
    "a.yaml": lambda path: load_config(path, []),
    "b.yaml": lambda path: load_config(path, []),
    "a.pth": read_state_dict,
    "b.pth": load,
    "a.pkl": load,
    "a.safetensors": read_state_dict,
    "b.safetensors": load,
    "results.json": lambda path: read_detections(Path(path)),
    "index.json": lambda path: load_shard_index(os.path.dirname(path)),
    "train-00000.tar": read_all,
    "predictions.csv": lambda path: read_predictions(Path(path)),
    "names.txt": read_class_names,
    "names.json": read_class_names,
    "a.mp4": FrameReader,
}


@pytest.mark.parametrize("behind_link", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSING)
def test_what_is_no_file_is_refused_at_once(name, kind, behind_link, tmp_path, monkeypatch):
    if name == "a.mp4" and kind == "more than":
        pytest.skip("a video may be as large as the disk")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("target" if behind_link else name)
    KINDS[kind](path)
    if behind_link:
        (tmp_path / name).symlink_to("target")
    with pytest.raises((UserError, FileNotFoundError)) as raised:
        REFUSING[name](str(tmp_path / name))
    text = str(raised.value)
    assert name in text or name == "a.mp4"
    assert kind in text or kind == "no such" or (kind == "a folder" and "is a folder" in text)


TOLERANT = {
    "last_checkpoint": find_checkpoint,
    "model_0000001.pth": find_checkpoint,
    "model_0000002.pth": set_aside_earlier_run,
    "runs.json": lambda folder: read_run_records(folder / "runs.json"),
    "model_best.json": lambda folder: read_best(folder / "model_best.json"),
    "metrics.json": lambda folder: read_run(folder, "run"),
    "config.yaml": lambda folder: read_run(folder, "run"),
    "log.txt": lambda folder: read_run(folder, "run"),
    "inference/v/per_class.json": lambda folder: read_run(folder, "run"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TOLERANT)
def test_a_run_with_such_a_file_is_read_at_once_or_refused(name, kind, tmp_path, monkeypatch):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(path.parent)
    (tmp_path / "inference").mkdir(exist_ok=True)
    KINDS[kind](path)
    try:
        TOLERANT[name](tmp_path)
    except UserError as error:
        assert name in str(error)


@pytest.mark.parametrize("name", ["log.txt", "metrics.json", "config.yaml"])
def test_a_run_does_not_wait_for_the_reader_of_its_own_file(name, tmp_path):
    os.mkfifo(tmp_path / name)
    cfg = load_config("", ["OUTPUT_DIR", str(tmp_path)])
    args = argparse.Namespace(resume=False, eval_only=True)
    (found,) = output_findings(cfg, args, None)
    assert found.severity == "error" and f"{name} cannot be written: it is a FIFO" in found.what


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 26))


def test_a_zip_bomb_is_unpacked_nowhere(tmp_path):
    path = tmp_path / "model_0000001.pth"
    _bomb(path)
    assert "a zip bomb" in damage_of(path)
    assert set_aside_earlier_run(tmp_path) is None
    for read in (read_state_dict, load, lambda _: find_checkpoint(tmp_path)):
        with pytest.raises(UserError, match="zip bomb"):
            read(str(path))


def _safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", length or len(header)) + header


NESTED = '{"__metadata__":{"d2_isonet":"' + "[" * 50_000 + '"}}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_safetensors(b"{}", 1 << 60), "its header would have"),
        (_safetensors(b"{}", 90_000_000), "its header would have"),
        (_safetensors(NESTED.encode()), "nested too deeply"),
        (_safetensors(b'{"__metadata__":{"d2_isonet":{"a":1}}}'), "damaged"),
    ],
)
def test_a_hostile_header_of_safetensors_is_refused(content, reason, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_state_dict(path)


def _save(path: Path, **values) -> None:
    state = torch.nn.Linear(1, 1).state_dict()
    torch.save({"model": state, "trainer": {"iteration": 3}, **values}, path)


def _aliases() -> list:
    value: list = ["x"]
    for _ in range(30):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"meta": {"architecture": {"norm": _aliases()}}}, "stands for more than"),
        ({"meta": {"input": {"pixel_mean": [10**400]}}}, "does not fit 64 bits"),
        ({"meta": {"architecture": [1]}}, "architecture in its meta record is a list"),
        ({"meta": {"input": torch.ones(3)}}, "input in its meta record is a Tensor"),
        ({"model": {"weight": torch.ones(1).expand(1 << 32)}}, "has tensors of 17.2 GB"),
    ],
)
def test_values_of_a_checkpoint_that_cannot_be_are_refused(values, reason, tmp_path):
    _save(tmp_path / "a.pth", **values)
    with pytest.raises(UserError, match=reason):
        load(str(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "iteration", ["5", "x", -1, float("nan"), 10**12, 1.5, True, None, [1], torch.tensor(3)]
)
def test_an_impossible_iteration_is_no_training(iteration, tmp_path):
    _save(tmp_path / "model_0000001.pth", trainer={"iteration": iteration})
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(UserError, match="no training to resume"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "tag", [b"../other.pth", b"/etc/passwd", b"a\0b", bytes(range(256)), b".."]
)
def test_a_tag_that_leads_outside_is_passed_over(tag, tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    _save(tmp_path / "other.pth")
    _save(folder / "model_0000001.pth")
    (folder / "last_checkpoint").write_bytes(tag)
    assert find_checkpoint(folder) == folder / "model_0000001.pth"
    assert "last_checkpoint" in caplog.text and "\0" not in caplog.text


def test_a_file_that_only_lists_videos_is_not_opened(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("#EXTM3U\n#EXTINF:10,\n/dev/zero\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError, match="a list of other files"):
        FrameReader(str(path))
