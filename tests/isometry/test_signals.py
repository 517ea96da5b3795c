"""Norms of a signal through depth, and where they vanish or explode."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.isometry.signal_propagation import Signal, SignalWatch, deviations, measure_signals
from d2_isonet.modeling.stages import blocks_of, chain_of, trunk_of

IMAGE = torch.arange(1.0, 13.0).view(1, 3, 2, 2)


class Times(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor


def signals(*factors: float) -> list[Signal]:
    network = nn.Sequential(*map(Times, factors))
    return measure_signals(dict(network.named_children()), network, IMAGE)


def test_factors_of_the_blocks_are_found_forward_and_backward():
    found = signals(2.0, 0.5, -30.0)
    rms = IMAGE.square().mean().sqrt().item()
    assert [x.name for x in found] == ["input", "0", "1", "2"]
    assert [x.norm for x in found] == pytest.approx([1, 2, 1, 30])
    assert [x.rms for x in found] == pytest.approx([rms, 2 * rms, rms, 30 * rms])
    assert [x.gradient for x in found] == pytest.approx([30, 15, 30, 1])


def test_rms_is_per_entry_and_norm_is_not():
    network = nn.Sequential(nn.Conv2d(3, 12, 1, bias=False))
    nn.init.dirac_(network[0].weight)  # 9 of 12 channels stay zero
    image, out = measure_signals({"expand": network[0]}, network, IMAGE)
    assert out.norm == pytest.approx(1) and out.rms == pytest.approx(image.rms / 2)


def test_a_healthy_network_has_no_deviations():
    assert deviations(signals(100.0, 2.0, 0.5, 1.0)) == []  # the first meets pixels, as a stem


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1.0, 20.0), ["explodes forward, in 1: RMS", "explodes backward, in 1: gradient"]),
        ((1.0, 0.01), ["vanishes forward, in 1: RMS", "vanishes backward, in 1: gradient"]),
        ((1.0, 4.0, 4.0), ["explodes forward, across the whole network",
                           "explodes backward, across the whole network"]),
        ((1.0, 0.0, 1.0), ["vanishes forward, in 1", "vanishes forward, across the whole",
                           "vanishes backward, in 1", "vanishes backward, across the whole"]),
        ((1.0, 1e15, 1e25), ["explodes forward, in 1", "explodes forward, in 2",
                             "explodes forward, across the whole network: RMS",
                             "explodes backward, in 2",
                             "explodes backward, across the whole network"]),
    ],
)  # fmt: skip
def test_blocks_where_a_signal_vanishes_or_explodes_are_named(factors, expected):
    found = deviations(signals(*factors))
    assert [line[: len(e)] for line, e in zip(found, expected, strict=True)] == expected


def test_what_is_not_finite_is_told_once_where_it_begins():
    points = [Signal(str(i), rms, rms, 1.0) for i, rms in enumerate([1, 1, math.nan, math.nan])]
    assert deviations(points) == [
        "explodes forward, in 2: RMS 1 -> nan",
        "explodes forward, across the whole network: RMS 1 -> nan",
    ]


def test_the_limit_can_be_chosen():
    found = signals(1.0, 4.0)
    assert deviations(found) == [] and len(deviations(found, limit=3)) == 2


def test_a_frozen_network_still_sends_gradients_back():
    network = nn.Sequential(Times(2.0), Times(3.0)).requires_grad_(False)
    found = measure_signals(dict(network.named_children()), network, IMAGE)
    assert [x.gradient for x in found] == pytest.approx([6, 3, 1])


def test_watching_changes_nothing_and_ends_with_the_block():
    network = nn.Sequential(Times(2.0), nn.ReLU(inplace=True), Times(3.0))
    with SignalWatch({"first": network[0], "second": network[2]}) as watch:
        network(IMAGE).sum().backward()
    gradients = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    network(2 * IMAGE).sum().backward()
    assert torch.equal(network[0].factor.grad, 2 * gradients[0])
    assert watch.outputs["first"][0] == pytest.approx((2 * IMAGE).norm().item())
    assert watch.gradients["first"] == pytest.approx(3 * 12**0.5)


def test_half_precision_does_not_overflow():
    network = nn.Sequential(Times(1.0)).half()
    with SignalWatch({"a": network[0]}) as watch:
        network(torch.full((1, 1, 100, 100), 6e4).half())
    assert watch.outputs["a"][0].item() == pytest.approx(6e6, rel=1e-3)


@pytest.mark.parametrize(
    ("config", "prefix", "last"),
    [
        ("risonet18_fpn", "backbone.bottom_up.", "backbone.bottom_up.res5.1"),
        ("risonet18_c4", "backbone.", "roi_heads.res5.1"),
        ("resnet50_dc5", "backbone.", "backbone.res5.2"),
        ("decoupled18_dc5", "backbone.", "backbone.res5.1"),
    ],
)
def test_the_chain_of_a_detector_ends_in_res5(config, prefix, last):
    cfg = load_config(f"configs/{config}.yaml", ["MODEL.DEVICE", "meta", "MODEL.WEIGHTS", ""])
    with torch.device("meta"):
        model = build_model(cfg)
    chain = list(chain_of(model))
    assert (chain[0], chain[-1]) == (f"{prefix}stem", last)
    assert trunk_of(model)[0] == prefix


def test_blocks_of_a_network_of_others_are_what_its_lists_hold():
    def block():
        shortcut = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        return nn.ModuleDict({"conv1": nn.Conv2d(2, 2, 1), "shortcut": shortcut})

    stage = nn.ModuleDict({"down": nn.Conv2d(2, 2, 1), "blocks": nn.Sequential(block(), block())})
    network = nn.ModuleDict({"stem": nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), "stage": stage})
    assert list(blocks_of(network)) == ["stem.0", "stage.down", "stage.blocks.0", "stage.blocks.1"]
