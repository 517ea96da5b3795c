"""convert reads the forms in which people have a ResNet, or says what is missing."""

import argparse
import shlex

import pytest
import torch
import torchvision

from d2_isonet.checkpoint.checkpointer import save_backbone
from d2_isonet.checkpoint.reading import WeightsError, read_tensors
from d2_isonet.commands import convert


def network(seed: int) -> dict:
    torch.manual_seed(seed)
    return torchvision.models.resnet18(num_classes=7).state_dict()


ONE, OTHER = network(1), network(2)
BACKBONE = {name: x for name, x in ONE.items() if not name.startswith("fc.")}
CLASSIFIER = {name: ONE[name] for name in ("fc.weight", "fc.bias")}
MLP = {"fc.0.weight": torch.ones(9, 512), "fc.2.weight": torch.ones(4, 9)}
PARTS = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]


def under(prefix: str, state: dict) -> dict:
    return {prefix + name: x for name, x in state.items()}


def in_sequence(state: dict) -> dict:
    """As nn.Sequential(*resnet.children()) names them."""
    pairs = [(name.partition("."), x) for name, x in state.items()]
    return {f"{PARTS.index(part)}.{rest}": x for (part, _, rest), x in pairs}


WHOLE = {  # forms with a classifier
    "bare": ONE,
    "DataParallel": {"epoch": 3, "arch": "resnet18", "state_dict": under("module.", ONE)},
    "compiled in DDP": {"model": under("module._orig_mod.", ONE)},
    "DDP compiled": {"model": under("_orig_mod.module.", ONE)},
    "lightning": {"epoch": 3, "state_dict": under("model.", ONE), "loops": {"a": 1}},
    "net.": {"state_dict": under("net.", ONE)},
    "any prefix": under("a.b.c.", ONE),
    "model_state_dict": {"model_state_dict": ONE, "optimizer_state_dict": {"state": {0: {}}}},
    "deepspeed": {"module": ONE, "optimizer": None, "ds_version": "0.9", "dp_world_size": 8},
    "nested": {"checkpoint": {"model": {"state_dict": under("module.", ONE)}}},
    "mmpretrain": {"state_dict": {**under("backbone.", BACKBONE),
                                  **under("head.", CLASSIFIER)}},
    "linear beside": {**under("encoder.", BACKBONE), "linear.weight": CLASSIFIER["fc.weight"],
                      "linear.bias": CLASSIFIER["fc.bias"]},
    "in a sequence": {"state_dict": in_sequence(ONE)},
    "with a queue": {**ONE, "queue": torch.zeros(4, 4), "queue_ptr": torch.ones(1)},
    "double": {name: x.double() if x.is_floating_point() else x for name, x in ONE.items()},
    "twice the same": {"state_dict": ONE, "best": dict(ONE)},
    "timm's average": {"state_dict": OTHER, "state_dict_ema": ONE},
    "torchvision's average": {"model": OTHER, "model_ema": {**under("module.", ONE),
                                                           "n_averaged": torch.ones(1)}},
    "SWA": {"model": OTHER, "swa_model": under("module.", ONE)},
    "lightning's average": {"state_dict": under("model.", ONE),
                            "current_model_state": under("model.", OTHER)},
    "average beside": {"state_dict": {**under("model.", OTHER), **under("ema_model.module.", ONE)}},
    "mean teacher": {"student": OTHER, "teacher": ONE},
}  # fmt: skip
BARE = {  # forms without
    "no fc": BACKBONE,
    "mmdet": {"state_dict": {**under("backbone.", BACKBONE), "neck.a.weight": torch.ones(1)}},
    "in a sequence, no fc": under("backbone.", in_sequence(BACKBONE)),
    "MoCo": {"state_dict": {**under("module.encoder_q.", ONE), **under("module.encoder_k.", OTHER),
                            "module.queue": torch.zeros(4, 4)}},
    "MoCo v2": {"state_dict": {**under("module.encoder_q.", {**BACKBONE, **MLP}),
                               **under("module.encoder_k.", {**OTHER, **MLP})}},
    "MoCo v3": {"state_dict": {**under("module.base_encoder.", BACKBONE),
                               **under("module.momentum_encoder.", OTHER)}},
    "BYOL": {**under("online_network.encoder.", BACKBONE),
             **under("target_network.encoder.", OTHER), "predictor.0.weight": torch.ones(3)},
    "SimSiam": {"state_dict": {**under("module.encoder.", {**BACKBONE, **MLP}),
                               "module.predictor.0.weight": torch.ones(3)}},
    "SwAV": {**under("module.", BACKBONE), "module.projection_head.0.weight": torch.ones(3, 3),
             "module.prototypes.weight": torch.ones(3, 3)},
    "DINO": {"student": under("module.backbone.", OTHER), "epoch": 1,
             "teacher": {**under("backbone.", BACKBONE), "head.mlp.0.weight": torch.ones(3, 3)}},
}  # fmt: skip


def converted(tmp_path, content, *words: str) -> dict:
    torch.save(content, tmp_path / "in.pth")
    arguments = [str(tmp_path / "in.pth"), str(tmp_path / "out.pth"), *words]
    assert convert.main(arguments) == 0
    return read_tensors(str(tmp_path / "out.pth"))


@pytest.mark.parametrize("form", [*WHOLE, *BARE])
def test_a_usual_form_is_read(form, tmp_path, capsys):
    content = converted(tmp_path, {**WHOLE, **BARE}[form])
    said = capsys.readouterr().out
    tensors, expected = content["model"], converted(tmp_path, ONE)["model"]
    assert torch.equal(tensors["res5.1.conv2.weight"], ONE["layer4.1.conv2.weight"])
    assert all(x.dtype != torch.float64 for x in tensors.values())
    left_out = {"linear.weight", "linear.bias"} if form in BARE else set()
    assert tensors.keys() == expected.keys() - left_out
    assert all(torch.equal(x, expected[name]) for name, x in tensors.items())
    assert ("num_classes" in content["meta"]) == (form in WHOLE) == ("--eval-only" in said)
    has_two = any(x in form for x in ("twice", "average", "SWA", "teach", "MoCo", "BYOL", "DINO"))
    assert (" is taken, not " in said) == has_two, said


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read(dtype, tmp_path):
    half = {name: x.to(dtype) if x.is_floating_point() else x for name, x in ONE.items()}
    tensors = converted(tmp_path, half)["model"]
    assert torch.equal(tensors["stem.conv1.weight"], half["conv1.weight"].float())


def test_of_two_networks_one_is_asked_for(tmp_path, capsys):
    content = {"generator": under("net.", ONE), "critic": OTHER}
    with pytest.raises(SystemExit):
        converted(tmp_path, content)
    message = capsys.readouterr().err
    assert "holds 2 networks: generator.net, critic; add --network generator.net, or" in message
    words = message.partition("; add ")[2].partition(",")[0].split()
    assert torch.equal(converted(tmp_path, content, *words)["model"]["linear.bias"], ONE["fc.bias"])
    taken = converted(tmp_path, content, "--network", "critic")
    assert torch.equal(taken["model"]["linear.bias"], OTHER["fc.bias"])
    assert taken["meta"]["source"] == "in.pth critic, names of torchvision or timm"
    with pytest.raises(SystemExit):
        converted(tmp_path, content, "--network", "other")
    assert "has no such network; give one of generator.net, critic" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        converted(tmp_path, {**ONE, **under("b.", OTHER)})
    assert "holds 2 networks: ., b; add --network ., or" in capsys.readouterr().err
    asked = converted(tmp_path, {**ONE, **under("b.", OTHER)}, "--network", ".")
    assert torch.equal(asked["model"]["linear.bias"], ONE["fc.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.se.fc.weight": torch.ones(1)}, "1 tensors without a place"),
        ({"attention.weight": torch.ones(1)}, "1 tensors without a place"),
        ({"layer4.1.conv2.weight": torch.ones(1)}, "no complete network"),
        ({"layer4.1.conv2.weight": torch.full((512, 512, 3, 3), torch.nan)}, "NaN or infinite"),
        ({"fc.weight": None}, "has no classifier"),
    ],
)
def test_another_network_is_refused(change, message, tmp_path, capsys):
    content = {name: x for name, x in {**ONE, **change}.items() if x is not None}
    with pytest.raises(SystemExit):
        converted(tmp_path, {"state_dict": under("model.", content)})
    assert message in capsys.readouterr().err


OBJECTS = {
    "whole model": lambda: torchvision.models.resnet18(num_classes=7),
    "with its arguments": lambda: {"state_dict": ONE, "args": argparse.Namespace(lr=1)},
    "model in a dict": lambda: {"model": torchvision.models.resnet18(num_classes=7), "epoch": 1},
    "numpy": lambda: {name: x.numpy() for name, x in ONE.items()},
    "own names": lambda: {"model": {"stem.conv1.weight": torch.ones(3)}, "a": argparse.Namespace()},
}


@pytest.mark.parametrize("form", OBJECTS)
def test_the_remedy_for_objects_is_typed_and_the_file_is_read(form, tmp_path, capsys):
    torch.save(OBJECTS[form](), tmp_path / "my file.pth")
    with pytest.raises(WeightsError, match="which (would run code|are not read)") as error:
        read_tensors(str(tmp_path / "my file.pth"))
    command = shlex.split(error.value.remedy.rpartition(": ")[2])
    assert command[:2] == ["d2-isonet", "convert"] and command[4:] == ["--trust-pickle"]
    assert convert.main(command[2:]) == 0
    assert "stem.conv1.weight" in read_tensors(command[3])["model"]


def test_weights_of_this_project_are_not_renamed(tmp_path, capsys):
    save_backbone(tmp_path / "ours.pth", {"stem.conv1.weight": torch.ones(2)}, {})
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path / "ours.pth"), str(tmp_path / "out.pth")])
    assert "already has this project's names" in capsys.readouterr().err
