"""The quick start's driver: what it runs, what it shows, and how it fails."""

import json
from pathlib import Path

import cv2
import pytest
import quickstart
from quickstart import draw_predictions
from reproduction import training_run

SCRIPT = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[-2].split("=")[1])
(out / "config.yaml").write_text("SOLVER:\\n  MAX_ITER: 4\\n")
lines = [{"iteration": 1, "total_loss": 3.0}, {"iteration": 3, "total_loss": 2.0, "bbox/AP": 7.5}]
(out / "metrics.json").write_text("\\n".join(map(json.dumps, lines)))
print("said", sys.argv[1:])
"""


def fake_script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.py"
    path.write_text(text)
    return path


def run(script: Path, tmp_path: Path) -> dict:
    out = tmp_path / "run"
    return training_run.run_training("title", script, Path("a.yaml"), out, ["--x"], ["SEED=1"])


def test_a_training_returns_its_last_metrics_and_keeps_its_output(tmp_path, capsys):
    metrics = run(fake_script(tmp_path, SCRIPT), tmp_path)
    assert metrics == {"iteration": 3, "total_loss": 2.0, "bbox/AP": 7.5}
    said = (tmp_path / "run" / "output.log").read_text()
    assert "'--config-file', 'a.yaml', '--x'" in said and "SEED=1" in said
    assert "100%" in capsys.readouterr().err


def test_a_failed_training_ends_the_quick_start_and_shows_why(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(fake_script(tmp_path, "raise SystemExit('error: no such data set')"), tmp_path)
    assert stop.value.code == 1
    assert "error: no such data set" in capsys.readouterr().err


def test_a_second_run_does_not_count_the_first(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"bbox/AP": 99.0}))
    assert run(fake_script(tmp_path, "print('nothing')"), tmp_path) == {}


def test_the_table_has_mean_and_spread_and_chance():
    def seed(top1, pretrained, random):
        return {
            "pretraining": {"classification/top1": top1},
            "pretrained": {"bbox/AP": pretrained, "segm/AP50": float("nan")},
            "random": {"bbox/AP": random},
        }

    text = quickstart.tables({1: seed(50, 10, 4), 2: seed(60, 12, 4)}, num_classes=8)
    assert "55.0 ± 7.1 % (chance 12.5 %)" in text
    rows = [line for line in text.splitlines() if "11.0 ± 1.4" in line]
    assert len(rows) == 1 and rows[0].startswith("R-ISONet pretrained")
    assert rows[0].split()[-3:] == ["0.0", "±", "0.0"]  # no prediction at all is an AP of 0


def test_predictions_are_drawn_beside_the_truth(coco_files, tmp_path):
    json_file, images = coco_files
    truth = json.loads(json_file.read_text())["annotations"]
    found = [{**a, "score": 0.9} for a in truth]
    folder = tmp_path / "run" / "inference"
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text(json.dumps(found))
    runs = {"found all": tmp_path / "run", "found none": tmp_path / "absent"}
    picture = cv2.imread(str(draw_predictions(json_file, images, runs, tmp_path / "p.png", 4)))
    height = 40 + 4 * 300
    assert picture.shape == (height, 1200, 3)
    body = picture[40:]
    truth_column, all_column, none_column = body[:, :400], body[:, 400:800], body[:, 800:]
    assert (truth_column != none_column).any() and (all_column != none_column).any()
