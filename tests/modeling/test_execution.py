"""Memory format, recomputation and compilation change how a network runs, not what it computes."""

import copy
import shutil
from argparse import Namespace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_model
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.engine import lazy_training
from d2_isonet.engine import main as run_setup
from d2_isonet.isometry.regularizer import OrthogonalRegularizer
from d2_isonet.modeling.execution import set_execution
from d2_isonet.modeling.stages import default_convolutions

KEYS = ["CHANNELS_LAST", "CHECKPOINTING", "COMPILE"]
NEEDS_COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")


def backbone(name="imagenet/risonet50", *opts) -> nn.Module:
    torch.manual_seed(0)
    narrow = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8",
              "MODEL.RESNETS.RES2_OUT_CHANNELS", "32", "MODEL.RESNETS.WIDTH_PER_GROUP", "8",
              "MODEL.ISONET.RESIDUAL_SCALE", "0.5"]  # fmt: skip
    return build_backbone(load_config(f"configs/{name}.yaml", [*narrow, *opts]))


def gradients(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad()
    features = module(x)
    sum(feature.square().mean() for feature in features.values()).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def assert_same(ours: dict, expected: dict, rtol=1e-9) -> None:
    assert list(ours) == list(expected)
    for name in expected:
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(
            ours[name], expected[name], rtol=rtol, atol=max(rtol * largest, 1e-12)
        )


@pytest.mark.parametrize("key", KEYS[:2])
@pytest.mark.parametrize("name", ["imagenet/risonet50", "imagenet/isonet50", "risonet50_fpn"])
def test_features_and_gradients_stay(name, key):
    x = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    opts = ["MODEL.BACKBONE.FREEZE_AT", "0"]
    if "isonet50" == name[-8:]:
        opts += ["MODEL.ISONET.RESIDUAL_SCALE", "None"]
    expected = backbone(name, *opts).double()
    ours = backbone(name, *opts, f"MODEL.BACKBONE.{key}", "True").double()
    assert list(ours.state_dict()) == list(expected.state_dict())
    for feature, value in expected(x).items():
        torch.testing.assert_close(ours(x)[feature], value, rtol=1e-12, atol=1e-12)
    assert_same(gradients(ours, x), gradients(expected, x))


def test_channels_last_goes_through_the_whole_network():
    ours = backbone("imagenet/risonet50", "MODEL.BACKBONE.CHANNELS_LAST", "True")
    seen = {}
    for name, module in ours.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, __, y, name=name: seen.__setitem__(
                    name, y.is_contiguous(memory_format=torch.channels_last)
                )
            )
    ours(torch.randn(1, 3, 64, 64))
    assert seen and all(seen.values())


def test_the_penalty_is_that_of_any_memory_format(tmp_path):
    plain = backbone()
    other = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    values = []
    for module in (plain, other):
        hook = OrthogonalRegularizer(1.0, convs=default_convolutions(module))
        convs = [conv for _, conv in hook._given]
        value, gradient = hook._value_and_gradient(convs[3:4])
        values.append((value, gradient))
    torch.testing.assert_close(values[0], values[1])


def kept_bytes(module: nn.Module, x: torch.Tensor) -> int:
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(x)
    own = {p.data_ptr() for p in module.parameters()}
    return sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in own)


def test_checkpointing_keeps_the_inputs_of_blocks_alone():
    x = torch.randn(2, 3, 96, 96)
    ours = backbone("imagenet/risonet50", "MODEL.BACKBONE.CHECKPOINTING", "True")
    assert kept_bytes(ours, x) < 0.6 * kept_bytes(backbone(), x)


def test_a_checkpointed_network_can_be_copied_and_the_copy_is_its_own():
    ours = backbone("imagenet/risonet50", "MODEL.BACKBONE.CHECKPOINTING", "True")
    other = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(other(x)["res5"], ours(x)["res5"])


def test_the_res5_of_c4_is_run_alike():
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.BACKBONE.CHANNELS_LAST", "True"]
    model = build_model(load_config("configs/risonet18_c4.yaml", opts))
    weight = model.roi_heads.res5[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.NORM", "BN"], "CHECKPOINTING is True with MODEL.RESNETS.NORM 'BN'"),
        (["MODEL.ISONET.CONV", "Decoupled"], "CHECKPOINTING is True with .*RADIUS_SCALE 'batch'"),
    ],
)
def test_recomputing_what_counts_batches_is_refused(opts, message):
    with pytest.raises(ValueError, match=message):
        backbone("imagenet/risonet50", *opts, "MODEL.BACKBONE.CHECKPOINTING", "True")


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="COMPILE is True, but .* C\\+\\+ compiler"):
        set_execution(nn.Conv2d(1, 1, 1), compile=True)


@pytest.mark.slow
@NEEDS_COMPILER
def test_a_compiled_network_computes_the_same():
    x = torch.randn(2, 3, 70, 64, dtype=torch.float64)
    opts = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"]
    expected = backbone("imagenet/risonet18", *opts).double()
    ours = backbone("imagenet/risonet18", *opts, "MODEL.BACKBONE.COMPILE", "True").double()
    assert_same(gradients(ours, x), gradients(expected, x))
    torch.testing.assert_close(ours(x)["res5"], expected(x)["res5"])


def counts_denormals() -> bool:
    return torch.full((1,), 1e-40).mul(1).item() > 0


@pytest.mark.parametrize(
    ("module", "next_step", "set_up"),
    [
        (
            run_setup,
            "check_run",
            lambda args: run_setup.finish_setup(CfgNode({"OUTPUT_DIR": ""}), args),
        ),
        (lazy_training, "read_lazy_config", lazy_training.load_lazy_config),
    ],
)
def test_a_run_counts_denormals_as_zeros(module, next_step, set_up, monkeypatch):
    class Reached(Exception):
        pass

    def end(*args):
        raise Reached

    monkeypatch.setattr(module, next_step, end)
    monkeypatch.setattr(run_setup, "resume_if_restarted", lambda *args: "")
    assert counts_denormals()
    with pytest.raises(Reached):
        set_up(Namespace(config_file="", opts=[], resume=False))
    assert not counts_denormals()
