"""The predictor: its detections, and its errors for bad images and bad weights."""

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.config.loading import load_config
from d2_isonet.engine.predictor import Predictor, check_image

GREY = np.full((60, 80, 3), 128, dtype=np.uint8)

BAD_IMAGES = {
    "is None, .*check the path": None,
    "builtins.list; give a numpy array": [[0, 0], [0, 0]],
    "torch.Tensor; give a numpy array": torch.zeros(60, 80, 3),
    r"\(60, 80\).*grayscale: give np.dstack": GREY[:, :, 0],
    r"\(60, 80, 1\).*grayscale": GREY[:, :, :1],
    r"\(60, 80, 4\).*image\[:, :, :3\]": np.zeros((60, 80, 4), np.uint8),
    r"\(3, 60, 80\).*transpose\(1, 2, 0\)": GREY.transpose(2, 0, 1),
    r"\(1, 60, 80, 3\).*one image at a time": GREY[None],
    r"\(60, 80, 2\), not": np.zeros((60, 80, 2), np.uint8),
    r"\(0, 80, 3\).*no pixels": GREY[:0],
    r"\(60, 0, 3\).*no pixels": GREY[:, :0],
    "uint16, of range 0-65535": GREY.astype(np.uint16) * 257,
    "is int64; give uint8": GREY.astype(np.int64),
    "is bool; give uint8": GREY > 0,
    "nowhere above 0.5.*, as if of range 0-1": (GREY / 255).astype(np.float32),
    "from -1 to -1": np.full((60, 80, 3), -1.0),
    "from nan to nan": np.full((60, 80, 3), np.nan),
}


@pytest.mark.parametrize("message", BAD_IMAGES)
def test_what_is_no_image_is_refused(message):
    with pytest.raises(ValueError, match=message):
        check_image(BAD_IMAGES[message])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_an_image_is_not_refused(dtype):
    check_image(GREY.astype(dtype))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """The config of a small detector with a file of random weights."""
    folder = str(tmp_path_factory.mktemp("detector"))
    opts = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    cfg = load_config("configs/quickstart/small_risonet18_dc5.yaml", [*opts, "OUTPUT_DIR", folder])
    cfg.MODEL.WEIGHTS = f"{folder}/detector.pth"
    build_checkpointer(cfg, build_model(cfg)).save("detector")
    return cfg


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    assert found.image_size == expected.image_size
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-3


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_it_detects_as_detectron2s_own(detector, order):
    predictor, image = Predictor(detector), noise(60, 80)
    predictor.input_format = order
    expected = DefaultPredictor.__call__(predictor, image)["instances"]
    found = predictor(image)["instances"]
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores) and len(found) > 0


def test_several_images_of_any_size_are_detected_as_if_each_came_alone(detector):
    predictor = Predictor(detector)
    images = [noise(60, 80, 1), noise(90, 60, 2), noise(60, 80, 3), noise(120, 160, 4)]
    for image, output in zip(images, predictor.predict(images), strict=True):
        assert_same(output["instances"], predictor(image)["instances"])


def test_images_of_one_size_go_through_the_model_together(detector, monkeypatch):
    predictor, sizes = Predictor(detector), []
    forward = predictor.model.forward
    monkeypatch.setattr(predictor.model, "forward", lambda x: sizes.append(len(x)) or forward(x))
    predictor.predict([noise(60, 80), noise(80, 60), noise(60, 80)])
    assert sorted(sizes) == [1, 2]
    assert predictor.predict([]) == []


def test_a_strip_that_would_vanish_is_refused(detector):
    predictor = Predictor(detector)
    with pytest.raises(ValueError, match="the image is 4000 x 1; made to fit .*MAX_SIZE_TEST 192"):
        predictor(noise(1, 4000))
    predictor(noise(1, 300))


def test_floats_of_range_0_255_are_the_same_image(detector):
    predictor = Predictor(detector)
    found, floats = (predictor(x)["instances"] for x in (GREY, GREY.astype(np.float32)))
    torch.testing.assert_close(floats.scores, found.scores)


def test_it_refuses_a_bad_image_before_the_model_sees_it(detector):
    predictor = Predictor(detector)
    predictor.model = None
    with pytest.raises(ValueError, match="the image is None"):
        predictor(None)


def test_it_refuses_to_predict_by_random_weights(detector):
    cfg = detector.clone()
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is ''"):
        Predictor(cfg)


def test_it_refuses_weights_of_a_backbone_alone(detector, tmp_path):
    cfg = detector.clone()
    cfg.MODEL.WEIGHTS = str(tmp_path / "backbone.pth")
    backbone = build_model(cfg).backbone.state_dict()
    torch.save({"model": backbone, "matching_heuristics": True}, cfg.MODEL.WEIGHTS)
    with pytest.raises(ValueError, match="holds a backbone alone: give the model_final.pth"):
        Predictor(cfg)
