"""The benchmarks: both sides compute the same, and the rows show what was measured."""

import json
from argparse import Namespace

import pytest
import torch
from benchmarks import command, detectors, measure, operators, pretraining, profiling, training
from torch import nn

from d2_isonet import SReLU
from d2_isonet.isometry.penalty import orthogonal_penalty


def test_the_ratio_is_the_median_over_repetitions_next_to_each_other():
    row = measure.Comparison("x", [1.0, 4.0, 9.0], [2.0, 4.0, 3.0], limit=0.9)
    assert row.ratios == [0.5, 1.0, 3.0] and row.ratio == 1.0
    assert row.reached is False
    assert measure.Comparison("x", [3.0], [1.0], limit=2.5, more_is_better=True).reached is True
    assert measure.Comparison("x", [3.0], [1.0]).reached is None


def test_both_sides_run_in_turn_after_a_warm_up():
    calls, options = [], Namespace(repetitions=3, device="cpu")
    functions = (lambda: calls.append("a"), lambda: calls.append("b"))
    ours, peer = measure.seconds_in_turn(functions, options)
    assert calls == ["a", "b"] * 4
    assert len(ours) == len(peer) == 3 and min(ours + peer) > 0


def test_peak_memory_counts_what_is_alive_at_once():
    def work():
        first = torch.zeros(1000, 250)
        second = first + 1
        del first
        return second + 1

    assert measure.peak_megabytes(work) == pytest.approx(2.0, rel=0.01)


def test_a_table_says_whether_the_limit_is_reached():
    rows = [measure.Comparison("a", [0.002], [0.004], limit=0.6),
            measure.Comparison("b", [5.0, 6.0], [1.0, 1.0], unit="MB", limit=2.0)]  # fmt: skip
    lines = measure.table(rows).splitlines()
    assert "2 ms" in lines[2] and "0.50" in lines[2] and "<= 0.60: yes" in lines[2]
    assert "5.50 (5.00 to 6.00)" in lines[3] and "<= 2.00: NO" in lines[3]


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (4, 6, 3, 3), (8, 4, 1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_regularizers_peer_is_the_authors_penalty(shape, stride):
    conv = nn.Conv2d(shape[1], shape[0], shape[2], stride=stride, dtype=torch.float64)
    expected = orthogonal_penalty(conv.weight, stride, form="official")
    torch.testing.assert_close(operators.penalty_by_convolution(conv), expected)


def test_the_authors_network_computes_what_ours_computes():
    options = command.parse_args(["pretrain"])
    ours = training.build_classifier(18, options.device).eval()
    for module in ours.modules():
        if getattr(module, "residual_scale", None) is not None:
            nn.init.constant_(module.residual_scale, 0.3)
    batch = [{"image": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)}]
    with torch.no_grad():
        expected = ours(batch)[0]["logits"]
        found = pretraining.as_authors(ours)(batch)[0]["logits"]
    assert not any(isinstance(module, SReLU) for module in ours.modules())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_detectors_differ_in_the_backbone_alone():
    options = command.parse_args(["train"])
    ours, peer = detectors.build_pair("c4", options)
    assert type(peer.backbone).__name__ == "ResNet" and type(peer.roi_heads).__name__[0] == "R"

    def shapes(model):
        kept = {k: tuple(v.shape) for k, v in model.state_dict().items() if "norm" not in k}
        return {k: v for k, v in kept.items() if not k.endswith((".shift", "residual_scale"))}

    assert shapes(ours) == shapes(peer)


def test_a_subject_is_measured_and_written(tmp_path, capsys):
    words = ["srelu", "--quick", "--repetitions", "1", "--output", str(tmp_path)]
    command.main(words)
    content = json.loads((tmp_path / "srelu_cpu.json").read_text())
    assert len(content["rows"]) == 4 and content["machine"]["torch"] == torch.__version__
    assert "relu(x - b) + b" in capsys.readouterr().out


def test_a_step_is_divided_into_kinds_and_the_penalty_is_told_apart():
    conv = nn.Conv2d(4, 6, 3, bias=False)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    regularize = operators.regularize({"res2.conv": conv})

    def plain():
        conv(x).square().sum().backward()

    def run():
        plain()
        regularize()

    seconds, moved = profiling._seconds_and_bytes(run, "cpu")
    flops = profiling._flops(run, plain)
    assert {"convolutions, forward", "convolutions, backward", "penalty"} <= seconds.keys()
    assert min(seconds[kind] for kind in flops) > 0
    products = 2 * 6 * 36 * 4 * 9  # images, filters, pixels, channels, taps
    assert flops["convolutions, forward"] == 2 * products
    assert flops["convolutions, backward"] == 2 * 2 * products
    assert flops["penalty"] == 2 * sum(operators.multiplications(regularize).values())
    assert moved["convolutions, forward"] >= 4 * x.numel()


def test_the_formula_is_srelu():
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(operators.Formula(3)(x), SReLU(3)(x))


@pytest.mark.parametrize("words", [["fast"], ["srelu", "--repetitions", "0"],
                                   ["srelu", "--depth", "19"]])  # fmt: skip
def test_impossible_arguments_are_refused(words):
    with pytest.raises(SystemExit):
        command.parse_args(words)
