"""safetensors: the same weights and record as in a .pth, and broken files are recognized."""

import json
import os
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import build_checkpointer, describe, save_backbone
from d2_isonet.checkpoint.conversion import change_format, convert
from d2_isonet.checkpoint.files import find_checkpoint
from d2_isonet.checkpoint.reading import WeightsError, read_state_dict, read_tensors, what_is_wrong
from d2_isonet.commands import convert as command
from d2_isonet.config.loading import load_config
from d2_isonet.engine.predictor import Predictor
from d2_isonet.preflight.files import weights_finding
from d2_isonet.utils.files import SaveError

pytest.importorskip("safetensors", reason="pip install 'd2_isonet[safetensors]'")
SMALL = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", ""]


def config(*opts: str):
    return load_config("configs/quickstart/small_risonet18_dc5.yaml", [*SMALL, *opts])


def write_bytes(path, header: dict, data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def backbone(tmp_path):
    """The same random backbone in both formats: their paths, and its tensors by name."""
    cfg = config()
    tensors = build_model(cfg).backbone.state_dict()
    paths = [tmp_path / "backbone.pth", tmp_path / "backbone.safetensors"]
    for path in paths:
        save_backbone(path, tensors, {**describe(cfg), "num_classes": 7, "accuracy": {"top1": 9.5}})
    return *map(str, paths), tensors


def test_both_formats_hold_the_same(backbone):
    pth, safetensors, tensors = backbone
    ours, theirs = read_tensors(safetensors), read_tensors(pth)
    assert ours["meta"] == theirs["meta"]
    assert ours["matching_heuristics"] is True
    assert set(ours["model"]) == set(tensors)
    assert all(torch.equal(ours["model"][name], x) for name, x in tensors.items())


def test_it_can_be_read_by_the_library_alone(backbone):
    from safetensors.torch import load_file

    _, safetensors, tensors = backbone
    found = load_file(safetensors)
    assert all(torch.equal(found[name], x) for name, x in tensors.items())


def test_a_detector_starts_from_it(backbone):
    cfg = config("MODEL.WEIGHTS", backbone[1])
    model = build_model(cfg)
    build_checkpointer(cfg, model).load(backbone[1], [])
    found = model.backbone.state_dict()
    assert all(torch.equal(found[name], x) for name, x in backbone[2].items())


def test_the_preflight_reads_its_names_and_shapes(backbone):
    cfg = config("MODEL.WEIGHTS", backbone[1])
    args = SimpleNamespace(eval_only=False, resume=False, trust_pickle=False)
    with torch.device("meta"):
        model = build_model(config("MODEL.DEVICE", "meta"))
    finding = weights_finding(cfg, args, model)
    assert finding.severity == "fact" and "fits the network" in finding.what


def test_weights_of_another_network_are_refused(backbone):
    cfg = config("MODEL.ISONET.ACTIVATION", "ReLU")
    with pytest.raises(WeightsError, match="architecture activation: 'SReLU' in the file"):
        build_checkpointer(cfg, build_model(cfg)).load(backbone[1], [])


def test_a_predictor_takes_a_whole_detector_in_it(tmp_path):
    cfg = config("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "OUTPUT_DIR", str(tmp_path))
    build_checkpointer(cfg, build_model(cfg)).save("detector")
    change_format(str(tmp_path / "detector.pth"), str(tmp_path / "detector.safetensors"))
    found = []
    for name in ("detector.pth", "detector.safetensors"):
        cfg.MODEL.WEIGHTS = str(tmp_path / name)
        found.append(Predictor(cfg)(np.full((60, 80, 3), 128, np.uint8))["instances"])
    assert len(found[0]) > 0
    assert torch.equal(found[0].scores, found[1].scores)


def test_a_converter_writes_it(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "in.pth")
    meta, _ = convert(str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors"))
    assert read_tensors(str(tmp_path / "out.safetensors"))["meta"]["num_classes"] == 3
    assert meta["architecture"]["norm"] == "BN"


def test_weights_of_others_are_read_from_it(tmp_path):
    write_bytes(
        tmp_path / "in.safetensors",
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
        struct.pack("<2f", 1.5, -2.0),
    )
    found = read_state_dict(tmp_path / "in.safetensors")
    assert found["a"].tolist() == [1.5, -2.0]


# ----------------------------------------------------------------- a training


def test_no_training_goes_on_from_it(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_final.safetensors")
    with pytest.raises(ValueError, match="model_final.safetensors, which has weights but no train"):
        find_checkpoint(tmp_path)


# ----------------------------------------------------------------- broken files


def truncated(path, keep: float) -> None:
    save_backbone(path, {"stem.conv1.weight": torch.ones(4, 3, 7, 7)}, {})
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def overlapping(path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    write_bytes(path, {"a": entry, "b": entry}, bytes(4))


BROKEN = {
    "cut_header": lambda path: truncated(path, 0.05),
    "cut_tensor": lambda path: truncated(path, 0.9),
    "garbage": lambda path: path.write_bytes(bytes(range(256))),
    "huge_header": lambda path: path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}"),
    "overlap": overlapping,
    "no_json": lambda path: write_bytes(path, {"__metadata__": {"d2_isonet": "{"}}),
    "no_record": lambda path: write_bytes(path, {"__metadata__": {"d2_isonet": "[1]"}}),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(kind, tmp_path):
    path = tmp_path / "x.safetensors"
    BROKEN[kind](path)
    with pytest.raises(WeightsError, match="x.safetensors is truncated or damaged .*again"):
        read_tensors(str(path))
    cfg = config()
    with pytest.raises(WeightsError, match="x.safetensors is truncated or damaged"):
        build_checkpointer(cfg, build_model(cfg)).load(str(path), [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>Sign in</html>", "HTML page"),
    ],
)
def test_what_is_no_such_file_is_named_as_ever(content, message, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    assert message.replace("\\", "") in what_is_wrong(str(tmp_path / "x.safetensors"))


def test_its_format_is_known_by_its_bytes_too(backbone, tmp_path):
    os.rename(backbone[1], tmp_path / "renamed.pth")
    assert set(read_tensors(str(tmp_path / "renamed.pth"))["model"]) == set(backbone[2])


def test_without_the_package_both_directions_say_what_to_install(backbone, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(WeightsError, match="not installed: pip install safetensors"):
        read_tensors(backbone[1])
    with pytest.raises(
        ValueError, match="needs safetensors, which is not .*; pip install safetensors"
    ):
        save_backbone(tmp_path / "new.safetensors", {}, {})
    assert not (tmp_path / "new.safetensors").exists()


def test_a_full_disk_leaves_the_old_file(backbone, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    before = read_tensors(backbone[1])["model"]["stem.conv1.weight"]
    with pytest.raises(SaveError, match="was not written: it needs"):
        save_backbone(backbone[1], {"stem.conv1.weight": torch.ones(4, 3, 7, 7)}, {})
    assert torch.equal(read_tensors(backbone[1])["model"]["stem.conv1.weight"], before)


# ----------------------------------------------------------------- the tool


def test_the_tool_goes_there_and_back(backbone, tmp_path, capsys):
    change_format(backbone[0], str(tmp_path / "there.safetensors"))
    command.main([str(tmp_path / "there.safetensors"), str(tmp_path / "back.pth")])
    assert (
        f"{len(backbone[2])} tensors written to {tmp_path / 'back.pth'}" in capsys.readouterr().out
    )
    back, first = read_tensors(str(tmp_path / "back.pth")), read_tensors(backbone[0])
    models = back.pop("model"), first.pop("model")
    assert back == first
    assert all(torch.equal(models[0][name], x) for name, x in models[1].items())


def test_a_checkpoint_loses_its_training_and_is_told(tmp_path):
    source, target = str(tmp_path / "model_final.pth"), str(tmp_path / "model_final.safetensors")
    torch.save({"model": {"a": torch.ones(1)}, "trainer": {"iteration": 3}, "meta": {}}, source)
    assert change_format(source, target) == (1, ["trainer"])
    assert set(read_tensors(target)) == {"model", "meta"}


def test_a_whole_line_of_memory_is_written_for_a_part_of_it(tmp_path):
    tensor = torch.arange(6.0).view(2, 3)
    torch.save({"model": {"a": tensor.T, "b": tensor[0]}}, tmp_path / "in.pth")
    change_format(str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors"))
    found = read_tensors(str(tmp_path / "out.safetensors"))["model"]
    assert found["a"].tolist() == tensor.T.tolist() and found["b"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a.pth", "b.pth", "are of one format; end one of them in .safetensors"),
        ("a.pth", "b.onnx", "b.onnx: its name must end in one of .pth, .pt, .safetensors"),
        ("none.pth", "b.safetensors", "there is no file /.*none.pth; name the weights"),
        ("list.pth", "b.safetensors", "holds a list, no state_dict"),
        ("words.pth", "b.safetensors", "entries that are no tensors: epoch"),
    ],
)
def test_what_it_cannot_convert_is_named(source, target, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save([1], "list.pth")
    torch.save({"epoch": 3}, "words.pth")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        change_format(source, target)
