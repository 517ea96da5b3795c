"""d2-isonet pretrain on shards: training, evaluation as on the folder, and errors."""

import re

import pytest
from script_arguments import PRETRAIN, arguments
from shard_sets import write_images, write_shards

from d2_isonet.commands.pretrain import pretrain
from d2_isonet.data.datasets import register_data_root
from d2_isonet.evaluation.robustness import choose_images


@pytest.fixture
def roots(tmp_path):
    """An image folder and its shards."""
    folder = tmp_path / "images"
    write_images(folder, {"a": 6, "b": 6})
    return folder, write_shards(folder, tmp_path / "shards", "--shard-samples", "5")


def run(root, output, *opts: str, **given):
    options = [*PRETRAIN, "SOLVER.MAX_EPOCHS", "2", "DATALOADER.NUM_WORKERS", "1", *opts]
    options += ["OUTPUT_DIR", str(output)]
    given = {"data_root": str(root), **given}
    return pretrain(arguments("configs/imagenet/risonet18.yaml", *options, **given))


def test_a_network_pretrained_on_shards_has_the_accuracy_of_the_folder(roots, tmp_path):
    folder, shards = roots
    run(f"file://{shards}", tmp_path / "out")
    weights = ("MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"))
    results = [run(root, tmp_path / "eval", *weights, eval_only=True) for root in roots]
    assert results[0] == results[1] and results[0]["classification"]["num_images"] == 12


def message_of(capsys, monkeypatch, *args, **given) -> str:
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    with pytest.raises(SystemExit):
        run(*args, **given)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return next(line for line in error.splitlines() if line.startswith("error: "))


def test_classes_that_are_not_those_of_the_validation_are_refused(
    roots, tmp_path, capsys, monkeypatch
):
    write_images(tmp_path / "other", {"a": 1, "c": 1})
    names = f"('{register_data_root(str(roots[1]))[0]}',)"
    other = f"('{register_data_root(str(tmp_path / 'other'))[1]}',)"
    opts = ("DATASETS.TRAIN", names, "DATASETS.TEST", other)
    message = message_of(capsys, monkeypatch, "", tmp_path / "out", *opts, data_root=None)
    assert "have different classes" in message


def test_a_shard_that_changes_in_training_ends_it_with_one_message(
    roots, tmp_path, capsys, monkeypatch
):
    for name in ("train-00000.tar", "train-00001.tar", "train-00002.tar"):
        (roots[1] / name).write_bytes((roots[1] / name).read_bytes()[:-1] + b"x")
    message = message_of(capsys, monkeypatch, roots[1], tmp_path / "out")
    assert re.search(r"Shard .*/train-0000\d.tar does not have the sha256", message)


def test_a_split_that_the_shards_lack_is_named(roots, tmp_path, capsys, monkeypatch):
    index = roots[1] / "index.json"
    index.write_text(index.read_text().replace('"val": {', '"test": {'))
    message = message_of(capsys, monkeypatch, roots[1], tmp_path / "out")
    assert "have no split 'val', only train, test" in message


def test_attacks_need_the_folder(roots):
    with pytest.raises(ValueError, match="is a set of shards, which cannot be read in any order"):
        choose_images(register_data_root(str(roots[1]))[1], 5, 0)


@pytest.mark.parametrize("which", [0, 1], ids=["folder", "shards"])
def test_a_batch_larger_than_the_set_is_told_and_trained(which, roots, tmp_path):
    run(roots[which], tmp_path / "out", "SOLVER.IMS_PER_BATCH", "30", "SOLVER.MAX_EPOCHS", "1")
    assert (tmp_path / "out" / "backbone.pth").is_file()
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "IMS_PER_BATCH is 30 and" in log and "each about 2.5 times" in log


def test_a_resume_with_other_workers_says_that_it_is_not_exact(roots, tmp_path, caplog):
    run(roots[1], tmp_path / "out", "SOLVER.MAX_EPOCHS", "1")
    run(roots[1], tmp_path / "out", "DATALOADER.NUM_WORKERS", "2", resume=True)
    assert "shard_workers 1 -> 2" in caplog.text


def test_unreadable_images_of_shards_have_no_replacement(roots, tmp_path, capsys, monkeypatch):
    opts = ("DATALOADER.MAX_UNREADABLE", "0.1")
    message = message_of(capsys, monkeypatch, roots[1], tmp_path / "out", *opts)
    assert "DATALOADER.MAX_UNREADABLE: it is 0.1, but image shards have no others" in message
