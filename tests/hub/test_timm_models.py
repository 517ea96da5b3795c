"""The networks in timm: what timm's own tests ask of a model, and where its scripts reach in."""

import importlib
import sys

import numpy as np
import pytest
import torch
from detectron2.modeling import build_backbone
from PIL import Image

import d2_isonet
from d2_isonet.checkpoint.checkpointer import describe, save_backbone
from d2_isonet.checkpoint.conversion import change_format
from d2_isonet.checkpoint.reading import WeightsError

timm = pytest.importorskip("timm", reason="pip install 'd2_isonet[timm]'")

from timm.data import create_transform, resolve_data_config  # noqa: E402
from timm.models import group_parameters  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402

from d2_isonet.hub import timm_models  # noqa: E402

IMAGES = torch.randn(2, 3, 64, 64)
NAMES = ["risonet18", "isonet18", "fixup18", "decoupled18_tanh"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """backbone.pth of a risonet18 with random weights, whose scales are not zero."""
    cfg = d2_isonet.get_config("imagenet/risonet18")
    network = build_backbone(cfg)
    for block in network.res4:
        block.residual_scale.data += 0.5
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    save_backbone(path, network.state_dict(), {**describe(cfg), "num_classes": 1000})
    return str(path)


# ----------------------------------------------------------------- timm's own checks


@pytest.mark.parametrize("name", NAMES)
def test_forward_backward_and_the_ends_that_its_description_names(name):
    model = timm.create_model(name, num_classes=42)
    model.train()
    logits = model(IMAGES)
    logits.mean().backward()
    trained = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert logits.shape == (2, 42) and torch.isfinite(logits).all() and not trained
    cfg, state = model.default_cfg, model.state_dict()
    assert cfg["num_classes"] == model.num_classes == 42
    assert state[cfg["first_conv"] + ".weight"].shape[1] == cfg["input_size"][0] == 3
    assert state[cfg["classifier"] + ".weight"].shape == (42, model.num_features)
    assert model.get_classifier() is model.get_submodule(cfg["classifier"])


@torch.no_grad()
def test_the_parts_of_forward_and_a_head_taken_away():
    model = timm.create_model("risonet18").eval()
    features = model.forward_features(IMAGES)
    assert features.shape == (2, model.num_features, 2, 2)
    assert torch.equal(model.forward_head(features), model(IMAGES))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    model.reset_classifier(0)
    assert model(IMAGES).shape == (2, model.num_features)
    model.reset_classifier(5, "avg")
    assert model(IMAGES).shape == (2, 5)
    assert timm.create_model("risonet18", num_classes=0).eval()(IMAGES).shape == (2, 512)


@pytest.mark.parametrize("out_indices", [None, (0, 2), (-1,), 2])
@torch.no_grad()
def test_feature_maps_are_as_their_info_says(out_indices):
    model = timm.create_model("risonet18", features_only=True, out_indices=out_indices).eval()
    maps, info = model(IMAGES), model.feature_info
    assert [x.shape[1] for x in maps] == info.channels()
    assert [64 // x.shape[2] for x in maps] == info.reduction()
    expected = {None: [4, 8, 16, 32], (0, 2): [4, 16], (-1,): [32], 2: [16, 32]}[out_indices]
    assert info.reduction() == expected
    assert "classifier" not in model.default_cfg


@torch.no_grad()
def test_intermediates_are_those_maps():
    model = timm.create_model("risonet18").eval()
    last, maps = model.forward_intermediates(IMAGES)
    assert torch.equal(last, model.forward_features(IMAGES)) and torch.equal(last, maps[-1])
    assert [x.shape[1] for x in maps] == [x["num_chs"] for x in model.feature_info]
    (third,) = model.forward_intermediates(IMAGES, indices=[2], intermediates_only=True)
    (fourth,) = model.forward_intermediates(IMAGES, indices=1, intermediates_only=True)
    assert torch.equal(third, maps[2]) and torch.equal(fourth, maps[3])
    with pytest.raises(ValueError, match="output_fmt is 'NLC'"):
        model.forward_intermediates(IMAGES, output_fmt="NLC")


def test_parameters_are_grouped_by_depth():
    model = timm.create_model("risonet18")
    for coarse, layers in ((True, 5), (False, 9)):
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        grouped = {name for names in groups.values() for name in names}
        assert grouped == dict(model.named_parameters()).keys()
        assert len(groups) == layers + 1  # the head
    optimizer = create_optimizer_v2(model, opt="sgd", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    shift = next(model.backbone.res2[0].conv1.activation.parameters())
    group = next(g for g in optimizer.param_groups if any(p is shift for p in g["params"]))
    assert group["weight_decay"] == 0.0 and group["lr_scale"] < 1


def test_output_stride_dropout_and_checkpointing_are_passed_on():
    model = timm.create_model("risonet18", output_stride=16, drop_rate=0.25, num_classes=2)
    assert model.feature_info[-1]["reduction"] == 16
    assert model.dropout.p == 0.25
    assert timm.create_model("risonet18").dropout.p == 0.4  # the recipe's
    model.set_grad_checkpointing(True)
    model(IMAGES).sum().backward()
    assert model.backbone.res5[1].conv2.weight.grad is not None


# ----------------------------------------------------------------- its registry and its data


@pytest.mark.filterwarnings("ignore:Overwriting .* in registry")
def test_the_networks_are_listed_and_timms_own_stay():
    names = timm.list_models("risonet*")
    assert {f"risonet{depth}" for depth in (18, 34, 50, 101)} <= set(names)
    assert timm.list_models(module="timm_models") and timm.is_model("modified18_tanh_no_bn")
    assert "resnet50" not in timm_models.timm_names()
    assert type(timm.create_model("resnet18")).__module__.startswith("timm.")
    importlib.reload(timm_models)
    assert timm.list_models("risonet*") == names


@pytest.mark.parametrize("name", ["risonet18", "decoupled18_tanh"])
def test_timms_transform_is_that_of_the_evaluation(name):
    model = timm.create_model(name, num_classes=2)
    transform = create_transform(**resolve_data_config({}, model=model))
    pixels = np.random.RandomState(0).randint(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found, expected = transform(image), model.pixels.transform()(image)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


# ----------------------------------------------------------------- weights


def test_a_backbone_of_ours_is_a_checkpoint_of_timms(file, tmp_path):
    safetensors = str(tmp_path / "backbone.safetensors")
    change_format(file, safetensors)
    tensors = torch.load(file, weights_only=True)["model"]
    for path in (file, safetensors):
        for options in ({"num_classes": 3}, {"features_only": True}):
            model = timm.create_model("risonet18", checkpoint_path=path, **options)
            found = model.backbone.state_dict()
            assert all(torch.equal(found[name], x) for name, x in tensors.items())


def test_pretrained_takes_the_file_that_it_is_told(file):
    model = timm.create_model(
        "risonet18", pretrained=True, pretrained_cfg_overlay={"file": file}, num_classes=7
    )
    assert model.backbone.res4[0].residual_scale.item() == 0.5 and model.num_classes == 7


def test_what_it_saves_it_reads(tmp_path):
    model = timm.create_model("risonet18", num_classes=3)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "checkpoint.pth.tar")
    path = str(tmp_path / "checkpoint.pth.tar")
    again = timm.create_model("risonet18", num_classes=3, checkpoint_path=path)
    assert torch.equal(again.linear.weight, model.linear.weight)


# ----------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": True}, "no weights of risonet18 are released.*checkpoint_path=FILE"),
        ({"in_chans": 1}, "in_chans is 1; risonet18 sees 3 channels"),
        ({"global_pool": "max"}, "global_pool is 'max'; these networks have 'avg' alone"),
        ({"output_stride": 8}, "output_stride is 8; for risonet18 it must be 32 or 16"),
        (
            {"features_only": True, "out_indices": (4,)},
            r"out_indices is \[4\]; the maps are 0 to 3",
        ),
    ],
)
def test_an_option_it_has_not_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("risonet18", **options)


def test_weights_of_another_network_are_refused(file):
    overlay = {"file": file}
    with pytest.raises(WeightsError, match="residual_scale: True in the file, False in the config"):
        timm.create_model("isonet18", pretrained=True, pretrained_cfg_overlay=overlay)
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model("risonet34", checkpoint_path=file)


def test_bgr_weights_are_refused(tmp_path):
    cfg = d2_isonet.get_config("imagenet/risonet18", ["INPUT.FORMAT", "BGR"])
    path = str(tmp_path / "bgr.pth")
    save_backbone(path, build_backbone(cfg).state_dict(), describe(cfg))
    with pytest.raises(ValueError, match="see BGR images, timm reads RGB ones"):
        timm.create_model("risonet18", pretrained=True, pretrained_cfg_overlay={"file": path})


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(ImportError, match="needs timm: pip install timm"):
        importlib.reload(timm_models)
