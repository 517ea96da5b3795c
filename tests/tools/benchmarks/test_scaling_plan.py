"""The plan for many GPUs: its formulas against numbers computed by hand."""

import pytest
from benchmarks import scaling_plan

OPTIONS = scaling_plan.parse_args(["--nvlink-gb", "100", "--network-gb", "10"])
COST = scaling_plan.Cost(per_image=1e12, per_step=0.0, gradient_bytes=100e6, checkpoint_bytes=2e8)


@pytest.mark.parametrize(
    ("gpus", "seconds"),
    [
        (8, 2 * 7 / 8 * 100e6 / 100e9 + 4 * 14 * 2e-6),  # NVLink, four buckets of 25 MB
        (64, 2 * 63 / 64 * 100e6 / 10e9 + 4 * 126 * 5e-6),
    ],
)
def test_a_ring_sends_nearly_twice_the_gradients(gpus, seconds):
    assert scaling_plan.all_reduce_seconds(100e6, gpus, OPTIONS) == pytest.approx(seconds)


def test_batch_and_rate_grow_and_steps_shrink_together_until_the_rule_ends():
    rows = [scaling_plan.row(scaling_plan.COCO, COST, gpus, OPTIONS) for gpus in (8, 64, 512)]
    assert [x["batch"] for x in rows] == ["16 (2 a GPU)", "128 (2 a GPU)", "512 (1 a GPU)"]
    assert [x["lr"] for x in rows] == ["0.01", "0.08", "0.32"]
    assert [x["steps"] for x in rows] == ["90,000", "11,250", "2,813"]


def test_communication_behind_backward_costs_nothing():
    row = scaling_plan.row(scaling_plan.COCO, COST, 8, OPTIONS)
    assert row["efficiency"] == "100%" and row["compute"] == "166.7 ms"
