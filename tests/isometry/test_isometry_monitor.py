"""The monitor writes what is true and changes nothing: not a bit of a weight or a loss."""

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm
from toy_training import SGD, PenaltyToyModel, batches, train, trained

from d2_isonet.config.loading import load_config
from d2_isonet.engine.hooks.averaging import averaging_of
from d2_isonet.engine.trainer import Trainer
from d2_isonet.isometry.measures import possible_singular_values, shifts_by_stage
from d2_isonet.isometry.monitor import IsometryMonitor

OPTIONS = {
    "alone": [],
    "bfloat16": ["SOLVER.AMP.ENABLED=True", "SOLVER.AMP.PRECISION=bfloat16"],
    "average of weights": ["SOLVER.EMA_DECAY=0.9"],
    "in two parts": ["SOLVER.ACCUMULATE_STEPS=2"],
    "recomputed": ["MODEL.BACKBONE.CHECKPOINTING=True"],
    "BN": ["MODEL.RESNETS.NORM=BN"],
}


class TinyTrainer(Trainer):
    """R-ISONet-18, 4 channels wide, on 4 images of noise."""

    @classmethod
    def build_train_loader(cls, cfg):
        torch.manual_seed(1)
        pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        batch = [{"image": x, "label": i} for i, x in enumerate(pixels)]
        return [batch] * (cfg.SOLVER.MAX_ITER + 1)

    @classmethod
    def build_model(cls, cfg):
        torch.manual_seed(0)
        return super().build_model(cfg)


class Losses(HookBase):
    def __init__(self):
        self.values = []

    def after_step(self):
        self.values.append(self.trainer.storage.latest()["total_loss"][0])


def trained_tiny(folder, *opts: str, resume: bool = False):
    """(trainer, losses) of three iterations."""
    folder.mkdir(exist_ok=True)
    cfg = load_config("configs/imagenet/risonet18.yaml", [
        "MODEL.DEVICE=cpu", "MODEL.CLASSIFIER.NUM_CLASSES=4", "MODEL.RESNETS.STEM_OUT_CHANNELS=4",
        "MODEL.RESNETS.RES2_OUT_CHANNELS=4", "SOLVER.MAX_EPOCHS=0", "SOLVER.MAX_ITER=3",
        "SOLVER.IMS_PER_BATCH=4", "SOLVER.REFERENCE_WORLD_SIZE=0", "SOLVER.WARMUP_ITERS=0",
        "SOLVER.STEPS=()", "SOLVER.BASE_LR=0.01", "SEED=3",
        "DATASETS.TEST=()", f"OUTPUT_DIR={folder}", *opts,
    ])  # fmt: skip
    trainer, losses = TinyTrainer(cfg), Losses()
    trainer.register_hooks([losses])
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer, losses.values


def assert_same(one, other):
    assert one[1] == other[1] and len(one[1]) > 0
    states = one[0].model.state_dict(), other[0].model.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_is_the_same_to_the_bit_with_it(options, tmp_path):
    without = trained_tiny(tmp_path / "without", *options)
    watched = trained_tiny(tmp_path / "watched", "TEST.ISOMETRY_PERIOD=1", *options)
    assert_same(without, watched)
    logged = watched[0].storage.latest()
    expected = ("rms/res5.1", "gradient/stem", "shift_mean/res2", "residual_scale/res2.0",
                "near_one/res4")  # fmt: skip
    assert {f"isometry/{name}" for name in expected} <= logged.keys()
    assert not any(name.startswith("isometry") for name in without[0].storage.latest())
    assert not any(m._forward_hooks for m in watched[0].model.modules())


def test_a_resumed_training_is_watched_at_the_same_iterations(tmp_path):
    whole = trained_tiny(tmp_path / "whole", "TEST.ISOMETRY_PERIOD=2", "SOLVER.MAX_ITER=5")
    trained_tiny(tmp_path / "parts", "TEST.ISOMETRY_PERIOD=2", "SOLVER.CHECKPOINT_PERIOD=3")
    options = ["TEST.ISOMETRY_PERIOD=2", "SOLVER.MAX_ITER=5"]
    resumed = trained_tiny(tmp_path / "parts", *options, resume=True)
    assert resumed[0].start_iter == 3 and resumed[1] == whole[1][3:]
    name = "isometry/singular_value_max/res3"
    at = [[i for _, i in x[0].storage.history(name).values()] for x in (whole, resumed)]
    assert at == [[0, 2, 4], [4]]
    assert resumed[0].storage.latest()[name] == whole[0].storage.latest()[name]


def test_tensorboard_gets_scalars_and_histograms(tmp_path):
    trainer, _ = trained_tiny(tmp_path, "TEST.ISOMETRY_PERIOD=2", "MODEL.ISONET.RESIDUAL_SCALE=0.5")
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0})
    events.Reload()
    found = [x.step for x in events.Scalars("isometry/singular_value_max/res2")]
    assert found == [2]  # detectron2's writers take the last value of 20 iterations
    tags = events.Tags()["histograms"]
    assert {"isometry/singular_values/res2", "isometry/shifts/res2"} <= set(tags)
    last = events.Histograms("isometry/shifts/res2")[-1]
    shifts = shifts_by_stage(trainer.model.state_dict())["res2"]
    assert (last.step, last.histogram_value.num) == (2, len(shifts))
    assert last.histogram_value.sum == pytest.approx(shifts.sum().item(), rel=1e-5)


def test_what_is_logged_are_the_model_s_numbers(tmp_path):
    trainer, _ = trained_tiny(tmp_path, "TEST.ISOMETRY_PERIOD=2", "SOLVER.EMA_DECAY=0.5")
    logged = {name: value for name, (value, _) in trainer.storage.latest().items()}
    stage = trainer.model.backbone.res3
    convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
    values = torch.cat([possible_singular_values(conv, 2) for conv in convs])
    assert logged["isometry/singular_value_min/res3"] == values.min().item()
    assert logged["isometry/singular_value_max/res3"] == values.max().item()
    scale = stage[1].residual_scale.abs().item()
    assert logged["isometry/residual_scale/res3.1"] == scale > 0
    average = averaging_of(trainer).model.backbone.res3[1].residual_scale.abs().item()
    assert average != scale


def signals_of(model, trainer_class=SimpleTrainer, **attributes):
    """RMS and gradient norms of one step of a trainer with such attributes."""
    trainer = trainer_class(model, batches()[:1], SGD(trained(model)))
    vars(trainer).update(attributes)
    trainer.register_hooks([IsometryMonitor(1)])
    trainer.train(0, 1)
    latest = trainer.storage.latest()
    return {k: v for k, (v, _) in latest.items() if "/rms/" in k or "/gradient/" in k}


def test_norms_are_those_of_the_training_step():
    model, (images, *_) = PenaltyToyModel(), batches()
    seen = {}
    model.backbone.res2[0].register_forward_hook(lambda m, a, y: seen.update(y=y))
    (gradient,) = torch.autograd.grad(model(images)["loss_toy"], seen["y"])
    found = signals_of(PenaltyToyModel())
    name = "res2.0"
    assert found[f"isometry/rms/{name}"] == pytest.approx(seen["y"].square().mean().sqrt().item())
    assert found[f"isometry/gradient/{name}"] == pytest.approx(gradient.norm().item())


def test_the_loss_scale_of_float16_is_taken_out():
    class Scaled(SimpleTrainer):
        grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

        def run_step(self):
            self.grad_scaler.scale(self.model(next(self._data_loader_iter))["loss_toy"]).backward()

    expected, found = signals_of(PenaltyToyModel()), signals_of(PenaltyToyModel(), Scaled)
    assert found.keys() == expected.keys() and found == pytest.approx(expected)


def test_a_model_within_ddp_is_watched_as_without(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = signals_of(DistributedDataParallel(PenaltyToyModel()))
    finally:
        torch.distributed.destroy_process_group()
    assert found == pytest.approx(signals_of(PenaltyToyModel()))


def test_a_frozen_stage_has_no_gradient():
    model = PenaltyToyModel()
    model.backbone.stem.requires_grad_(False)
    assert not any("gradient/stem" in name for name in signals_of(model))


def test_a_step_that_raises_leaves_no_hooks():
    class Raising(SimpleTrainer):
        def run_step(self):
            raise RuntimeError("out of memory")

    model = PenaltyToyModel()
    with pytest.raises(RuntimeError, match="out of memory"):
        signals_of(model, Raising)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_compiled_network_is_not_hooked():
    model = PenaltyToyModel()
    model.backbone._compiled_call_impl = model.backbone._call_impl
    assert signals_of(model) == {}


def test_a_computed_weight_is_not_looked_at():
    # spectral norm goes on with its power iteration whenever the weight is asked for
    model = PenaltyToyModel()
    model.backbone.res2[0] = spectral_norm(model.backbone.res2[0])
    trainer = train(model, SGD(trained(model)), [IsometryMonitor(1)])
    names = [n for n in trainer.storage.latest() if n.startswith("isometry/near_one")]
    assert names == ["isometry/near_one/res3"]


def test_a_weight_that_is_not_finite_does_not_end_the_training():
    model = PenaltyToyModel()
    nn.init.constant_(model.backbone.res2[0].weight, float("inf"))
    trainer = SimpleTrainer(model, batches()[:1], SGD(trained(model)))
    trainer.run_step = lambda: None
    trainer.register_hooks([IsometryMonitor(1)])
    trainer.train(0, 1)
    largest = trainer.storage.latest()["isometry/singular_value_max/res2"][0]
    assert largest != largest
    assert not any(h["tag"].endswith("/res2") for h in trainer.storage._histograms)


def test_a_model_without_convolutions_is_trained_all_the_same():
    model = nn.Linear(9, 1).double()
    trainer = SimpleTrainer(model, [torch.ones(2, 9).double()], SGD(trained(model)))
    trainer.model.forward = lambda x: {"loss": nn.functional.linear(x, model.weight).mean()}
    trainer.register_hooks([IsometryMonitor(1)])
    trainer.train(0, 1)
    assert not any(name.startswith("isometry") for name in trainer.storage.latest())


def test_a_negative_period_is_refused_by_its_key():
    with pytest.raises(ValueError, match="TEST.ISOMETRY_PERIOD is -1; it must be 0"):
        IsometryMonitor(-1)
