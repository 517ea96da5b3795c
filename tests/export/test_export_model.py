"""d2-isonet export: its verdict, its refusals, and its files without detectron2."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import build_model
from narrow_networks import SMALL_DETECTOR, decided
from PIL import Image

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.commands import export
from d2_isonet.config.loading import load_config
from d2_isonet.data import examples as images
from d2_isonet.engine.predictor import Predictor
from d2_isonet.export import comparison, record, targets


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with weights and yaml of a small detector (BGR, easily mixed up), and two images."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(5)
    opts = [*SMALL_DETECTOR, "INPUT.FORMAT", "BGR", "OUTPUT_DIR", str(folder)]
    cfg = load_config(
        "configs/risonet18_fpn.yaml", [*opts, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.2"]
    )
    build_checkpointer(cfg, decided(build_model(cfg))).save("detector")
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "names.txt").write_text("cat\ntree\nship\n")
    (folder / "photos").mkdir()
    for i, size in enumerate([(150, 120), (90, 200)]):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    return folder


def run(folder: Path, *options: str) -> int:
    files = ["--config-file", f"{folder}/config.yaml", "--weights", f"{folder}/detector.pth"]
    output = ["--output", f"{folder}/out", "--repetitions", "1", "--num-images", "2"]
    return export.main([*files, *output, *options])


def refusal(capsys, folder: Path, *options: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        run(folder, *options)
    message = capsys.readouterr().err.split("error: ")[-1]
    assert "Traceback" not in message
    return " ".join(message.split())


# runs a script in which these packages cannot be imported
ALONE = """
import runpy, sys
for name in ("torch", "torchvision", "detectron2", "d2_isonet", "onnx", "cv2"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_file_says_how_to_be_fed_and_runs_without_torch(folder, capsys):
    names = ["--class-names", f"{folder}/names.txt", "--images", f"{folder}/photos"]
    assert run(folder, *names) == 0
    printed = capsys.readouterr().out
    assert "share of box" in printed and "2 images of " in printed and "NO" not in printed
    numbers = json.loads((folder / "out/detector.onnx.comparison.json").read_text())
    assert numbers["problems"] == [] and numbers["differences"]["matched"] > 0
    photo = folder / "photos" / "0.png"
    command = [sys.executable, "-c", ALONE, "docs/run_onnx.py", f"{folder}/out/detector.onnx"]
    result = subprocess.run([*command, str(photo), "--score", "0"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    cfg = load_config(f"{folder}/config.yaml", ["MODEL.WEIGHTS", f"{folder}/detector.pth"])
    pixels = np.asarray(Image.open(photo))[:, :, ::-1]  # a predictor wants BGR
    found = Predictor(cfg)(pixels)["instances"]
    assert len(lines) == len(found) > 0
    for i, line in enumerate(lines):
        box = " ".join(f"{x:.1f}" for x in found.pred_boxes.tensor[i].tolist())
        name = ["cat", "tree", "ship"][found.pred_classes[i]]
        assert f"{name} {found.scores[i]:.3f} at " in line
        assert np.allclose(_numbers(line), [float(x) for x in box.split()], atol=0.2)
        area = int(line.rsplit(", ", 1)[1].split()[0])
        assert abs(area - int(found.pred_masks[i].sum())) <= 0.01 * area + 2


def _numbers(line: str) -> list[float]:
    return [float(x) for x in line.split(" at ")[1].split(",")[0].split()]


def test_masks_are_pasted_as_detectron2_does():
    import run_onnx

    generator = np.random.default_rng(0)
    masks = generator.random((30, 14, 14), dtype=np.float32)
    corners = generator.uniform(-5, 50, (30, 2))
    boxes = np.hstack([corners, corners + generator.uniform(1, 40, (30, 2))]).astype(np.float32)
    expected = paste_masks_in_image(torch.tensor(masks), torch.tensor(boxes), (48, 64)).numpy()
    found = np.stack([run_onnx.paste(m, b, (64, 48)) for m, b in zip(masks, boxes, strict=True)])
    assert expected.any() and (found != expected).mean() < 1e-4


def test_a_difference_above_the_tolerance_is_a_failure(folder, capsys):
    options = ["--format", "torchscript", "--precision", "bfloat16", "--tolerance", "0"]
    assert run(folder, *options, "--images", f"{folder}/photos") == 1
    assert "FAILED: share of score differs by" in capsys.readouterr().err


REFUSALS = {
    "--format pt2 cannot be done .*; it can be onnx or torchscript": ["--format", "pt2"],
    "--precision bfloat16 cannot .*; it can be float32 or float16 or int8": [
        "--precision", "bfloat16"],
    "--format torchscript cannot be done .*; it can be pt2 or onnx": [
        "--target", "backbone", "--format", "torchscript"],
    "--target classifier needs MODEL.META_ARCHITECTURE 'ImageClassifier'": [
        "--target", "classifier"],
    "'PanopticFPN', which cannot be exported whole; .*--target backbone": [
        "MODEL.META_ARCHITECTURE", "PanopticFPN"],
    r"MODEL.ROI_HEADS.NAME .* is 'RROIHeads'; it must be one of": [
        "MODEL.ROI_HEADS.NAME", "RROIHeads"],
    "'CascadeROIHeads', .*TorchScript cannot hold; --format can be onnx": [
        "--format", "torchscript", "MODEL.ROI_HEADS.NAME", "CascadeROIHeads"],
    "MODEL.KEYPOINT_ON is True; --target detector takes False": ["MODEL.KEYPOINT_ON", "True"],
    "there is no file .*nothing.pth": ["--weights", "nothing.pth"],
    "not the network the config describes: .*depth: 18 in the file, 34 in": [
        "MODEL.RESNETS.DEPTH", "34"],
    "has 2 names, the network 3": ["--class-names", "two.txt"],
    "there is no file .*no.txt": ["--class-names", "no.txt"],
    "--images: there is no folder": ["--images", "no_folder"],
    "--images: .* has no image": ["--images", "empty"],
    "--output: .*two.txt cannot be a folder": ["--output", "two.txt"],
    "broken.jpg cannot be read as an image": ["--images", "broken"],
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSALS)
def test_what_cannot_be_exported_is_said(message, folder, capsys, monkeypatch):
    (folder / "two.txt").write_text("cat\ntree\n")
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken" / "broken.jpg").write_text("no image")
    monkeypatch.chdir(folder)
    assert re.search(message, refusal(capsys, folder, *REFUSALS[message]))


@pytest.mark.parametrize("tolerance", ["-1", "nan"])
def test_a_tolerance_that_nothing_passes_is_refused(tolerance, folder, capsys):
    with pytest.raises(SystemExit):
        run(folder, "--tolerance", tolerance)
    assert "--tolerance must be at least 0" in capsys.readouterr().err


def test_weights_are_asked_for(capsys, folder):
    assert "give --weights FILE" in refusal(capsys, folder, "--weights", "")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(targets, "_PACKAGES", ("onnx", "onnxnothing"))
    with pytest.raises(ValueError, match="needs onnxnothing, which is not .*; pip install onnxno"):
        targets.check_format("detector", "onnx", "float32")
    targets.check_format("detector", "torchscript", "float32")


@pytest.mark.parametrize("target", targets.TARGETS)
def test_every_other_combination_has_a_reason(target):
    for file_format in targets.SUFFIXES:
        for precision in ("float32", "float16", "bfloat16", "int8"):
            legal = targets.PRECISIONS[target].get(file_format, ())
            if precision in legal:
                targets.check_format(target, file_format, precision)
                continue
            with pytest.raises(ValueError, match="cannot be done"):
                targets.check_format(target, file_format, precision)


def outputs(boxes: list, classes: list, scores: list) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            "classes": torch.tensor(classes), "scores": torch.tensor(scores)}  # fmt: skip


def test_detections_are_matched_by_class_and_place():
    a = outputs([[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 10, 10]], [0, 1, 2], [0.9, 0.8, 0.3])
    b = outputs([[20, 21, 40, 40], [0, 0, 10, 10]], [1, 0], [0.7, 0.85])
    numbers = comparison.compare_detections(a, b, (50, 100), threshold=0.1, most=100)
    assert (numbers["objects, original"], numbers["objects, exported"], numbers["matched"]) == (
        3,
        2,
        2,
    )
    assert numbers["boxes, pixels"] == 1 and numbers["share of box"] == pytest.approx(0.01)
    assert numbers["share of score"] == pytest.approx(0.1)
    assert numbers["share of unmatched score"] == pytest.approx(0.2)  # 0.3, above 0.1


def test_what_drops_out_at_the_last_kept_place_counts_by_its_lead():
    a = outputs([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1], [0.9, 0.41])
    b = outputs([[0, 0, 10, 10], [60, 20, 80, 40]], [0, 1], [0.9, 0.40])
    numbers = comparison.compare_detections(a, b, (50, 100), threshold=0.1, most=2)
    assert numbers["share of unmatched score"] == pytest.approx(0.01, abs=1e-6)


def test_masks_differ_by_the_pixels_of_one_alone():
    a = outputs([[0, 0, 10, 10]], [0], [0.9])
    b = {**a, "masks": torch.ones(1, 10, 10)}  # a cell a pixel
    b["masks"][:, :, 5:] = 0
    a["masks"] = torch.ones(1, 10, 10)
    numbers = comparison.compare_detections(a, b, (20, 20), threshold=0.1, most=100)
    assert numbers["mask pixels"] == 50 and numbers["share of mask"] == pytest.approx(0.5)
    assert numbers["least mask IoU"] == pytest.approx(0.5)


def test_a_feature_of_nan_or_another_shape_is_a_failure():
    x = {"res5": torch.ones(1, 2, 3, 3)}
    for y in (torch.full((1, 2, 3, 3), torch.nan), torch.ones(1, 2, 3, 4)):
        summary = comparison.summarize([comparison.compare_features(x, {"res5": y})])
        assert len(comparison.failures(summary, 0.1)) == 1
    assert comparison.failures(comparison.summarize([comparison.compare_features(x, x)]), 0.1) == []


def test_nothing_found_is_nothing_compared():
    nothing = outputs([], [], [])
    numbers = comparison.compare_detections(nothing, nothing, (9, 9), threshold=0.1, most=100)
    assert "NOT compared" in comparison.failures(comparison.summarize([numbers]), 1.0)[0]


def test_without_images_noise_is_called_noise():
    cfg = load_config("configs/risonet18_fpn.yaml", ["DATASETS.TEST", "('nowhere',)"])
    examples = images.find_examples(cfg, None, 3)
    assert "NOISE (the test set nowhere is not registered" in examples.source
    assert [tuple(x.shape) for x in examples.images][0] == (3, 800, 1067)
    assert examples.images[0].dtype == torch.float32


def test_the_test_set_is_sampled(coco_files):
    from d2_isonet.data.datasets import register_coco_files

    register_coco_files("export_set", *map(str, coco_files))
    opts = ["DATASETS.TEST", "('export_set',)", "INPUT.MIN_SIZE_TEST", "60"]
    cfg = load_config("configs/risonet18_fpn.yaml", [*opts, "MODEL.ROI_HEADS.NUM_CLASSES", "3"])
    examples = images.find_examples(cfg, None, 2)
    assert len(examples.images) == 2 and "test set export_set" in examples.source
    assert record.find_class_names(cfg, "detector", None)[0] == ["cat", "tree", "ship"]
    assert record.read_class_names(str(coco_files[0])) == ["cat", "tree", "ship"]


def test_unknown_names_are_numbered_and_said_so():
    cfg = load_config("configs/risonet18_fpn.yaml", ["DATASETS.TEST", "()", "DATASETS.TRAIN", "()"])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    assert record.find_class_names(cfg, "detector", None) == (
        ["class 0", "class 1"], "NONE KNOWN, numbered: give --class-names FILE")  # fmt: skip


def test_differences_that_are_not_finite_are_null_in_the_json(tmp_path):
    differences = {"share of box": float("nan"), "share of score": float("inf"), "matched": 0.0}
    comparison.write_report(tmp_path / "x.json", differences=differences, problems=["NaN"])
    read = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    null = {"share of box": None, "share of score": None, "matched": 0.0}
    assert read == {"problems": ["NaN"], "differences": null}
