"""A small detectron2 training in float64, and the same training by the definition."""

import copy
import functools

import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from d2_isonet.isometry.penalty import orthogonal_penalty
from d2_isonet.modeling.stages import default_convolutions

COEFF = 0.03
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)


class ToyBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.res2 = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Tanh())
        self.res3 = nn.Sequential(
            nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.Tanh(), nn.Conv2d(8, 12, 1, bias=False)
        )

    def forward(self, x):
        return self.res3(self.res2(self.stem(x)))


@META_ARCH_REGISTRY.register()
class PenaltyToyModel(nn.Module):
    """The loss is a mean over the images, in float64; parameters do not depend on a seed."""

    def __init__(self, cfg=None, backbone=None):
        super().__init__()
        self.backbone = backbone or ToyBackbone()
        self.double()
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.arange(p.numel()).square().sin().reshape(p.shape) * 0.5)

    def forward(self, images):
        features = self.backbone(images)
        features = features["res3"] if isinstance(features, dict) else features
        return {"loss_toy": features.mean((2, 3)).square().sum(1).mean()}


def batches():
    x = torch.arange(2 * 4 * 3 * 9 * 9, dtype=torch.float64)
    return list(x.square().cos().reshape(2, 4, 3, 9, 9))


class ToyDefaultTrainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return batches()


def solver(clip_type="value", clip_value=0.02):
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clip_type is not None
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type or "value"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = clip_value
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 0.1, len(batches()), ()
    cfg.SOLVER.WARMUP_FACTOR, cfg.SOLVER.WEIGHT_DECAY = 1.0, 0.01
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.MODEL.DEVICE = 1000, "cpu"
    cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS.TEST = "PenaltyToyModel", ()
    return cfg


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def reference(model, make_optimizer, coeff=COEFF, form="exact", data=None):
    """The same steps by the definition: autograd on loss + coeff * penalty."""
    model = copy.deepcopy(model)
    optimizer = make_optimizer(trained(model))
    for images in batches() if data is None else data:
        penalty = sum(
            orthogonal_penalty(conv.weight, conv.stride, conv.dilation, conv.groups, form)
            for conv in default_convolutions(model).values()
            if conv.weight.requires_grad
        )
        optimizer.zero_grad()
        (sum(model(images).values()) + coeff * penalty).backward()
        optimizer.step()
    return model


def train(model, optimizer, hooks, trainer_class=SimpleTrainer, data=None):
    data = batches() if data is None else data
    trainer = trainer_class(model, data, optimizer)
    trainer.register_hooks(hooks)
    trainer.train(0, len(data))
    return trainer


def assert_equal(model, expected):
    for (name, parameter), other in zip(
        model.named_parameters(), expected.parameters(), strict=True
    ):
        torch.testing.assert_close(
            parameter, other, rtol=1e-12, atol=1e-14, msg=lambda text, name=name: f"{name}: {text}"
        )
