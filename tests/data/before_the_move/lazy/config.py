"""A LazyConfig of a network of two layers, on four batches of noise."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler, get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch import nn

import d2_isonet


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3), d2_isonet.SReLU(4), nn.Conv2d(4, 4, 3, bias=False)
        )

    def forward(self, batch):
        maps = self.backbone(torch.stack([x["image"] for x in batch]))
        return {"loss": maps.square().mean()} if self.training else [{} for _ in batch]


def batches(number: int) -> list[list[dict]]:
    generator = torch.Generator().manual_seed(1)
    return [[{"image": torch.randn(3, 8, 8, generator=generator)}] for _ in range(number)]


model = L(TwoLayers)()
dataloader = dict(train=L(batches)(number=8), test=L(batches)(number=1), evaluator=None)
optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[3, 7]),
    warmup_length=2 / 7,
    warmup_factor=0.1,
)
regularizer = L(d2_isonet.OrthogonalRegularizer)(coeff=1e-2)
train = dict(
    output_dir="output",
    init_checkpoint="",
    max_iter=7,
    amp=dict(enabled=False),
    checkpointer=dict(period=2, max_to_keep=10),
    eval_period=0,
    log_period=1,
    device="cpu",
    seed=7,
)
