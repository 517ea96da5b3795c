"""Files of results: whole lines of several writers, killed writers, and merges of two branches."""

import multiprocessing
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from repository import REPOSITORY
from reproduction.cells import CLASSIFICATION, Cell, Folders, read_result, write_result
from reproduction.result_file import append, results_in

RESULT = {"measures": {"top-1": 50.0}, "learning_rate": None, "seconds": 1.0, "attempts": [],
          "commit": "", "machine": "", "torch": ""}  # fmt: skip
HALF = '{"cell": "set/network", "seed": 3, "measures": {"top-'


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path / "small", tmp_path / "output", tmp_path / "data")


@pytest.fixture
def cell() -> Cell:
    return Cell("set/network", CLASSIFICATION, "configs/Base-ISONet.yaml")


def top1(folders: Folders, cell: Cell, seed: int) -> float:
    return read_result(folders, cell, seed)["measures"]["top-1"]


def store(folders: Folders, cell: Cell, seed: int, value: float) -> None:
    write_result(folders, cell, seed, RESULT | {"measures": {"top-1": value}})


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fashion_mnist/isonet34_relu/depth56", "fashion_mnist/isonet.jsonl"),
        ("fashion_mnist/vanilla_bn18/depth20", "fashion_mnist/vanilla_bn.jsonl"),
        ("robustness/cifar10/cnn9_tanh-cosine", "robustness/cifar10/cnn.jsonl"),
        ("coco/risonet50_dc5-ortho_coeff=0", "coco/risonet.jsonl"),
        ("net", "net.jsonl"),
        ("set/9net", "set/9net.jsonl"),
    ],
)
def test_a_file_holds_a_data_set_and_a_kind_of_network(name, file, folders, cell):
    assert folders.result(replace(cell, name=name)) == folders.results / file


def test_the_later_line_wins_and_the_others_stay(folders, cell):
    for seed, value in ((1, 50.0), (2, 60.0), (1, 70.0)):
        store(folders, cell, seed, value)
    assert (top1(folders, cell, 1), top1(folders, cell, 2)) == (70.0, 60.0)
    assert len(folders.result(cell).read_text().splitlines()) == 3


def test_a_later_line_of_other_settings_does_not_hide_a_result(folders, cell):
    store(folders, cell, 1, 50.0)
    store(folders, replace(cell, opts=("A=1",)), 1, 60.0)
    assert top1(folders, cell, 1) == 50.0
    assert top1(folders, replace(cell, opts=("A=1",)), 1) == 60.0


def test_half_a_line_of_a_killed_writer_costs_no_other(folders, cell, caplog):
    store(folders, cell, 1, 50.0)
    path = folders.result(cell)
    whole = path.read_text()
    path.write_text(whole + HALF)
    assert top1(folders, cell, 1) == 50.0 and read_result(folders, cell, 3) is None
    assert f"{path}: the last line is cut off" in caplog.text
    store(folders, cell, 2, 60.0)
    assert HALF not in path.read_text() and path.read_text().startswith(whole)
    assert top1(folders, cell, 2) == 60.0


def test_a_last_line_whose_end_an_editor_left_out_is_kept(folders, cell):
    store(folders, cell, 1, 50.0)
    path = folders.result(cell)
    path.write_text(path.read_text().rstrip("\n"))
    assert top1(folders, cell, 1) == 50.0
    store(folders, cell, 2, 60.0)
    assert (top1(folders, cell, 1), top1(folders, cell, 2)) == (50.0, 60.0)


def test_half_a_line_between_others_is_damage_and_is_named(folders, cell):
    store(folders, cell, 1, 50.0)
    path = folders.result(cell)
    path.write_text(f"{HALF}\n{path.read_text()}")
    with pytest.raises(ValueError, match=f"{path}:1 is no result .*restore it, or remove it"):
        read_result(folders, cell, 1)


def test_a_number_that_is_not_finite_is_refused_before_it_is_stored(folders, cell):
    store(folders, cell, 1, 50.0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store(folders, cell, 2, float("nan"))
    assert top1(folders, cell, 1) == 50.0


def _append_some(path: Path, seed: int) -> None:
    filling = {"cell": "a", "settings": "x" * 9000, "weights_learning_rate": None}
    for number in range(40):
        append(path, RESULT | filling | {"seed": seed, "seconds": number})


def test_lines_of_processes_that_write_at_the_same_time_are_whole(tmp_path):
    path = tmp_path / "small" / "a.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_some, args=(path, seed)) for seed in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = results_in(path)
    for seed in (1, 2, 3):
        assert [result["seconds"] for result in found["a", seed]] == [*range(40)]


def git(folder: Path, *words: str) -> None:
    person = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *person, *words], cwd=folder, check=True, capture_output=True)


def test_git_merges_what_two_branches_have_appended(tmp_path, cell):
    shutil.copy(REPOSITORY / ".gitattributes", tmp_path)
    folders = Folders(tmp_path / "results" / "small", tmp_path / "output", tmp_path / "data")
    git(tmp_path, "init", "--initial-branch", "first")
    for branch, seed in (("first", 1), ("second", 2), ("third", 3)):
        if seed > 1:
            git(tmp_path, "checkout", "-b", branch, "first")
        store(folders, cell, seed, 40.0 + 10 * seed)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-m", branch)
    assert read_result(folders, cell, 2) is None
    git(tmp_path, "merge", "second")
    assert [top1(folders, cell, seed) for seed in (1, 2, 3)] == [50.0, 60.0, 70.0]
