"""A few rounds of kill_harness.py, which by hand does more: nothing lost, no step another."""

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture
def harness(monkeypatch):
    import kill_harness

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a fork has no other threads
    yield kill_harness
    torch.set_num_threads(threads)


def test_a_training_killed_anywhere_loses_nothing_and_goes_on_exactly(harness, tmp_path):
    figures = harness.kills(tmp_path, 30)
    assert figures["of which a resume follows"] > 5 and len(figures["killed inside"]) > 5


def test_a_training_outlives_a_full_disk(harness, tmp_path):
    figures = harness.full_disk(tmp_path)
    if "skipped" in figures:
        pytest.skip(figures["skipped"])
    assert figures["limit"]["last good iteration"] == 39


def test_a_preempted_training_is_saved_at_its_last_step(harness, tmp_path):
    assert harness.signals(tmp_path, 8)["exit codes"].get(75, 0) > 0
