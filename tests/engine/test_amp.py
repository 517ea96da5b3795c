"""Half precision on a CPU, which follows the same rules as a GPU."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from d2_isonet import OrthogonalRegularizer, SReLU
from d2_isonet.config.loading import load_config
from d2_isonet.engine.train_loop import AccumulatingTrainer, build_step


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
        return AccumulatingTrainer(model, data, optimizer, device_type="cpu", **options)
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
    model.factor = 1e36  # overflows float32 after loss scaling
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


NARROW = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16",
          "MODEL.RESNETS.STEM_OUT_CHANNELS", "16", "MODEL.BACKBONE.FREEZE_AT", "0"]  # fmt: skip


def losses_of_two_steps(name: str, batch: list[dict], precision: str, *opts: str) -> torch.Tensor:
    torch.manual_seed(0)
    amp = ["SOLVER.AMP.ENABLED", str(bool(precision))]
    amp += ["SOLVER.AMP.PRECISION", precision] if precision else []
    cfg = load_config(f"configs/{name}.yaml", [*NARROW, *opts, *amp])
    model = build_model(cfg)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    trainer = build_step(cfg, model, [batch] * 9, optimizer)
    assert trainer.precision == precision
    trainer.register_hooks([OrthogonalRegularizer(1e-4)])
    trainer.train(0, 2)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    return torch.tensor([v for v, _ in trainer.storage.history("total_loss").values()])


@pytest.mark.parametrize("head", ["c4", "dc5", "fpn"])
def test_mask_rcnn_has_the_same_loss_in_bfloat16(head, coco_batch):
    opts = ["MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.FPN.OUT_CHANNELS", "32",
            "MODEL.RPN.CONV_DIMS", "[32]", "MODEL.ROI_BOX_HEAD.FC_DIM", "64",
            # no proposals but the ground truth: which ones survive NMS is no matter of precision
            "MODEL.RPN.POST_NMS_TOPK_TRAIN", "0"]  # fmt: skip
    runs = [
        losses_of_two_steps(f"risonet18_{head}", coco_batch, precision, *opts)
        for precision in ("", "bfloat16")
    ]
    torch.testing.assert_close(runs[1], runs[0], rtol=5e-3, atol=0)


def test_a_classifier_has_the_same_loss_in_bfloat16():
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    batch = [{"image": image, "label": i} for i, image in enumerate(images)]
    opts = ["MODEL.CLASSIFIER.NUM_CLASSES", "4", "MODEL.CLASSIFIER.DROPOUT", "0.0"]
    runs = [
        losses_of_two_steps("imagenet/risonet18", batch, precision, *opts)
        for precision in ("", "bfloat16")
    ]
    torch.testing.assert_close(runs[1], runs[0], rtol=2e-2, atol=0)


def test_float16_on_a_cpu_trains_in_float32_and_names_bfloat16(caplog):
    opts = ["SOLVER.AMP.ENABLED", "True", "MODEL.DEVICE", "cpu"]
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = build_step(load_config("", opts), model, [], optimizer)
    assert trainer.precision == "" and not trainer.grad_scaler.is_enabled()
    assert "'float16' needs a GPU: training in float32; a CPU has 'bfloat16'" in caplog.text
