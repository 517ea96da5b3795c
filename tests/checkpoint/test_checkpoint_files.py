"""Checkpoint files are complete or missing, checked to the bit, found without last_checkpoint."""

import os
import re
import shutil

import pytest
import torch

from d2_isonet.checkpoint import files as checkpoint_files
from d2_isonet.checkpoint.files import (
    damage_of,
    find_checkpoint,
    iteration_of,
    set_aside_earlier_run,
    write_checkpoint,
)
from d2_isonet.utils.files import SaveError, bytes_of


def training(iteration: int) -> dict:
    weight = torch.full((1000,), float(iteration))
    return {"model": {"weight": weight}, "trainer": {"iteration": iteration}}


@pytest.fixture
def run(tmp_path):
    """A folder with checkpoints of iterations 9, 19 and 29, the last of them tagged."""
    for iteration in (9, 19, 29):
        path = tmp_path / f"model_{iteration:07d}.pth"
        write_checkpoint(path, training(iteration))
        os.utime(path, (1e9, 1e9))
    (tmp_path / "last_checkpoint").write_text("model_0000029.pth")
    return tmp_path


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    position = content.index(torch.full((1,), 29.0).numpy().tobytes()) + 402
    content[position] ^= 1
    path.write_bytes(content)


def test_what_is_written_is_read(tmp_path):
    write_checkpoint(tmp_path / "a.pth", training(7))
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert torch.equal(content["model"]["weight"], training(7)["model"]["weight"])
    assert iteration_of(tmp_path / "a.pth") == 7 and damage_of(tmp_path / "a.pth") is None
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_save_that_does_not_fit_is_refused_before_it_begins(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    write_checkpoint(tmp_path / "small.pth", training(1))
    large = {"model": {"weight": torch.zeros(1_000_000)}}
    with pytest.raises(SaveError, match="large.pth was not written: it needs 5 MB, .* 2 MB left"):
        write_checkpoint(tmp_path / "large.pth", large)
    assert os.listdir(tmp_path) == ["small.pth"]


def test_a_disk_that_fills_in_a_save_leaves_the_old_file_and_no_stub(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "a.pth", training(1))
    before = (tmp_path / "a.pth").read_bytes()

    def full(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SaveError, match="a.pth could not be written: No space left on device"):
        write_checkpoint(tmp_path / "a.pth", training(2))
    assert (tmp_path / "a.pth").read_bytes() == before and os.listdir(tmp_path) == ["a.pth"]


def test_a_file_that_reads_back_otherwise_does_not_replace_the_old_one(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "a.pth", training(1))
    monkeypatch.setattr(checkpoint_files.os, "fsync", lambda descriptor: truncate_all(tmp_path))
    with pytest.raises(SaveError, match="read back, it is"):
        write_checkpoint(tmp_path / "a.pth", training(2))
    assert iteration_of(tmp_path / "a.pth") == 1 and os.listdir(tmp_path) == ["a.pth"]


def truncate_all(folder):
    for path in folder.glob("*.partial"):
        truncate(path)


def test_the_room_a_checkpoint_needs_is_that_of_its_tensors():
    content = {"a": torch.zeros(3), "b": [{"c": torch.zeros(2, 2, dtype=torch.float64)}], "d": 1}
    assert bytes_of(content) == 12 + 32


def test_the_tagged_checkpoint_is_taken_without_a_word(run, caplog):
    (run / "last_checkpoint").write_text("model_0000019.pth\n")
    assert find_checkpoint(run).name == "model_0000019.pth" and not caplog.text


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "model_0000029.pth, which is .*(truncated|damaged)"),
        (empty, r"model_0000029.pth, which is empty \(0 bytes\)"),
        (flip_a_bit, "model_0000029.pth, which is damaged .the checksum of its record .*data/0"),
        (os.remove, "model_0000029.pth, which does not exist"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_newest_good_one(damage, told, run, caplog):
    damage(run / "model_0000029.pth")
    assert find_checkpoint(run).name == "model_0000019.pth"
    text = rf"names {told}.*Resuming from .* model_0000019.pth \(iteration 19\)"
    assert re.search(text, caplog.text)


def test_several_damaged_checkpoints_are_all_passed_over(run, caplog):
    truncate(run / "model_0000029.pth")
    flip = (
        (run / "model_0000019.pth").read_bytes().replace(b"\x00\x00\x98\x41", b"\x00\x00\x98\x42")
    )
    (run / "model_0000019.pth").write_bytes(flip)
    assert find_checkpoint(run).name == "model_0000009.pth"
    assert "model_0000019.pth is damaged" in caplog.text


def test_detectron2_itself_does_not_see_a_flipped_bit(run):
    flip_a_bit(run / "model_0000029.pth")
    content = torch.load(run / "model_0000029.pth", weights_only=True)
    assert not torch.equal(content["model"]["weight"], training(29)["model"]["weight"])


@pytest.mark.parametrize(("tag", "told"), [(None, "has no file"), ("", "is empty")])
def test_without_a_tag_the_newest_is_taken_by_its_iteration(tag, told, run, caplog):
    (run / "last_checkpoint").unlink()
    if tag is not None:
        (run / "last_checkpoint").write_text(tag)
    os.utime(run / "model_0000009.pth", (2e9, 2e9))  # copied last, it is not the newest
    assert find_checkpoint(run).name == "model_0000029.pth"
    assert told in caplog.text


def test_weights_without_a_training_are_not_gone_on_from(run, caplog):
    write_checkpoint(run / "backbone.pth", {"model": training(99)["model"]})
    (run / "last_checkpoint").write_text("backbone.pth")
    assert find_checkpoint(run).name == "model_0000029.pth"
    assert "has weights but no training to resume" in caplog.text


def test_a_file_of_the_format_before_zip_is_good_and_its_stub_is_not(tmp_path):
    path = tmp_path / "model_0000004.pth"
    torch.save(training(4), path, _use_new_zipfile_serialization=False)
    assert find_checkpoint(tmp_path) == path
    truncate(path)
    assert "truncated" in damage_of(path)


def test_a_folder_without_checkpoints_starts_anew_and_one_with_damaged_ones_alone_does_not(run):
    assert find_checkpoint(run / "elsewhere") is None
    for path in run.glob("*.pth"):
        truncate(path)
    with pytest.raises(ValueError, match="No checkpoint in .* is good: .*0000029.*0000019.*00009"):
        find_checkpoint(run)


def test_a_tag_that_names_nothing_does_not_start_anew(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(ValueError, match="names model_final.pth, which does not exist"):
        find_checkpoint(tmp_path)


def test_an_earlier_run_is_set_aside_whole_and_told(run, caplog):
    (run / "metrics.json").write_text("{}\n")
    (run / "model_best.json").write_text("{}")
    write_checkpoint(run / "backbone.pth", {"model": training(9)["model"]})
    with open(run / "metrics.json", "a") as writer:
        aside = set_aside_earlier_run(run)
        writer.write("new\n")
    assert sorted(os.listdir(run)) == ["backbone.pth", "earlier_run_1", "metrics.json"]
    assert find_checkpoint(aside).name == "model_0000029.pth"
    assert (run / "metrics.json").read_text() == "new\n"
    assert (aside / "metrics.json").read_text() == "{}\n"
    assert (aside / "model_best.json").is_file()
    assert "moved them and metrics.json to earlier_run_1/" in caplog.text
    assert set_aside_earlier_run(run) is None


def test_a_second_earlier_run_does_not_overwrite_the_first(run):
    set_aside_earlier_run(run)
    write_checkpoint(run / "model_0000029.pth", training(29))
    assert set_aside_earlier_run(run).name == "earlier_run_2"
    assert (run / "earlier_run_1" / "model_0000019.pth").is_file()
