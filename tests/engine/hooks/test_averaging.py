"""The average of the weights: its value, evaluation, files and resume."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from small_runs import load, run, small_config, trainer_class, weights

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
from d2_isonet.config.loading import load_config
from d2_isonet.engine.hooks.averaging import WeightAveraging, averaging_of
from d2_isonet.engine.pretraining import BackboneWriter
from d2_isonet.modeling.execution import set_execution
from d2_isonet.utils.files import SaveError

EMA = ("SOLVER.EMA_DECAY", "0.5")


class Recording(trainer_class()):
    """Keeps the weights after each step."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.seen = []

    def after_step(self):
        self.seen.append(weights(self.model))
        super().after_step()


def test_the_average_is_that_of_the_definition(tmp_path):
    trainer = run(small_config(tmp_path, *EMA), Recording)
    expected = trainer.seen[0]
    for step in trainer.seen[1:]:
        expected = [0.5 * a + 0.5 * b for a, b in zip(expected, step, strict=True)]
    for a, b in zip(weights(averaging_of(trainer).model), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_averaging_does_not_change_the_training(tmp_path):
    without = run(small_config(tmp_path / "a"))
    with_it = run(small_config(tmp_path / "b", *EMA))
    for a, b in zip(weights(without.model), weights(with_it.model), strict=True):
        assert torch.equal(a, b)


def test_the_average_is_what_is_evaluated(tmp_path):
    trainer = run(small_config(tmp_path, *EMA, "TEST.EVAL_PERIOD", "2"), trainer_class())
    assert len(trainer.evaluated) == 3
    assert torch.equal(trainer.evaluated[-1], weights(averaging_of(trainer).model)[0])
    assert not torch.equal(trainer.evaluated[-1], weights(trainer.model)[0])


def test_a_resumed_average_is_bit_by_bit_the_uninterrupted_one(tmp_path):
    whole = run(small_config(tmp_path / "whole", *EMA))
    run(small_config(tmp_path / "parts", *EMA, "SOLVER.MAX_ITER", "3"))
    resumed = run(small_config(tmp_path / "parts", *EMA), resume=True)
    assert resumed.start_iter == 3
    for a, b in zip(*(weights(averaging_of(x).model) for x in (resumed, whole)), strict=True):
        assert torch.equal(a, b)


def test_the_average_is_written_as_weights_that_load_strictly(tmp_path):
    trainer = run(small_config(tmp_path, *EMA))
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    other = trainer.build_model(trainer.cfg)
    ISONetCheckpointer(other, strict=True).load(str(tmp_path / "model_final_ema.pth"))
    for a, b in zip(weights(other), weights(averaging_of(trainer).model), strict=True):
        assert torch.equal(a, b)


def test_a_run_that_begins_to_average_when_resumed_starts_from_its_weights(tmp_path):
    run(small_config(tmp_path, "SOLVER.MAX_ITER", "5"))
    resumed = run(small_config(tmp_path, *EMA), resume=True)
    for a, b in zip(weights(resumed.model), weights(averaging_of(resumed).model), strict=True):
        assert torch.equal(a, b)


def test_statistics_of_a_batch_norm_are_the_models(tmp_path):
    trainer = run(small_config(tmp_path, *EMA, "MODEL.RESNETS.NORM", "BN"))
    content = load(tmp_path / "model_final_ema.pth")["model"]
    name = "backbone.1.running_var"
    assert torch.equal(content[name], trainer.model.state_dict()[name])
    assert not torch.equal(content["backbone.1.weight"], trainer.model.backbone[1].weight)


def test_no_average_is_written_of_a_training_that_failed(tmp_path):
    class Failing(trainer_class()):
        def run_step(self):
            if self.iter == 3:
                raise RuntimeError("some cause")
            super().run_step()

    with pytest.raises(RuntimeError, match="some cause"):
        run(small_config(tmp_path, *EMA), Failing)
    assert not (tmp_path / "model_final_ema.pth").exists()


def test_the_average_at_the_end_waits_for_room(tmp_path, monkeypatch):
    waited, save = [], WeightAveraging.save
    monkeypatch.setattr("d2_isonet.utils.files.time.sleep", waited.append)

    def save_or_not(self, name):
        if not waited:
            raise SaveError(f"{name}.pth was not written")
        save(self, name)

    monkeypatch.setattr(WeightAveraging, "save", save_or_not)
    run(small_config(tmp_path, *EMA))
    assert waited == [60.0] and (tmp_path / "model_final_ema.pth").is_file()


def test_an_averaged_network_that_recomputes_its_blocks_uses_its_own_weights():
    from d2_isonet.modeling.backbone.resnet import make_isonet_stage

    block = torch.nn.Sequential(
        *make_isonet_stage(2, 18, stem_out_channels=4, res2_out_channels=4, residual_scale=1.0)
    )
    set_execution(block, checkpointing=True)
    averaging = WeightAveraging(block, 0.9, ISONetCheckpointer)
    x = torch.randn(1, 4, 8, 8)
    before = averaging.model(x)
    with torch.no_grad():
        for p in block.parameters():
            p.add_(1.0)
    assert torch.equal(averaging.model(x), before)


def test_pretraining_writes_both_backbones_and_the_accuracy_of_the_average(tmp_path):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.NUM_CLASSES", "3", "OUTPUT_DIR",
            str(tmp_path), "MODEL.RESNETS.STEM_OUT_CHANNELS", "8",
            "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"]  # fmt: skip
    cfg = load_config("configs/imagenet/risonet18.yaml", opts)
    model = build_model(cfg)
    averaging = WeightAveraging(model, 0.9, ISONetCheckpointer)
    with torch.no_grad():
        model.backbone.stem.conv1.weight.add_(1.0)
    writer = BackboneWriter(cfg, period=1)
    writer.trainer = SimpleNamespace(
        checkpointer=SimpleNamespace(model=model),
        _hooks=[averaging],
        _last_eval_results={"classification": {"top1": 70.0}},
    )
    writer._write(10)
    files = [load(tmp_path / name) for name in ("backbone.pth", "backbone_ema.pth")]
    assert [file["meta"]["accuracy"] for file in files] == [{}, {"top1": 70.0}]
    raw, average = (file["model"]["stem.conv1.weight"] for file in files)
    torch.testing.assert_close(raw, average + 1.0)
    detector = load_config("configs/risonet18_fpn.yaml", opts)
    detector = build_model(detector)
    ISONetCheckpointer(detector).load(str(tmp_path / "backbone_ema.pth"), [])
    assert torch.equal(detector.backbone.bottom_up.stem.conv1.weight, average)
