"""The predictor: what is no image, and no detector, is refused with a remedy."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from d2_isonet.command_line import load_config
from d2_isonet.configured_checkpointer import build_checkpointer
from d2_isonet.predictor import Predictor, check_image

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
    """The config of a small detector whose random weights are in a file."""
    folder = str(tmp_path_factory.mktemp("detector"))
    opts = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    cfg = load_config("configs/quickstart/small_risonet18_dc5.yaml", [*opts, "OUTPUT_DIR", folder])
    cfg.MODEL.WEIGHTS = f"{folder}/detector.pth"
    build_checkpointer(cfg, build_model(cfg)).save("detector")
    return cfg


def test_it_detects_as_the_model_does(detector):
    predictor = Predictor(detector)
    found = predictor(GREY)["instances"]
    image = predictor.aug.get_transform(GREY).apply_image(GREY).transpose(2, 0, 1)
    with torch.no_grad():
        sample = {"image": torch.as_tensor(image.copy()), "height": 60, "width": 80}
        expected = predictor.model([sample])[0]["instances"]
    assert len(found) > 0
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)


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
    with pytest.raises(ValueError, match="would keep their random initialization"):
        Predictor(cfg)
