"""The penalty added behind backward, as in this project's trainers: the same steps."""

import functools
import subprocess
import sys

import pytest
import torch
from detectron2.engine import HookBase
from toy_training import (
    COEFF,
    SGD,
    PenaltyToyModel,
    ToyDefaultTrainer,
    assert_equal,
    batches,
    reference,
    solver,
    train,
    trained,
)

from d2_isonet.engine import train_loop as accumulation
from d2_isonet.engine.train_loop import AccumulatingTrainer
from d2_isonet.isometry.penalty import orthogonal_penalty
from d2_isonet.isometry.regularizer import OrthogonalRegularizer, products_as_exact_as_convolutions

IN_PARTS = functools.partial(AccumulatingTrainer, accumulate_steps=2)
FLOAT16 = functools.partial(AccumulatingTrainer, device_type="cpu", precision="float16")
BFLOAT16 = functools.partial(AccumulatingTrainer, device_type="cpu", precision="bfloat16")
TRAINERS = {"whole": AccumulatingTrainer, "in parts": IN_PARTS, "fp16": FLOAT16, "bf16": BFLOAT16}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("trainer_class", TRAINERS.values(), ids=TRAINERS)
def test_steps_are_those_on_loss_plus_penalty(trainer_class, fused):
    model, make = PenaltyToyModel(), functools.partial(SGD, fused=fused)
    expected = reference(model, make)
    trainer = train(model, make(trained(model)), [OrthogonalRegularizer(COEFF)], trainer_class)
    assert_equal(model, expected)
    assert [i for _, i in trainer.storage.history("loss_ortho").values()] == [0, 1]
    assert trainer.on_gradients == []  # nothing is left behind


def test_it_reaches_the_step_inside_a_default_trainer(tmp_path, monkeypatch):
    seen = []
    cfg = solver(None)
    cfg.OUTPUT_DIR = str(tmp_path)
    trainer = ToyDefaultTrainer(cfg)
    model = trainer.model
    trainer._trainer = AccumulatingTrainer(model, batches(), trainer.optimizer)
    weight = model.backbone.res2[0].weight
    (plain,) = torch.autograd.grad(sum(model(batches()[0]).values()), weight)
    (penalty,) = torch.autograd.grad(COEFF * orthogonal_penalty(weight), weight)
    check = accumulation.check_gradients

    def looks_first(optimizer):
        seen.append(weight.grad.clone())
        check(optimizer)

    monkeypatch.setattr(accumulation, "check_gradients", looks_first)
    trainer.register_hooks([OrthogonalRegularizer(COEFF)])
    trainer.train()
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], plain + penalty, rtol=1e-12, atol=1e-14)


class LooksAfterBackward(HookBase):
    def __init__(self):
        self.gradients = []

    def after_backward(self):
        self.gradients.append(self.trainer.model.backbone.res2[0].weight.grad.clone())


@pytest.mark.skipif(not hasattr(HookBase, "after_backward"), reason="detectron2 v0.6 has none")
def test_detectron2s_own_hooks_see_it_after_backward():
    model, looks = PenaltyToyModel(), LooksAfterBackward()
    weight = model.backbone.res2[0].weight
    loss = sum(model(batches()[0]).values()) + COEFF * orthogonal_penalty(weight)
    (expected,) = torch.autograd.grad(loss, weight)
    train(model, SGD(trained(model)), [looks, OrthogonalRegularizer(COEFF)], AccumulatingTrainer)
    assert len(looks.gradients) == 2
    torch.testing.assert_close(looks.gradients[0], expected, rtol=1e-12, atol=1e-14)


class Overflowing(PenaltyToyModel):
    """The first loss is finite, its gradient times the scale is not."""

    factors = (1e305, 1.0, 1.0)

    def forward(self, images):
        factor, *self.factors = self.factors
        return {name: loss * factor for name, loss in super().forward(images).items()}


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_adds_nothing(fused):
    model, make = Overflowing(), functools.partial(SGD, fused=fused, momentum=0.0)
    expected = reference(PenaltyToyModel(), make)
    data = [batches()[0], *batches()]
    trainer = train(model, make(trained(model)), [OrthogonalRegularizer(COEFF)], FLOAT16, data)
    assert trainer.grad_scaler.get_scale() == 2.0**15
    assert_equal(model, expected)


def settings():
    """PyTorch's switches of TF32 for products, by their newer and their older names."""
    matmul = torch.backends.cuda.matmul
    newer = getattr(matmul, "fp32_precision", None)
    return newer, matmul.allow_tf32, torch.get_float32_matmul_precision()


@pytest.fixture
def tf32():
    """Switches it for products and for convolutions; what was is put back."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    newer, of_products, of_convolutions = (
        getattr(matmul, "fp32_precision", None),
        matmul.allow_tf32,
        cudnn.allow_tf32,
    )

    def switch(products: bool, convolutions: bool) -> None:
        matmul.allow_tf32, cudnn.allow_tf32 = products, convolutions

    yield switch
    switch(of_products, of_convolutions)
    if newer is not None:
        matmul.fp32_precision = newer


@pytest.mark.parametrize(
    ("device", "products", "convolutions", "inside"),
    [
        ("cuda", False, True, True),
        ("cuda", True, True, True),
        ("cuda", True, False, True),
        ("cuda", False, False, False),
        ("cpu", False, True, False),
    ],
)
def test_products_are_as_exact_as_convolutions_and_everything_is_put_back(
    device, products, convolutions, inside, tf32
):
    tf32(products, convolutions)
    before = settings()
    with pytest.raises(RuntimeError, match="out of memory"):
        with products_as_exact_as_convolutions(torch.device(device)):
            assert torch.backends.cuda.matmul.allow_tf32 == inside
            raise RuntimeError("out of memory")
    assert settings() == before


NEWER_SWITCHES = """
import torch
from d2_isonet.isometry.regularizer import products_as_exact_as_convolutions

matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv
for of_products, of_convolutions, inside in (
    ("none", "tf32", "tf32"), ("ieee", "tf32", "tf32"), ("tf32", "ieee", "tf32"),
    ("ieee", "ieee", "ieee"),
):
    matmul.fp32_precision, convolutions.fp32_precision = of_products, of_convolutions
    with products_as_exact_as_convolutions(torch.device("cuda")):
        assert matmul.fp32_precision == inside
    assert matmul.fp32_precision == of_products
    assert convolutions.fp32_precision == of_convolutions
"""


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch 2.8 or older"
)
def test_switches_may_be_set_by_their_newer_names():
    # In a process of its own: PyTorch does not forget which names were used.
    command = [sys.executable, "-c", NEWER_SWITCHES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
