"""A step with the hook against a step on loss + coefficient * penalty, in float64."""

import functools

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.solver import build_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn
from torch.nn.parallel import DistributedDataParallel
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

from d2_isonet.isometry.regularizer import OrthogonalRegularizer


def clipped_class(clip_type, params):
    cls = maybe_add_gradient_clipping(solver(clip_type), torch.optim.SGD)
    return functools.partial(cls, **SGD.keywords)(params)


def clipped_instance(clip_type, params):
    # HEAD's build_optimizer: the class of an optimizer that exists already is replaced.
    return maybe_add_gradient_clipping(solver(clip_type), SGD(params))


def with_scheduler(make, params):
    # DefaultTrainer's order: the scheduler keeps the `step` that it finds when it is made.
    optimizer = make(params)
    build_lr_scheduler(solver(), optimizer)
    return optimizer


BASIC_OPTIMIZERS = {"plain": SGD} | {
    f"{make.__name__} {clip_type}": functools.partial(make, clip_type)
    for make in (clipped_class, clipped_instance)
    for clip_type in ("value", "norm")
}
OPTIMIZERS = BASIC_OPTIMIZERS | {
    f"{name} with scheduler": functools.partial(with_scheduler, make)
    for name, make in BASIC_OPTIMIZERS.items()
}


def forget_earlier_sgd(monkeypatch):
    # torch wraps the `step` of a class when its first instance is made, for the whole process.
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", step.__wrapped__)
    assert step.hooked and not hasattr(torch.optim.SGD.step, "hooked")


@pytest.mark.parametrize("earlier_sgd", [False, True], ids=["first SGD", "another SGD before"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_step_is_a_step_on_loss_plus_penalty(make, earlier_sgd, monkeypatch):
    # Through torch's own pre-hooks the penalty came twice, or once but after the clipping.
    model = PenaltyToyModel()
    expected, without = reference(model, make), reference(model, make, coeff=0.0)
    SGD([nn.Parameter(torch.zeros(1))])
    if not earlier_sgd:
        forget_earlier_sgd(monkeypatch)
    train(model, make(trained(model)), [OrthogonalRegularizer(COEFF)])
    assert_equal(model, expected)
    assert not torch.allclose(model.backbone.res3[0].weight, without.backbone.res3[0].weight)


@pytest.mark.parametrize("form", ["official", "flattened"])
def test_form_is_the_one_asked_for(form):
    model = PenaltyToyModel()
    expected = reference(model, SGD, form=form)
    train(model, SGD(trained(model)), [OrthogonalRegularizer(COEFF, form)])
    assert_equal(model, expected)


@pytest.mark.parametrize("clip_type", [None, "value", "norm"])
def test_default_trainer_steps_on_loss_plus_penalty(clip_type, tmp_path):
    # HookBase.after_backward never fires under DefaultTrainer: SimpleTrainer.run_step asks the
    # hooks of the inner trainer, and those that are registered as usual belong to the outer one.
    cfg = solver(clip_type)
    cfg.OUTPUT_DIR = str(tmp_path)
    trainer = ToyDefaultTrainer(cfg)
    make = functools.partial(clipped_class, clip_type) if clip_type else SGD
    expected = reference(trainer.model, make)
    trainer.register_hooks([OrthogonalRegularizer(COEFF)])
    trainer.train()
    assert_equal(trainer.model, expected)


class ScaledTrainer(SimpleTrainer):
    """AMPTrainer's step without its demand for CUDA; the first of its steps overflows."""

    scaler = None

    def run_step(self):
        self.scaler = self.scaler or torch.amp.GradScaler("cpu", init_scale=1024.0)
        loss = sum(self.model(next(self._data_loader_iter)).values())
        self.optimizer.zero_grad()
        self.scaler.scale(loss * (float("inf") if self.iter == 0 else 1)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


# A fused optimizer unscales in its kernel, after every hook.
@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_unscales_first_and_a_skipped_step_adds_nothing(fused):
    model = PenaltyToyModel()
    data = [batches()[0], *batches()]
    # torch starts a momentum buffer from garbage where the first fused step overflows.
    make = functools.partial(SGD, fused=fused, momentum=0.0 if fused else 0.9)
    expected = reference(model, make, data=data[1:])
    hook = OrthogonalRegularizer(COEFF)
    trainer = train(model, make(trained(model)), [hook], ScaledTrainer, data)
    assert trainer.scaler.get_scale() == 512.0
    assert_equal(model, expected)


def test_frozen_stages_are_left_alone():
    model = PenaltyToyModel()
    model.backbone.res2.requires_grad_(False)
    frozen = model.backbone.res2[0].weight.clone()
    expected = reference(model, SGD)
    trainer = train(model, SGD(trained(model)), [OrthogonalRegularizer(COEFF)])
    assert_equal(model, expected)
    assert torch.equal(model.backbone.res2[0].weight, frozen)
    assert model.backbone.res2[0].weight.grad is None
    assert "ortho/res2" not in trainer.storage.histories()


def test_plain_detectron2_resnet_takes_it():
    stages = [
        ResNet.make_stage(BasicBlock, 1, in_channels=4, out_channels=4, norm="BN"),
        ResNet.make_stage(
            BasicBlock, 2, stride_per_block=[2, 1], in_channels=4, out_channels=8, norm="BN"
        ),
    ]
    model = PenaltyToyModel(
        backbone=ResNet(BasicStem(3, 4, norm="BN"), stages, out_features=["res3"])
    )
    expected = reference(model, SGD)
    train(model, SGD(trained(model)), [OrthogonalRegularizer(COEFF)])
    assert_equal(model, expected)


def distributed_steps(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    model = DistributedDataParallel(PenaltyToyModel())
    data = [images.chunk(2)[rank] for images in batches()]
    train(model, SGD(trained(model)), [OrthogonalRegularizer(COEFF)], data=data)
    torch.save(model.module.state_dict(), f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("fork_server")
def test_two_processes_step_as_one_on_the_joint_batch(tmp_path):
    expected = reference(PenaltyToyModel(), SGD)
    torch.multiprocessing.start_processes(distributed_steps, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        model = PenaltyToyModel()
        model.load_state_dict(torch.load(tmp_path / f"{rank}.pth"))
        assert_equal(model, expected)


class Failing(HookBase):
    def before_train(self):
        raise RuntimeError("before_train failed")

    def after_step(self):
        if self.trainer.iter == 0:
            raise RuntimeError("step failed")


@pytest.mark.parametrize("make", [SGD, functools.partial(with_scheduler, SGD)])
def test_optimizer_is_as_before_after_training_and_after_a_failure(make):
    model = PenaltyToyModel()
    optimizer = make(trained(model))
    before = dict(vars(optimizer))
    train(model, optimizer, [OrthogonalRegularizer(COEFF)])
    for hooks in ([Failing(), OrthogonalRegularizer(1.0)], [OrthogonalRegularizer(1.0), Failing()]):
        with pytest.raises(RuntimeError, match="before_train failed"):
            train(model, optimizer, hooks)
    assert vars(optimizer).get("step") is before.get("step")


def test_training_goes_on_after_a_step_that_raised():
    model = PenaltyToyModel()
    expected = reference(model, SGD)
    optimizer = SGD(trained(model))
    images = iter(batches())

    def fail_once(*_):
        handle.remove()
        raise RuntimeError("out of memory")

    handle = optimizer.register_step_pre_hook(fail_once)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(model, optimizer, [OrthogonalRegularizer(COEFF)], data=batches()[:1])
    train(model, optimizer, [OrthogonalRegularizer(COEFF)], data=list(images))
    assert_equal(model, expected)


def test_scheduler_made_during_training_keeps_nothing_of_the_hook():
    # detectron2's own LRScheduler hook may make its scheduler in before_train, after this hook's.
    class MakeScheduler(HookBase):
        def before_train(self):
            build_lr_scheduler(solver(), self.trainer.optimizer)

    model = PenaltyToyModel()
    expected = reference(model, SGD)
    optimizer = SGD(trained(model))
    train(model, optimizer, [OrthogonalRegularizer(COEFF), MakeScheduler()])
    assert_equal(model, expected)
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert all(p.grad is None for p in model.parameters())
