"""The pretraining model."""

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from d2_isonet.command_line import load_config

NARROW = [
    "MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.NUM_CLASSES", "5",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
]  # fmt: skip


def classifier(*opts: str):
    return build_model(load_config("configs/imagenet/risonet18.yaml", [*NARROW, *opts]))


def batch(count: int = 4, size: int = 64) -> list[dict]:
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return [{"image": x, "label": i % 5} for i, x in enumerate(images)]


def test_in_training_it_returns_the_mean_cross_entropy():
    model = classifier("MODEL.CLASSIFIER.DROPOUT", "0.0")
    inputs = batch()
    logits = model.logits(model.preprocess_images(inputs))
    expected = -logits.log_softmax(1)[range(4), [0, 1, 2, 3]].mean()
    torch.testing.assert_close(model(inputs)["loss_cls"], expected)


def test_in_evaluation_it_returns_one_vector_of_logits_an_image():
    model = classifier().eval()
    inputs = batch(3)
    with torch.no_grad():
        outputs = model(inputs)
        alone = model(inputs[1:2])[0]["logits"]
    assert [set(o) for o in outputs] == [{"logits"}] * 3
    assert outputs[0]["logits"].shape == (5,)
    torch.testing.assert_close(outputs[1]["logits"], alone, rtol=1e-4, atol=1e-5)


def test_the_detection_twin_sees_the_same_pixels():
    detector = build_model(
        load_config("configs/risonet18_dc5.yaml", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    )
    inputs = batch(2)
    ours = classifier().preprocess_images(inputs)
    assert torch.equal(ours, detector.preprocess_image(inputs).tensor)


def test_dropout_sits_before_the_last_layer_and_nowhere_else():
    model = classifier()
    assert [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)] == ["dropout"]
    assert model.dropout.p == 0.4
    seen = []
    model.dropout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    model(batch(2))
    assert seen == [(2, 64)]


def test_every_parameter_gets_a_gradient():
    model = classifier()
    model(batch())["loss_cls"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_without_a_number_of_classes_it_says_so():
    with pytest.raises(ValueError, match="NUM_CLASSES is 0"):
        classifier("MODEL.CLASSIFIER.NUM_CLASSES", "0")
