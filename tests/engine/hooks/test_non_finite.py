"""Steps with a loss or gradient that is not finite: report, kept state, and recovery."""

import json
import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from small_runs import (
    black,
    blinding,
    load,
    raising,
    run,
    small_config,
    trainer_class,
    weights,
)
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.distributed.launch import launch
from d2_isonet.engine.hooks.averaging import averaging_of
from d2_isonet.engine.hooks.non_finite import NonFiniteRecovery, non_finite_tensors
from d2_isonet.engine.hooks.non_finite_layer import find_non_finite_layer
from d2_isonet.engine.train_loop import AccumulatingTrainer, NonFiniteError, check_gradients
from d2_isonet.utils.files import SaveError

SKIP = ("SOLVER.NON_FINITE.ACTION", "skip")
ROLLBACK = ("SOLVER.NON_FINITE.ACTION", "rollback")


def facts_of(folder, iteration: int) -> dict:
    return json.loads((folder / f"non_finite_{iteration:07d}.json").read_text())


@pytest.mark.parametrize(
    ("spoil", "what", "layer"),
    [
        (blinding, "the loss is not finite", "the output of backbone.0 (Conv2d)"),
        (
            black,
            "the gradient is not finite",
            "the output of backbone.0 (Conv2d), as backbone.2 hands it back",
        ),
        (raising, "contain Inf/NaN", "none, but the model said: Predicted boxes"),
    ],
)
def test_a_failed_step_names_layer_images_rate_iteration_and_checkpoint(
    spoil, what, layer, tmp_path
):
    with pytest.raises(NonFiniteError) as error:
        run(small_config(tmp_path), trainer_class(spoilt={(3, 1): spoil}))
    message = str(error.value)
    parts = ["Iteration 3: ", what, layer, f"{spoil.__name__}.jpg", "learning rate: 0.005"]
    for part in [*parts, "last good checkpoint: ", "model_0000001.pth", "Lower SOLVER.BASE_LR"]:
        assert part in message, message
    facts = facts_of(tmp_path, 3)
    assert (facts["iteration"], facts["learning_rate"]) == (3, pytest.approx(0.005))
    assert f"{spoil.__name__}.jpg" in facts["processes"][0]["images"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_of_a_batch_in_parts_only_the_part_that_failed_is_named(tmp_path):
    cfg = small_config(tmp_path, "SOLVER.ACCUMULATE_STEPS", "2")
    with pytest.raises(NonFiniteError):
        run(cfg, trainer_class(spoilt={(3, 2): blinding}))
    assert facts_of(tmp_path, 3)["processes"][0]["images"] == ["blinding.jpg", "0_3.jpg"]


def test_weights_stay_as_the_last_good_step_left_them(tmp_path):
    class Keeping(trainer_class(spoilt={(4, 0): black})):
        def after_step(self):
            super().after_step()
            self.kept = weights(self.model)

    trainer = Keeping(small_config(tmp_path))
    with pytest.raises(NonFiniteError):
        trainer.train()
    for a, b in zip(weights(trainer.model), trainer.kept, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("spoil", "norm"), [(blinding, ""), (black, ""), (raising, ""), (blinding, "BN")]
)
def test_a_skipped_step_is_as_if_it_were_not(spoil, norm, tmp_path, caplog):
    class Without(trainer_class()):
        def run_step(self):
            if self.iter != 3:
                super().run_step()

        @classmethod
        def build_train_loader(cls, cfg):
            batches = super().build_train_loader(cfg)
            return batches[:3] + batches[4:]

    opts = ("MODEL.RESNETS.NORM", norm)
    expected = run(small_config(tmp_path / "without", *opts), Without)
    skipping = trainer_class(spoilt={(3, 1): spoil})
    trainer = run(small_config(tmp_path / "with", *opts, *SKIP), skipping)
    for (name, a), b in zip(
        trainer.model.state_dict().items(), expected.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert f"{spoil.__name__}.jpg" in caplog.text and "The step is skipped" in caplog.text


def test_more_failures_after_a_checkpoint_than_the_limit_stop(tmp_path):
    opts = (*SKIP, "SOLVER.NON_FINITE.LIMIT", "1", "SOLVER.CHECKPOINT_PERIOD", "4")
    spoilt = {(1, 0): black, (2, 0): black}
    with pytest.raises(NonFiniteError, match=r"1 were tolerated \(SOLVER.NON_FINITE.LIMIT\)"):
        run(small_config(tmp_path, *opts), trainer_class(spoilt=spoilt))


def test_a_new_checkpoint_starts_the_count_anew(tmp_path):
    opts = (*SKIP, "SOLVER.NON_FINITE.LIMIT", "1")
    spoilt = {(1, 0): black, (3, 0): black, (5, 0): black}
    assert run(small_config(tmp_path, *opts), trainer_class(spoilt=spoilt)).iter == 6


def test_rolling_back_takes_weights_momentum_and_average_of_the_checkpoint(tmp_path):
    opts = (*ROLLBACK, "SOLVER.EMA_DECAY", "0.5", "SOLVER.CHECKPOINT_PERIOD", "3")
    trainer = trainer_class(spoilt={(4, 1): blinding})(small_config(tmp_path, *opts))
    recovered = []
    recovery = trainer._hooks[0]
    roll_back = recovery._roll_back

    def record(checkpoint):
        roll_back(checkpoint)
        optimizer = trainer._trainer.optimizer
        recovered.append(
            {
                "weights": weights(trainer.model),
                "momentum": [s["momentum_buffer"].clone() for s in optimizer.state.values()],
                "average": weights(averaging_of(trainer).model),
                "rate": optimizer.param_groups[0]["lr"],
                "checkpoint": checkpoint,
            }
        )

    recovery._roll_back = record
    trainer.train()
    (found,) = recovered
    content = load(found["checkpoint"])
    assert found["checkpoint"].endswith("model_0000002.pth")
    saved = content["trainer"]
    momentum = [s["momentum_buffer"] for s in saved["_trainer"]["optimizer"]["state"].values()]
    average = saved["hooks"]["WeightAveraging"]
    names = [name for name, _ in trainer.model.named_parameters()]
    for a, name in zip(found["weights"], names, strict=True):
        assert torch.equal(a, content["model"][name])
    for a, b in zip(found["momentum"], momentum, strict=True):
        assert torch.equal(a, b)
    for a, name in zip(found["average"], names, strict=True):
        assert torch.equal(a, average[f"module.{name}"])
    assert found["rate"] == pytest.approx(0.005)  # the rate of iteration 4, not of the checkpoint
    assert trainer.iter == 6


def test_there_must_be_a_checkpoint_to_roll_back_to(tmp_path):
    with pytest.raises(NonFiniteError, match="no checkpoint to roll back to yet"):
        run(small_config(tmp_path, *ROLLBACK), trainer_class(spoilt={(1, 0): black}))


class Spoiling(trainer_class()):
    """The step of iteration 3 leaves weights that are not finite."""

    def run_step(self):
        super().run_step()
        if self.iter == 3 and not hasattr(self, "done"):
            self.done = True
            with torch.no_grad():
                next(self.model.parameters())[0] = math.inf


def test_no_checkpoint_is_written_of_weights_that_are_not_finite(tmp_path):
    with pytest.raises(NonFiniteError, match="the weights are not finite .*backbone.0"):
        run(small_config(tmp_path), Spoiling)
    assert not (tmp_path / "model_0000003.pth").exists()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_weights_that_are_not_finite_are_rolled_back_before_they_are_saved(tmp_path):
    run(small_config(tmp_path, *ROLLBACK), Spoiling)
    content = [load(tmp_path / f"model_{i:07d}.pth")["model"] for i in (1, 3)]
    for name in content[0]:
        assert torch.equal(content[0][name], content[1][name])


FAILURES = [  # the images 0 and 1 belong to the first process
    (raising, "stop", 2),
    (raising, "skip", 2),
    (blinding, "rollback", 0),
    (black, "skip", 2),
]


def fail_on_one_process(output_dir) -> None:
    for i, (spoil, action, index) in enumerate(FAILURES):
        cfg = small_config(output_dir / str(i), "SOLVER.NON_FINITE.ACTION", action)
        trainer = trainer_class(spoilt={(3, index): spoil})(cfg)
        if action == "stop":
            with pytest.raises(NonFiniteError, match=f"{spoil.__name__}.jpg"):
                trainer.train()
            continue
        trainer.train()
        every = comm.all_gather(weights(trainer.model))
        assert all(torch.equal(a, b) for a, b in zip(*every, strict=True))


@pytest.mark.usefixtures("fork_server")
def test_all_processes_decide_alike(tmp_path):
    launch(fail_on_one_process, 2, args=(tmp_path,))
    for i, (_, _, index) in enumerate(FAILURES):
        processes = facts_of(tmp_path / str(i), 3)["processes"]
        found = ["layer" in own or "raised" in own for own in processes]
        assert found == [index < 2, index >= 2], processes


def amp_trainer(model, precision: str) -> AccumulatingTrainer:
    data = [torch.ones(1, 2)] * 40
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return AccumulatingTrainer(model, data, optimizer, precision=precision, device_type="cpu")


class Steep(nn.Module):
    """The gradient is `slope`, in float32."""

    def __init__(self, slope: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.slope = slope

    def forward(self, x):
        return {"loss": (self.weight * self.slope).sum() * 1.0}


def test_an_overflow_that_scaling_causes_is_no_failure():
    trainer = amp_trainer(Steep(1e36), "float16")
    trainer.train(0, 6)
    assert trainer.grad_scaler.get_scale() < 65536


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_gradient_that_no_scaling_mends_is_a_failure(precision):
    trainer = amp_trainer(Steep(math.inf), precision)
    trainer.model.forward = lambda x: {"loss": (trainer.model.weight.sqrt()).sum()}
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        trainer.train(0, 40)
    assert trainer.iter == (0 if precision == "bfloat16" else 17)  # 65536 halved to below 1


def test_a_plain_simple_step_raises_without_any_hook():
    model = Steep(math.nan)
    trainer = AccumulatingTrainer(model, [torch.ones(1)], torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        trainer.train(0, 1)


def test_large_finite_gradients_pass():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full((2,), 3e38)  # the square overflows
    check_gradients(torch.optim.SGD([parameter], 0.1))
    parameter.grad[1] = math.nan
    with pytest.raises(NonFiniteError):
        check_gradients(torch.optim.SGD([parameter], 0.1))


def test_tensors_that_are_not_finite_are_named_in_order():
    tensors = {"a": torch.ones(2), "b": torch.tensor([1.0, math.inf]), "c": None,
               "d": torch.tensor([3]), "e": torch.tensor(math.nan).double()}  # fmt: skip
    assert non_finite_tensors(tensors) == ["b", "e"]


def test_pixels_that_are_not_finite_are_the_images_fault():
    model = nn.Conv2d(3, 1, 3)
    model.forward = lambda batch: {"loss": sum(x["image"].sum() for x in batch) * model.weight[0]}
    batch = [{"image": torch.ones(3, 4, 4), "file_name": "good.jpg"},
             {"image": torch.full((3, 4, 4), math.nan), "file_name": "bad.jpg"}]  # fmt: skip
    step = AccumulatingTrainer(model, [batch], torch.optim.SGD(model.parameters(), 0.1))
    found = find_non_finite_layer(step, batch)
    assert (found["layer"], found["images"]) == ("input", ["bad.jpg"])


def test_looking_for_the_layer_changes_nothing(tmp_path):
    cfg = small_config(tmp_path, "MODEL.RESNETS.NORM", "BN")
    trainer = trainer_class()(cfg)
    nn.init.zeros_(trainer.model.backbone[1].weight)
    batch = trainer._trainer.data_loader[0]
    before = {n: x.clone() for n, x in trainer.model.state_dict().items()}
    generator = torch.get_rng_state()
    found = find_non_finite_layer(trainer._trainer, batch)
    assert (found["layer"], found["last_finite"]) == ("backbone.1", "backbone.2")
    assert torch.equal(torch.get_rng_state(), generator)
    for name, x in trainer.model.state_dict().items():
        assert torch.equal(x, before[name]), name
    assert all(p.grad is None for p in trainer.model.parameters())
    assert not any(m._forward_hooks for m in trainer.model.modules())


NARROW = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8",
          "MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "MODEL.WEIGHTS", ""]  # fmt: skip


@pytest.mark.parametrize(
    ("config_file", "opts", "layer"),
    [
        ("imagenet/risonet18", ["MODEL.CLASSIFIER.NUM_CLASSES", "3"], "backbone.res4.1.conv1"),
        ("risonet18_fpn", ["MODEL.FPN.OUT_CHANNELS", "16"], "backbone.bottom_up.res4.1.conv1"),
        ("risonet18_fpn", ["MODEL.FPN.OUT_CHANNELS", "16"], "proposal_generator.rpn_head.conv"),
        ("risonet18_c4", [], "roi_heads.res5.1.conv1"),
    ],
)
def test_the_layer_is_found_in_classifiers_and_detectors(config_file, opts, layer, coco_batch):
    cfg = load_config(f"configs/{config_file}.yaml", [*NARROW, *opts])
    model = build_model(cfg)
    with torch.no_grad():
        model.get_submodule(layer).weight.fill_(math.inf)
    batch = [{**coco_batch[0], "label": 1, "file_name": "0.jpg"}]
    step = AccumulatingTrainer(model, [batch], torch.optim.SGD(model.parameters(), 0.1))
    with EventStorage():
        with pytest.raises(NonFiniteError):
            step._forward_and_backward(batch)
        found = find_non_finite_layer(step, batch)
    assert (found["layer"], found["images"]) == (layer, ["0.jpg"])


def test_a_penalty_that_overflows_is_a_failed_step_too(tmp_path):
    class Growing(trainer_class()):
        def run_step(self):
            if self.iter == 3 and not hasattr(self, "done"):
                self.done = True
                with torch.no_grad():  # losses stay finite, but the penalty is a fourth power
                    next(self.model.parameters()).mul_(1e90)
            super().run_step()

    trainer = run(small_config(tmp_path, *ROLLBACK), Growing)
    assert "orthogonal penalty of backbone.0" in facts_of(tmp_path, 3)["processes"][0]["reason"]
    assert trainer.iter == 6
    assert weights(trainer.model)[0].abs().max() < 10


def test_a_disk_that_is_full_does_not_hide_the_failure(tmp_path, monkeypatch):
    def full(path, text):
        raise SaveError(f"{path} could not be written: No space left on device")

    monkeypatch.setattr("d2_isonet.engine.hooks.non_finite.write_text", full)
    with pytest.raises(NonFiniteError, match="backbone.0(.|\n)*all facts: .*json could not be wr"):
        run(small_config(tmp_path), trainer_class(spoilt={(3, 1): blinding}))


def test_an_unknown_action_is_named_with_the_choices(tmp_path):
    with pytest.raises(ValueError, match="ACTION is 'rolback'.*did you mean rollback"):
        NonFiniteRecovery(str(tmp_path), "rolback")
