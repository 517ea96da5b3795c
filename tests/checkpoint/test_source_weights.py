"""The message says what a file is that holds no tensors; no code in it is executed."""

import argparse
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from d2_isonet.checkpoint.reading import WeightsError, read_state_dict

TENSORS = {"a.weight": torch.arange(4000.0), "a.bias": torch.ones(2)}


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_truncated(path: Path, zipped: bool) -> None:
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_half_of_safetensors(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def write_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/RISO18.pt", "x")


WRITERS = {
    r"is empty \(0 bytes\)": lambda path: path.write_bytes(b""),
    "git-lfs pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "HTML page": lambda path: path.write_text("<!DOCTYPE html><html>Virus scan warning</html>"),
    "not a checkpoint of torch.save": lambda path: path.write_bytes(b"\xff\xd8\xff\xe0JFIF"),
    "truncated .its archive": lambda path: write_truncated(path, zipped=True),
    "truncated or damaged": lambda path: write_truncated(path, zipped=False),
    "truncated or damaged .*incomplete": write_half_of_safetensors,
    "archive of other files": write_archive,
    r"Python objects .argparse.Namespace": lambda path: torch.save(
        {"state_dict": TENSORS, "args": argparse.Namespace()}, path
    ),
    "TorchScript": lambda path: torch.jit.save(torch.jit.script(torch.nn.ReLU()), path),
    "holds a list, no state_dict": lambda path: torch.save([1], path),
    "entries that are no tensors: epoch": lambda path: torch.save({"epoch": 3}, path),
    "entries that are no tensors: 1": lambda path: torch.save({1: torch.ones(2)}, path),
}


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("message", WRITERS)
def test_file_is_named_for_what_it_is(message, tmp_path):
    path = tmp_path / "in.pt"
    WRITERS[message](path)
    with pytest.raises(WeightsError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_code_in_a_file_is_not_run(save, tmp_path):
    save({"net": Hostile(tmp_path / "made")}, tmp_path / "in.pt")
    with pytest.raises(WeightsError, match="would run code"):
        read_state_dict(tmp_path / "in.pt")
    assert not (tmp_path / "made").exists()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/in.pt does not exist"):
        read_state_dict(tmp_path / "in.pt")


@pytest.mark.parametrize("key", ["net", "state_dict", "model"])
def test_wrappers_and_prefixes_come_off(key, tmp_path):
    wrapped = {f"_orig_mod.{name}": x for name, x in TENSORS.items()}
    wrapped = {f"module.{name}": x for name, x in wrapped.items()}
    torch.save({key: wrapped, "epoch": 1}, tmp_path / "in.pt")
    assert list(read_state_dict(tmp_path / "in.pt")) == list(TENSORS)
