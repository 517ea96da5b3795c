"""What a run records: its command, code and machine, and a classifier's predictions."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from d2_isonet import __version__
from d2_isonet.engine.run_record import add_run_record, commit_of, read_run_records
from d2_isonet.evaluation.classification import (
    ImageNetEvaluator,
    class_measures,
    predictions_of,
    read_predictions,
)

TRAINING = Namespace(resume=False, eval_only=False)


def test_every_start_is_an_entry_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "OUTPUT_DIR=a b"])
    add_run_record(str(tmp_path), TRAINING)
    add_run_record(str(tmp_path), Namespace(resume=True, eval_only=False))
    add_run_record(str(tmp_path), Namespace(resume=False, eval_only=True))
    records = json.loads((tmp_path / "runs.json").read_text())
    assert [x["kind"] for x in records] == ["training", "resumed training", "evaluation"]
    assert records[0]["command"] == "python train_net.py 'OUTPUT_DIR=a b'"
    assert records[0]["environment"]["d2_isonet"] == __version__
    assert records[0]["environment"]["torch"] == torch.__version__


def test_a_damaged_record_is_a_warning_and_starts_anew(tmp_path, caplog):
    (tmp_path / "runs.json").write_text('[{"kind": "trai')
    add_run_record(str(tmp_path), TRAINING)
    assert "runs.json is damaged" in caplog.text
    assert len(read_run_records(tmp_path / "runs.json")) == 1


def test_a_folder_that_takes_no_file_ends_nothing(tmp_path, caplog):
    add_run_record(str(tmp_path / "not there"), TRAINING)
    assert "could not be written" in caplog.text
    add_run_record("", TRAINING)


def test_the_commit_is_told_with_its_changes(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file = tmp_path / "run_record.py"
    file.write_text("1")
    assert commit_of(tmp_path) is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "x")
    assert commit_of(tmp_path) is None  # the file is not part of the repository
    git("add", ".")
    git("commit", "-q", "-m", "y")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD")
    file.write_text("2")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD") + " with changes"
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path) is None  # git is not installed


LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [9.0, 0.0, 1.0]])
INPUTS = [{"file_name": f'{i}, "x".jpg', "label": label} for i, label in enumerate((0, 0, 2))]


def test_what_a_classifier_said_is_written_and_read_back(tmp_path):
    evaluator = ImageNetEvaluator(3, str(tmp_path), "/data/val", ["cat", "dog", "ship"])
    evaluator.process(INPUTS, [{"logits": x} for x in LOGITS])
    assert evaluator.evaluate()["classification"]["top1"] == pytest.approx(100 / 3)
    predictions = read_predictions(tmp_path / "data_val" / "predictions.csv")
    assert predictions == predictions_of(INPUTS, LOGITS, LOGITS.topk(3).indices)
    assert [(p.label, p.predicted) for p in predictions] == [(0, 0), (0, 1), (2, 0)]
    assert predictions[1].probability == pytest.approx(float(LOGITS[1].softmax(0)[1]), abs=1e-6)
    content = json.loads((tmp_path / "data_val" / "per_class.json").read_text())
    assert content["classes"] == ["cat", "dog", "ship"] and content["images"] == 3
    rows = content["tasks"]["classification"]
    assert rows[0] == {"class": "cat", "top1": 50.0, "top5": 100.0, "images": 2, "predicted": 2,
                       "taken_for": "dog", "taken_for_share": 50.0}  # fmt: skip
    assert rows[1]["top1"] is None and rows[1]["taken_for_share"] is None


def test_the_accuracy_is_the_mean_over_images_of_those_of_classes():
    logits = torch.randn(200, 7)
    inputs = [{"file_name": "", "label": i % 7} for i in range(200)]
    predictions = predictions_of(inputs, logits, logits.topk(5).indices)
    rows = class_measures(predictions, list("abcdefg"))
    labels = torch.tensor([x["label"] for x in inputs])
    for key, k in (("top1", 1), ("top5", 5)):
        right = (logits.topk(k).indices == labels[:, None]).any(dim=1).float().mean()
        mean = sum(row[key] * row["images"] for row in rows) / 200
        assert mean == pytest.approx(100 * float(right), abs=1e-4)


def test_a_damaged_file_of_predictions_is_refused(tmp_path):
    file = tmp_path / "predictions.csv"
    file.write_text("a,b\n")
    with pytest.raises(ValueError, match="does not have the columns file_name"):
        read_predictions(file)
    file.write_text("file_name,label,predicted,probability,probability_of_label,in_top5\nx,1,\n")
    with pytest.raises(ValueError, match="is damaged"):
        read_predictions(file)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluator = ImageNetEvaluator(3)
    evaluator.process(INPUTS, [{"logits": x} for x in LOGITS])
    evaluator.evaluate()
    assert list(Path().iterdir()) == []
