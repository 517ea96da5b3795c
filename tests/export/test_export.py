"""An export computes the same as the original, for images of any size and number."""

import json
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from narrow_networks import BASIC, NARROW, SMALL_DETECTOR, away_from_init, decided

from d2_isonet.config.loading import load_config
from d2_isonet.export import formats
from d2_isonet.export.comparison import compare_detections, failures
from d2_isonet.export.loading import HalfBackbone, load_exported, variant
from d2_isonet.export.record import KEY, attach, make_record
from d2_isonet.export.targets import function_of, pixel_module
from d2_isonet.utils import compat

FLAT = torch.full((3, 96, 128), 120.0)
SIZES = [(96, 160), (130, 97), (66, 75)]
slow = pytest.mark.slow


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width) * 255


def detector(name: str, *opts: str):
    """A detector that finds objects in noise and none in FLAT, and its config."""
    cfg = load_config(f"configs/{name}.yaml", [*SMALL_DETECTOR, *opts])
    model = build_model(cfg).requires_grad_(False)
    predictor, find = model.roi_heads.box_predictor, function_of(model.eval(), "detector")
    for seed in range(20):
        torch.manual_seed(seed)
        decided(model)
        predictor.test_score_thresh = 0.0
        flat, noisy = (float(find(x)["scores"].max()) for x in (FLAT, noise(96, 128)))
        if flat < 0.8 * noisy:
            predictor.test_score_thresh = (flat + noisy) / 2
            return model, cfg
    raise AssertionError("no seed of twenty gives such a detector")


def exported(
    cfg, model, target: str, file_format: str, folder: Path, fuse: str = "auto", **options
):
    """The export as a function, from its file."""
    precision = options.get("precision", "float32")
    copy, fused = variant(model, fuse, precision)
    facts = {"format": file_format, "precision": precision, "fused": fused, "weights": "x.pth"}
    record = make_record(cfg, model, target, ["a", "b", "c"], **facts)
    path = folder / f"export.{file_format}"
    formats.write_export(copy, record, [options.get("example", FLAT)], path)
    return load_exported(path, record)


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        # single precision in another order; box coordinates go to 160
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
@pytest.mark.parametrize("head", ["c4", "dc5", "fpn"])
def test_a_detector_traced_on_an_empty_image_finds_objects_in_others(head, file_format, tmp_path):
    model, cfg = detector(f"risonet18_{head}")
    original = function_of(model, "detector")
    run = exported(cfg, model, "detector", file_format, tmp_path)
    assert len(run(FLAT)["boxes"]) == 0
    images = [noise(*size) for size in SIZES]
    numbers = [len(original(image)["boxes"]) for image in images]
    assert len(set(numbers)) > 1 and max(numbers) > 1  # other sizes, other numbers
    for image in images:
        assert_same(run(image), original(image))


@pytest.mark.parametrize("file_format", [pytest.param("onnx", marks=slow), "torchscript"])
def test_a_detector_traced_on_objects_finds_nothing_in_an_empty_image(file_format, tmp_path):
    model, cfg = detector("risonet18_dc5")
    example = noise(96, 160)
    run = exported(cfg, model, "detector", file_format, tmp_path, example=example)
    found = run(FLAT)
    assert [len(x) for x in found.values()] == [0, 0, 0, 0] and found["boxes"].shape == (0, 4)
    assert len(run(example)["boxes"]) > 0


OTHERS = ["faster_risonet50_c4", "faster_risonet50_fpn", "resnet50_fpn", "resnet50_fpn_gn",
          "fixup50_dc5", "decoupled18_c4", "decoupled18_fpn", "modified18_dc5"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_detectors_too(name, file_format, tmp_path):
    check_other(name, file_format, tmp_path)


def test_a_faster_rcnn_has_no_masks(tmp_path):
    check_other("faster_risonet50_dc5", "torchscript", tmp_path)


@pytest.mark.slow
def test_a_cascade_goes_to_onnx(tmp_path):
    check_other("cascade_risonet50_fpn", "onnx", tmp_path)


def check_other(name: str, file_format: str, folder: Path) -> None:
    norm = ["MODEL.ISONET.NORM_GROUPS", "4", "MODEL.FPN.OUT_CHANNELS", "32"]
    norm = norm if name.endswith("gn") else []
    model, cfg = other_detector(name, ["MODEL.RESNETS.DEPTH", "18", *norm])
    original = function_of(model, "detector")
    run = exported(cfg, model, "detector", file_format, folder, example=noise(64, 96))
    assert ("masks" in run(FLAT)) is (not name.startswith("faster"))
    for size in SIZES[:2]:
        image = noise(*size)
        # scores that are equal but for rounding may change places
        numbers = compare_detections(original(image), run(image), size, threshold=0.0, most=100)
        assert numbers["matched"] > 0 and failures(numbers, 1e-4) == []


def other_detector(name: str, opts: list[str]):
    cfg = load_config(f"configs/{name}.yaml", [*SMALL_DETECTOR, *opts])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    return decided(build_model(cfg)).requires_grad_(False), cfg


ROWS = {  # config, options, whether it is left to the slow tests
    "SReLU, fused": ("risonet18_dc5", [], False),
    "SReLU, basic pyramid": ("risonet18_fpn", [], True),
    "SReLU, bottlenecks": ("risonet50_c4", ["MODEL.RESNETS.RES2_OUT_CHANNELS", "32"], True),
    "ReLU and FrozenBN": ("resnet50_fpn", ["MODEL.RESNETS.DEPTH", "18"], False),
    "Fixup": ("fixup50_dc5", ["MODEL.RESNETS.DEPTH", "18"], True),
    "decoupled": ("decoupled18_dc5", [], True),
    "modified": ("modified18_dc5", [], True),
}


@pytest.mark.parametrize("row", [pytest.param(x, marks=slow if ROWS[x][2] else ()) for x in ROWS])
def test_torch_export_takes_any_number_and_size_of_images(row):
    name, opts, _ = ROWS[row]
    cfg = load_config(f"configs/{name}.yaml", [*NARROW, *BASIC, *opts])
    model = away_from_init(build_model(cfg)).requires_grad_(False)
    program = formats.export_program(pixel_module(variant(model, "auto", "float32")[0], "backbone"))
    original, run = pixel_module(model, "backbone"), program.module()
    for number, size in zip((1, 3, 2), SIZES, strict=True):
        images = torch.rand(number, 3, *size) * 255
        expected, found = original(images), run(images)
        assert list(found) == list(expected)
        for feature, value in expected.items():
            scale = float(value.abs().max())
            torch.testing.assert_close(found[feature], value, rtol=0, atol=1e-5 * scale)


def test_an_image_of_a_pyramid_is_padded_as_in_the_detector():
    cfg = load_config("configs/risonet18_fpn.yaml", [*NARROW, *BASIC])
    model, image = away_from_init(build_model(cfg)), noise(70, 45)
    expected = model.backbone(model.preprocess_image([{"image": image}]).tensor)
    found = function_of(model, "backbone")(image)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# The smallest network of the builder: seven convolutions.
CLASSIFIER = [
    "MODEL.DEVICE",
    "cpu",
    "MODEL.RESNETS.DEPTH",
    "8",
    "MODEL.CLASSIFIER.NUM_CLASSES",
    "3",
]


def small_classifier():
    cfg = load_config("configs/cifar/risonet20.yaml", CLASSIFIER)
    return away_from_init(build_model(cfg)).requires_grad_(False), cfg


@pytest.mark.parametrize("file_format", ["onnx", pytest.param("pt2", marks=slow)])
def test_a_classifier_from_its_file(file_format, tmp_path):
    model, cfg = small_classifier()
    run = exported(cfg, model, "classifier", file_format, tmp_path)
    for size in SIZES:
        image = noise(*size)
        expected = model([{"image": image}])[0]["logits"]
        torch.testing.assert_close(run(image)["logits"][0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["risonet18_fpn", "decoupled18_dc5"])
def test_a_backbone_in_onnx(name, tmp_path):
    cfg = load_config(f"configs/{name}.yaml", [*NARROW, *BASIC])
    model = away_from_init(build_model(cfg)).requires_grad_(False)
    run, original = (
        exported(cfg, model, "backbone", "onnx", tmp_path),
        function_of(model, "backbone"),
    )
    for size in SIZES:
        image = noise(*size)
        assert_same(run(image), original(image))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_half_backbone_is_between_float32_heads(precision):
    model, _ = detector("risonet18_fpn")
    half, _ = variant(model, "auto", precision)
    assert isinstance(half.backbone, HalfBackbone)
    assert half.backbone.backbone.bottom_up.stem.conv1.weight.dtype == getattr(torch, precision)
    image = noise(96, 96)
    a, b = (function_of(x, "backbone")(image)["p3"] for x in (model, half))
    difference = float((a - b).abs().max() / a.abs().max())
    assert b.dtype == torch.float32 and 0 < difference < 0.05
    assert half.backbone.size_divisibility == 32


@pytest.mark.parametrize(
    ("target", "precision"),
    [pytest.param("detector", "int8", marks=slow), pytest.param("detector", "float16", marks=slow),
     pytest.param("classifier", "int8", marks=slow)],
)  # fmt: skip
def test_a_smaller_file_in_onnx_runtime(target, precision, tmp_path):
    model, cfg = detector("risonet18_dc5") if target == "detector" else small_classifier()
    sizes = {}
    for name in ("float32", precision):
        example = noise(96, 128)
        run = exported(cfg, model, target, "onnx", tmp_path, precision=name, example=example)
        sizes[name] = (tmp_path / "export.onnx").stat().st_size
    found = run(example)
    assert sizes[precision] < sizes["float32"]
    assert all(torch.isfinite(x).all() for x in found.values())
    assert list(found) == list(function_of(model, target)(example))


def test_shifts_are_folded_where_that_is_exact_and_left_where_not():
    ours = build_model(load_config("configs/risonet18_dc5.yaml", SMALL_DETECTOR)).eval()
    assert variant(ours, "auto", "float32")[1] is True
    assert variant(ours, "off", "float32")[1] is False
    opts = [*SMALL_DETECTOR, "MODEL.RESNETS.DEPTH", "18"]
    frozen = build_model(load_config("configs/resnet50_dc5.yaml", opts)).eval()
    assert variant(frozen, "auto", "float32")[1] is False
    with pytest.raises(ValueError, match="--fuse on: .*--fuse auto leaves it"):
        variant(frozen, "on", "float32")


def test_the_record_is_in_the_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, cfg = detector("risonet18_dc5")
    facts = {"precision": "float32", "fused": False, "weights": "x.pth"}
    record = make_record(cfg, model, "detector", ["a", "b", "c"], format="torchscript", **facts)
    formats.write_torchscript(model, FLAT, tmp_path / "x.ts", record)
    files = {formats.RECORD: ""}
    torch.jit.load(str(tmp_path / "x.ts"), _extra_files=files)
    assert json.loads(files[formats.RECORD]) == record
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "x.onnx")
    attach(tmp_path / "x.onnx", record)
    properties = {p.key: p.value for p in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(properties[KEY]) == record
    assert json.loads((tmp_path / "x.onnx.json").read_text()) == record
    assert record["input"]["channel_order"] == cfg.INPUT.FORMAT == "RGB"
    assert record["resize"] == {"shorter_side": 96, "longer_side_at_most": 160}


def test_a_detectron2_that_cannot_trace_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2.export", None)
    with pytest.raises(ValueError, match="needs Caffe2.*third_party/detectron2"):
        compat.tracing_adapter(torch.nn.Identity(), FLAT, lambda model, x: x)
