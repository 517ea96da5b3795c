"""A training that torchrun starts again resumes."""

import argparse

import pytest

from d2_isonet.distributed.torchrun import remember_run, resume_if_restarted


@pytest.fixture
def torchrun(monkeypatch):
    def started(restart: int = 0, run_id: str = "none") -> argparse.Namespace:
        environment = {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": run_id,
                       "TORCHELASTIC_RESTART_COUNT": str(restart)}  # fmt: skip
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return argparse.Namespace(resume=False, eval_only=False)

    return started


def test_a_restarted_group_resumes_and_says_so(torchrun, tmp_path):
    args = torchrun(restart=2)
    assert "restart 2): resuming from the last checkpoint" in resume_if_restarted(args, tmp_path)
    assert args.resume


def test_the_first_start_does_not_resume(torchrun, tmp_path):
    args = torchrun(run_id="job 7")
    assert resume_if_restarted(args, str(tmp_path)) == "" and not args.resume


def test_a_run_that_changed_its_machines_or_was_requeued_is_known_by_its_id(torchrun, tmp_path):
    torchrun(run_id="job 7")
    remember_run(str(tmp_path))
    same, other = torchrun(run_id="job 7"), torchrun(run_id="job 8")
    assert resume_if_restarted(other, str(tmp_path)) == ""
    torchrun(run_id="job 7")
    assert "--rdzv-id 'job 7'" in resume_if_restarted(same, str(tmp_path))
    assert same.resume and not other.resume


def test_torchruns_default_id_is_nobodys(torchrun, tmp_path):
    args = torchrun(run_id="none")
    remember_run(str(tmp_path))
    assert resume_if_restarted(args, str(tmp_path)) == "" and not list(tmp_path.iterdir())


def test_without_torchrun_nothing_is_resumed(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    args = argparse.Namespace(resume=False, eval_only=False)
    remember_run(str(tmp_path))
    assert resume_if_restarted(args, str(tmp_path)) == "" and not args.resume
