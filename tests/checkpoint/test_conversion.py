"""The authors' and torchvision's weights give the same logits in this project's networks."""

import fork_server
import pytest
import torch
import torch.nn.functional as F
import torchvision
from author_weights import BLOCKS, random_weights
from detectron2.modeling import build_model
from repository import REPOSITORY

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer, describe
from d2_isonet.checkpoint.conversion import config_options, convert, kind_of
from d2_isonet.checkpoint.reading import WeightsError
from d2_isonet.config.loading import load_config

COMMAND = REPOSITORY / "tools" / "convert_isonet_weights.py"
NETWORKS = [
    pytest.param(kind, depth, marks=[pytest.mark.slow] if depth == 101 else [])
    for kind in ("risonet", "isonet")
    for depth in BLOCKS
]


def author_logits(weights: dict, images: torch.Tensor, depth: int) -> torch.Tensor:
    """The authors' network written out: stride on the 3x3, scaled residual, SReLU after the sum."""
    weights = {name: x.to(images.dtype) for name, x in weights.items()}

    def conv(x, name, stride=1):
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def srelu(x, name):
        b = weights[f"{name}.srelu_bias"]
        return F.relu(x - b) + b

    def block(x, name, stride):
        strides = (1, stride, 1) if depth >= 50 else (stride, 1)
        out = x
        for letter, s in zip("abc", strides, strict=False):
            out = conv(out, f"{name}.f.{letter}", s)
            if f"{name}.f.{letter}_relu.srelu_bias" in weights:
                out = srelu(out, f"{name}.f.{letter}_relu")
        if f"{name}.f.shared_scalar.scale" in weights:
            out = out * weights[f"{name}.f.shared_scalar.scale"]
            projects = f"{name}.proj.weight" in weights
            out = out + (conv(x, f"{name}.proj", stride) if projects else x)
        return srelu(out, f"{name}.relu")

    x = srelu(conv(images, "stem.conv", 2), "stem.relu")
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, number in enumerate(BLOCKS[depth], 1):
        for index in range(1, number + 1):
            x = block(x, f"s{stage}.b{index}", 2 if stage > 1 and index == 1 else 1)
    return F.linear(x.mean((2, 3)), weights["head.fc.weight"], weights["head.fc.bias"])


def convert_and_build(weights, tmp_path, config="risonet50", options=()):
    """Our classifier, built from a yaml and KEY VALUE pairs, with the converted weights in it."""
    source, target = tmp_path / "in.pt", tmp_path / "out.pth"
    torch.save(weights, source)
    meta, _ = convert(source, target)
    options = [*options, *config_options(meta)] if config == "risonet50" else list(options)
    classes = ["MODEL.CLASSIFIER.NUM_CLASSES", str(meta["num_classes"]), "MODEL.DEVICE", "cpu"]
    cfg = load_config(str(REPOSITORY / f"configs/imagenet/{config}.yaml"), options + classes)
    model = build_model(cfg).eval()
    checkpointer = ISONetCheckpointer(model, expected_meta=describe(cfg), strict=True)
    checkpointer.load(str(target), [])
    source.unlink(), target.unlink()  # 350 MB at depth 101
    return model


@pytest.mark.parametrize(("kind", "depth"), NETWORKS)
@torch.no_grad()
def test_converted_logits_are_those_of_the_authors_network(kind, depth, tmp_path):
    weights = random_weights(kind, depth)
    saved = {"net": {f"module.{name}": x for name, x in weights.items()}, "epoch": 100}
    model = convert_and_build(saved, tmp_path, config=f"{kind}{depth}")
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = author_logits(weights, images, depth)
    torch.testing.assert_close(model.double().logits(images), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_converted_logits_are_those_of_torchvision(depth, tmp_path):
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.normal_(std=0.2)
    model = convert_and_build(theirs.state_dict(), tmp_path)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    ours = torch.stack([x["logits"] for x in model([{"image": image} for image in images])])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(ours, theirs(pixels), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def risonet18() -> dict:
    torch.manual_seed(0)
    return random_weights("risonet", 18)


@pytest.mark.parametrize("wrap", ["bare", "module", "net", "state_dict", "legacy"])
def test_every_form_of_saving_converts_to_the_same_tensors(wrap, risonet18, tmp_path):
    weights = {f"module.{k}": v for k, v in risonet18.items()} if wrap != "bare" else risonet18
    content = {wrap: weights, "epoch": 3} if wrap in ("net", "state_dict") else weights
    torch.save(content, tmp_path / "in.pt", _use_new_zipfile_serialization=wrap != "legacy")
    meta, rows = convert(tmp_path / "in.pt", tmp_path / "out.pth")
    model = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert dict(rows) == {"stem": 2, "res2": 10, "res3": 11, "res4": 11, "res5": 11, "linear": 2}
    assert len(model) == len(risonet18) and kind_of(meta["architecture"]) == "risonet"
    shift = risonet18["s3.b2.f.a_relu.srelu_bias"].flatten()
    torch.testing.assert_close(model["res4.1.conv1.activation.shift"], shift, atol=0, rtol=0)


def test_written_file_says_what_it_is_in_plain_types(risonet18, tmp_path):
    torch.save(risonet18, tmp_path / "in.pt")
    convert(tmp_path / "in.pt", tmp_path / "out.pth")
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    cfg = load_config(str(REPOSITORY / "configs/risonet18_c4.yaml"), [])
    assert content["matching_heuristics"] is True
    assert {k: content["meta"][k] for k in ("architecture", "input")} == describe(cfg)
    assert content["meta"]["num_classes"] == 10 and content["meta"]["format_version"] == 1


def test_counters_that_old_torchvision_files_lack_become_zero(tmp_path):
    weights = torchvision.models.resnet18().state_dict()
    weights = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    model = convert_and_build(weights, tmp_path)
    assert model.backbone.stem.conv1.norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("s2.b1.f.b.weight"), "res3.0.conv2.weight is missing"),
        (lambda w: w.pop("head.fc.bias"), "linear.bias is missing"),
        (lambda w: w.pop("head.fc.weight"), "has no classifier"),
        (lambda w: w.pop("stem.conv.weight"), "no network of the ISONet authors"),
        (lambda w: w.update({"s1.b1.extra.weight": torch.ones(1)}), "s1.b1.extra.weight"),
        (lambda w: w.update({"s1.b1.proj.weight": torch.ones(1)}), "shortcut.weight is left over"),
        (
            lambda w: w.update({"head.fc.bias": torch.ones(3)}),
            r"linear.bias is \(3,\), not \(10,\)",
        ),
        (lambda w: w["head.fc.bias"].fill_(torch.nan), "linear.bias has NaN"),
        (lambda w: [w.pop(k) for k in list(w) if k[:5] == "s4.b2"], r"basic blocks \(2, 2, 2, 1\)"),
    ],
)
def test_network_that_is_not_whole_is_refused_by_name(change, message, risonet18, tmp_path):
    weights = {name: x.clone() for name, x in risonet18.items()}
    change(weights)
    torch.save(weights, tmp_path / "in.pt")
    with pytest.raises(WeightsError, match=message):
        convert(tmp_path / "in.pt", tmp_path / "out.pth")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("asked", "found"), [({"depth": 50}, "18"), ({"kind": "isonet"}, "risonet")]
)
def test_other_depth_or_kind_than_asked_is_refused(asked, found, risonet18, tmp_path):
    torch.save(risonet18, tmp_path / "in.pt")
    with pytest.raises(WeightsError, match=f"holds {found}, not {[*asked.values()][0]}"):
        convert(tmp_path / "in.pt", tmp_path / "out.pth", **asked)


def test_command_prints_a_row_per_stage_and_a_config_that_fits(tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "in.pt")
    run = fork_server.run_script(COMMAND, tmp_path / "in.pt", tmp_path / "out.pth")
    assert run.returncode == 0, run.stderr
    assert "resnet of depth 18, 7 classes" in run.stdout
    assert [line.split() for line in run.stdout.splitlines() if "res3" in line] == [["res3", "30"]]
    assert "MODEL.RESNETS.NORM BN MODEL.ISONET.ACTIVATION ReLU" in run.stdout
    assert (tmp_path / "out.pth").is_file()


def test_command_ends_with_one_line_that_names_the_file(tmp_path):
    run = fork_server.run_script(COMMAND, tmp_path / "no.pt", tmp_path / "out.pth")
    lines = [line for line in run.stderr.splitlines() if "no.pt" in line]
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert lines == [f"error: {tmp_path / 'no.pt'} does not exist; name the checkpoint to convert"]
