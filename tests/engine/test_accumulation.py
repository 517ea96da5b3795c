"""A batch in parts equals the whole batch: classifier, detector, processes, clipping."""

import json

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from small_runs import SmallTrainer, run, small_config, weights
from torch.nn.parallel import DistributedDataParallel

from d2_isonet import OrthogonalRegularizer
from d2_isonet.config.loading import load_config
from d2_isonet.distributed.launch import launch
from d2_isonet.engine.train_loop import AccumulatingTrainer, parts_of
from d2_isonet.solver.build import build_optimizer

NARROW = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8",
          "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "number", "sizes"), [(8, 4, [2] * 4), (5, 2, [2, 3]), (2, 4, [1, 1]), (3, 1, [3])]
)
def test_parts_are_the_batch_in_order(images, number, sizes):
    parts = parts_of(list(range(images)), number)
    assert [len(part) for part in parts] == sizes
    assert sum(parts, []) == list(range(images))


def classifier_losses(name: str, accumulate_steps: int, dtype: torch.dtype) -> torch.Tensor:
    """The losses of eight steps on 8 images, with momentum, penalty and clipping."""
    torch.manual_seed(0)
    opts = ["MODEL.CLASSIFIER.NUM_CLASSES", "5", "MODEL.CLASSIFIER.DROPOUT", "0.0",
            "SOLVER.BASE_LR", "0.05", "SOLVER.CLIP_GRADIENTS.ENABLED", "True"]  # fmt: skip
    cfg = load_config(f"configs/imagenet/{name}.yaml", [*NARROW, *opts])
    model = build_model(cfg).to(dtype)
    pixels = torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8)
    data = [[{"image": x, "label": i % 5} for i, x in enumerate(batch)] for batch in pixels] * 4
    optimizer = build_optimizer(cfg, model)
    trainer = AccumulatingTrainer(model, data, optimizer, accumulate_steps=accumulate_steps)
    losses = []
    trainer._write_metrics = lambda parts, _: losses.append(sum(parts.values()))
    trainer.register_hooks([OrthogonalRegularizer(1e-3)])
    trainer.train(0, len(data))
    return torch.stack(losses)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_norm_free_classifier_trains_as_with_the_whole_batch(dtype, tolerance):
    whole, parts = (classifier_losses("risonet18", n, dtype) for n in (1, 4))
    assert whole[0] - whole[-1] > 0.1  # it learns
    torch.testing.assert_close(parts, whole, rtol=0, atol=tolerance)


def test_with_batch_norm_parts_are_another_training():
    whole, parts = (classifier_losses("resnet18", n, torch.float64) for n in (1, 4))
    assert (whole - parts).abs().max() > 0.1


def proposal_losses(batch: list, accumulate_steps: int) -> dict:
    torch.manual_seed(0)
    opts = ["MODEL.META_ARCHITECTURE", "ProposalNetwork", "MODEL.WEIGHTS", "",
            "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.BACKBONE.FREEZE_AT", "0"]  # fmt: skip
    model = build_model(load_config("configs/risonet18_fpn.yaml", [*NARROW, *opts]))
    trainer = AccumulatingTrainer(
        model, [batch], torch.optim.SGD(model.parameters(), 0.1), accumulate_steps=accumulate_steps
    )
    torch.manual_seed(1)  # for the sampled anchors
    with EventStorage():
        return trainer._forward_and_backward(batch)


def test_a_proposal_networks_losses_are_means_over_images_of_one_size(coco_batch):
    first = coco_batch[0]
    second = {**first, "image": first["image"].flip(2)}
    whole, parts = (proposal_losses([first, second], n) for n in (1, 2))
    assert set(whole) == {"loss_rpn_cls", "loss_rpn_loc"}
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("option", ["CLIP_GRADIENTS.ENABLED True", "OPTIMIZER Adam"])
def test_the_trainer_takes_the_same_steps_in_parts(option, tmp_path):
    opts = f"SOLVER.{option}".split()
    whole = run(small_config(tmp_path / "whole", *opts))
    parts = run(small_config(tmp_path / "parts", *opts, "SOLVER.ACCUMULATE_STEPS", "2"))
    for a, b in zip(weights(parts.model), weights(whole.model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    first, second = (
        json.loads((tmp_path / name / "metrics.json").read_text().splitlines()[0])["total_loss"]
        for name in ("whole", "parts")
    )
    assert first == pytest.approx(second, rel=1e-10)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_takes_parts_too(precision):
    def step(accumulate_steps):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
        model.forward = lambda x: {"loss": model[0](x).float().square().mean()}
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        trainer = AccumulatingTrainer(
            model, [x], torch.optim.SGD(model.parameters(), 0.1), precision=precision,
            device_type="cpu", accumulate_steps=accumulate_steps,
        )  # fmt: skip
        with EventStorage():
            trainer.iter = 0
            trainer.run_step()
        return model[0].weight.detach()

    torch.testing.assert_close(step(4), step(1), rtol=2e-2, atol=2e-3)


def reduce_and_save(output_dir, path: str) -> None:
    """Train with two parts a step and count the gradient exchanges."""
    exchanged = 0

    class Counting(SmallTrainer):
        def __init__(self, cfg):
            super().__init__(cfg)
            if isinstance(self.model, DistributedDataParallel):
                self.model.register_comm_hook(None, self.count)

        @staticmethod
        def count(state, bucket):
            nonlocal exchanged
            exchanged += bucket.is_last()
            work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
            return work.get_future().then(lambda x: x.value()[0] / comm.get_world_size())

    trainer = run(small_config(output_dir, "SOLVER.ACCUMULATE_STEPS", "2"), Counting)
    if comm.is_main_process():
        torch.save({"weights": weights(trainer.model), "exchanged": exchanged}, path)


@pytest.mark.usefixtures("fork_server")
def test_processes_exchange_gradients_once_a_step_and_equal_one(tmp_path):
    launch(reduce_and_save, 2, args=(str(tmp_path / "two"), str(tmp_path / "two.pth")))
    two = torch.load(tmp_path / "two.pth", weights_only=True)
    assert two["exchanged"] == 6  # MAX_ITER
    one = run(small_config(tmp_path / "one"))
    for a, b in zip(two["weights"], weights(one.model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
