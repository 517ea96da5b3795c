"""What the main process finds out is told once and stops every process."""

import pytest
from detectron2.utils import comm

from d2_isonet.preflight.findings import Finding, check_once

ERROR = Finding("error", "train.json", "no annotations")


@pytest.fixture
def other_process(monkeypatch):
    """This process is the second of two; what the main one gathers is set by a call."""

    def gathered(*result):
        monkeypatch.setattr(comm, "all_gather", lambda mine: [result, mine])

    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    return gathered


def never() -> list[Finding]:
    raise AssertionError("the check is the main process's")


def test_the_table_is_printed_before_the_errors_are_raised(capsys):
    with pytest.raises(ValueError, match="train.json: no annotations"):
        check_once(lambda: [ERROR])
    assert "1 error, 0 warnings, 0 facts" in capsys.readouterr().out


def test_another_process_raises_the_same_errors_and_prints_nothing(other_process, capsys):
    other_process([ERROR], False)
    with pytest.raises(ValueError, match="train.json: no annotations"):
        check_once(never)
    assert capsys.readouterr().out == ""


def test_another_process_returns_the_same_findings(other_process):
    fact = Finding("fact", "train.json", "4 images")
    other_process([fact], False)
    assert check_once(never) == [fact]


def test_another_process_does_not_go_on_when_the_check_broke(other_process):
    other_process([], True)
    with pytest.raises(ValueError, match="failed in the main process"):
        check_once(never)


def test_the_main_process_gathers_before_it_raises_what_broke_the_check(monkeypatch):
    gathered = []
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", lambda mine: gathered.append(mine) or [mine, None])
    with pytest.raises(KeyError, match="a bug"):
        check_once(lambda: {}["a bug"])
    assert gathered == [([], True)]
