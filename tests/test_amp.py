"""Half precision on a CPU, where its rules are the same."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn

from d2_isonet import SReLU
from d2_isonet.amp import AMPTrainer


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), SReLU(4), nn.Conv2d(4, 2, 3))
        self.factor = 1.0

    def forward(self, x):
        return {"loss": self.layers(x).float().square().mean() * self.factor}


def trainer_of(model, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))] * 10
    if options:
        return AMPTrainer(model, data, optimizer, device_type="cpu", **options)
    return SimpleTrainer(model, data, optimizer)


def step(trainer) -> list[torch.Tensor]:
    with EventStorage():
        trainer.iter = 0
        trainer.run_step()
    return [p.detach().clone() for p in trainer.model.parameters()]


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_a_step_is_the_float32_step_within_the_precision(precision, tolerance):
    expected = step(trainer_of(Model()))
    for a, b in zip(step(trainer_of(Model(), precision=precision)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_a_step_whose_gradient_overflows_is_skipped():
    model = Model()
    before = [p.detach().clone() for p in model.parameters()]
    trainer = trainer_of(model, precision="float16")
    model.factor = 1e36  # times the loss scale this exceeds float32
    scale = trainer.grad_scaler.get_scale()
    for a, b in zip(step(trainer), before, strict=True):
        assert torch.equal(a, b)
    assert trainer.grad_scaler.get_scale() == scale / 2


def test_the_loss_scale_is_resumed():
    trainer = trainer_of(Model(), precision="float16")
    trainer.model.factor = 1e36
    step(trainer)
    other = trainer_of(Model(), precision="float16")
    other.load_state_dict(trainer.state_dict())
    assert other.grad_scaler.get_scale() == trainer.grad_scaler.get_scale() != 65536.0


def test_an_unknown_precision_is_named_with_the_choices():
    with pytest.raises(ValueError, match="'half'.*bfloat16.*float16"):
        trainer_of(Model(), precision="half")
