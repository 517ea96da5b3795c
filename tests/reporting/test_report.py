"""d2-isonet report: the files it reads, its notes on missing ones, and its pages in a browser."""

import contextlib
import io
import json
import re
from argparse import Namespace
from pathlib import Path

import pytest
from browser import chromium, opened  # noqa: F401
from run_folders import EVIL, classification_run, detection_run, step, write_config, write_metrics

from d2_isonet.commands import report
from d2_isonet.engine.run_record import add_run_record
from d2_isonet.reporting.page.page import Page
from d2_isonet.reporting.runs import training
from d2_isonet.reporting.runs.datasets import detection_results
from d2_isonet.reporting.runs.logs import read_log, read_metrics
from d2_isonet.reporting.runs.provenance import changed_keys, defaults
from d2_isonet.reporting.runs.run import flat, names_of, read_run


def test_steps_and_evaluations_are_reported_apart(tmp_path):
    records = [
        step(19),
        step(39),
        {"iteration": 29, "segm/AP": 3.0},
        {**step(59), "set/bbox/AP": 1.5},
    ]
    metrics = read_metrics(write_metrics(tmp_path, records))
    assert metrics.series("total_loss")[0] == [19, 39, 59]
    assert metrics.results() == ["segm/AP", "set/bbox/AP"] and "set/bbox/AP" not in metrics.keys()


def test_not_a_number_is_left_out_of_curves(tmp_path):
    metrics = read_metrics(write_metrics(tmp_path, [step(0, x=float("nan")), step(1, x=2.0)]))
    assert metrics.series("x") == ([1], [2.0]) and metrics.last("y") is None


def test_a_line_that_a_kill_cut_off_is_reported(tmp_path):
    file = write_metrics(tmp_path, [step(19)])
    file.write_text(file.read_text() + '{"iteration": 39, "total_')
    metrics = read_metrics(file)
    assert len(metrics.steps) == 1
    assert metrics.notes == [
        "The last line of metrics.json is cut off: the run was killed, or is writing it now."
    ]


def test_what_a_resumed_run_writes_behind_a_cut_line_is_not_lost(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text(
        '{"iteration": 39, "tot'
        + json.dumps(step(59))
        + "\nnonsense\n"
        + json.dumps(step(79))
        + "\n"
    )
    metrics = read_metrics(file)
    assert [x["iteration"] for x in metrics.steps] == [59, 79]
    assert metrics.notes == ["2 damaged lines of metrics.json are skipped: 1, 2."]


def test_a_later_start_replaces_what_it_did_again(tmp_path):
    records = [step(19), step(39), {"iteration": 40, "bbox/AP": 1.0}, step(59),
               step(39, x=7.0), {"iteration": 40, "bbox/AP": 2.0}]  # fmt: skip
    metrics = read_metrics(write_metrics(tmp_path, records))
    assert metrics.series("x") == ([39], [7.0])
    assert [x["iteration"] for x in metrics.steps] == [19, 39]
    assert metrics.series("bbox/AP") == ([40], [2.0])
    assert "has two versions from iteration 39 on" in metrics.notes[0]


def test_what_is_measured_now_and_then_is_no_later_start(tmp_path):
    records = [step(19), {"iteration": 0, "isometry/rms/res2.0": 1.0}, step(39), step(59),
               {"iteration": 40, "isometry/rms/res2.0": 2.0},
               {"iteration": 59, "isometry/rms/res2.0": 3.0}]  # fmt: skip
    metrics = read_metrics(write_metrics(tmp_path, records))
    assert metrics.notes == []
    assert [x["iteration"] for x in metrics.steps] == [0, 19, 39, 40, 59]
    assert metrics.series("isometry/rms/res2.0") == ([0, 40, 59], [1.0, 2.0, 3.0])
    assert metrics.series("total_loss")[0] == [19, 39, 59]


def test_isometry_is_a_panel_a_quantity_and_a_line_a_stage(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(training, "curves", lambda panels, *rest, **more: drawn.append(panels))
    values = {"isometry/rms/res2.0": 1.0, "isometry/rms/res2.1": 4.0, "isometry/rms/stem": 7.0,
              "isometry/shift_mean/res2": -1.0}  # fmt: skip
    write_metrics(tmp_path, [step(19, **values), step(39, **{"isometry/rms/res2.0": 2.0})])
    training.add_training(Page("x", "y"), [read_run(tmp_path, "run")])
    (found,) = [
        {title: lines for title, lines in panels.items() if lines}
        for panels in drawn
        if "mean of the shifts" in panels
    ]
    assert found == {
        "root mean square of a block's output": {
            "res2": ([19, 39], [2.5, 2.0]),
            "stem": ([19], [7.0]),
        },
        "mean of the shifts": {"res2": ([19], [-1.0])},
    }
    assert not [panels for panels in drawn if any("isometry/" in title for title in panels)]


def test_the_log_tells_warnings_and_the_error_that_ended_the_run(tmp_path):
    file = tmp_path / "log.txt"
    head = "[11/26 10:59:22] d2_isonet.x "
    file.write_text(
        f"{head}INFO: Command line arguments: Namespace(x=1)\n{head}WARNING: \x1b[31mlow\x1b[39m\n"
        f"{head}WARNING: low\n{head}ERROR: Exception during training:\nTraceback (most recent\n"
        "FloatingPointError: Loss became infinite\n"
    )
    log = read_log(file)
    assert log.warnings == {"low": 2} and log.arguments == "Namespace(x=1)"
    assert log.error == "FloatingPointError: Loss became infinite"
    file.write_text(file.read_text() + f"{head}INFO: Command line arguments: Namespace(x=2)\n")
    assert read_log(file).error == ""  # it was started again


def test_configs_are_compared_by_value():
    base = defaults()
    assert base["SOLVER.ORTHO_COEFF"] == 1e-4 and base["DATASETS.TRAIN"] == []
    ours = {**base, "SOLVER.BASE_LR": 0.5, "OF.AN.OTHER": 1}
    assert changed_keys([base, ours], base) == ["OF.AN.OTHER", "SOLVER.BASE_LR"]
    assert changed_keys([{"a": 1.0, "b": True}], {"a": 1, "b": 1}) == ["b"]
    assert flat({"A": {"B": (1, (2,))}}) == {"A.B": [1, [2]]}


def test_names_are_as_short_as_they_can_be():
    assert names_of([Path("x/a"), Path("x/b")]) == ["a", "b"]
    assert names_of([Path("x/seed1/a"), Path("x/seed2/a")]) == ["seed1/a", "seed2/a"]
    assert len(set(names_of([Path("x"), Path("x")]))) == 2


def run_report(*arguments) -> str:
    """The error message; "" if there is none."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        report.main([str(x) for x in arguments])
    return said.getvalue()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: None, "there is no such folder"),
        (lambda p: p.write_text("x"), "is a file; give the OUTPUT_DIR"),
        (lambda p: p.mkdir(), "is empty: no run has written anything into it yet"),
        (lambda p: (p / "x").mkdir(parents=True), "is not the OUTPUT_DIR of train_net.py"),
        (lambda p: (p / "a" / "inference").mkdir(parents=True), "there are runs in it: .*run/a"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(make, message, tmp_path):
    make(tmp_path / "run")
    error = run_report(tmp_path / "run", "--output", tmp_path / "x.html")
    assert re.search(message, error) and not (tmp_path / "x.html").exists()


def test_a_run_in_progress_is_shown_as_far_as_it_is(tmp_path, capsys):
    write_config(tmp_path, SOLVER__MAX_ITER=90000)
    write_metrics(tmp_path, [step(19)])
    assert run_report(tmp_path, "--output", tmp_path / "x.html") == ""
    assert "not finished: iteration 20 of 90000" in capsys.readouterr().out
    html = (tmp_path / "x.html").read_text()
    missing = ("no evaluation has run yet", "No excess penalty is recorded", "not finished",
               "There is no runs.json", "No evaluation is recorded in metrics.json")  # fmt: skip
    assert [said for said in missing if said not in html] == []


def test_a_run_with_nothing_but_a_config_is_a_page(tmp_path):
    write_config(tmp_path, SOLVER__BASE_LR=0.125)
    assert run_report(tmp_path, "--output", tmp_path / "x.html") == ""
    html = (tmp_path / "x.html").read_text()
    assert "There is no record of a training step" in html and "0.125" in html


def test_a_page_that_cannot_be_written_is_reported(tmp_path):
    write_config(tmp_path)
    (tmp_path / "file").write_text("")
    error = run_report(tmp_path, "--output", tmp_path / "file" / "x.html")
    assert re.search("^error: .*x.html could not be written: ", error)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system [exit]", "a: [", "- 1"])
def test_a_config_that_is_no_plain_yaml_is_reported(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    assert any("is skipped" in note for note in read_run(tmp_path, "x").notes)


def test_an_option_that_makes_no_sense_is_refused(tmp_path):
    for arguments in (
        ["a", "b", "--names", "x"],
        ["a", "--images", "-1"],
        ["a", "--output", tmp_path],
    ):
        assert "error:" in run_report(*arguments)


@pytest.fixture
def detection(tmp_path, coco_files):
    """Two runs on the same four images, with a class whose name is markup."""
    truth, images = coco_files
    truth.write_text(truth.read_text().replace('"cat"', json.dumps(EVIL)))
    runs = [
        detection_run(tmp_path / n, truth, images, shift) for n, shift in (("a", 2.0), ("b", 9.0))
    ]
    add_run_record(str(runs[0]), Namespace(resume=False, eval_only=False))
    return runs, truth, images


def test_chromium_shows_a_run_and_two_side_by_side(detection, chromium, tmp_path):  # noqa: F811
    (one, other), *_ = detection
    for folders, pictures in (([one], 4), ([one, other], 4)):
        file = tmp_path / "report.html"
        assert run_report(*folders, "--output", file, "--images", 2) == ""
        with opened(chromium, file) as page:
            text = page.locator("main").inner_text()
            assert EVIL in text and "cannot" not in text
            assert page.locator(".gallery img").count() == pictures
            loaded = "images => images.every(image => image.complete && image.naturalWidth > 9)"
            assert page.locator("main img").evaluate_all(loaded)
            _check_sorting(page)
            _check_viewer(page)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 1280  # nothing reaches out of the window
    assert "b: change" in text and "Differences between the runs" in text


def _check_sorting(page) -> None:
    table = page.locator("table", has=page.get_by_role("button", name="objects")).first
    table.get_by_role("button", name="objects").click()
    numbers = [int(x) for x in table.locator("tbody tr").evaluate_all(
        "rows => rows.map(r => r.cells[[...r.closest('table').tHead.rows[0].cells]"
        ".findIndex(c => c.textContent.trim() === 'objects')].textContent)")]  # fmt: skip
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) > 1


def _check_viewer(page) -> None:
    page.locator(".gallery .view").first.click()
    first = page.locator("dialog p").inner_text()
    assert "right" in first and page.locator("dialog").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog p").inner_text() != first
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def notes_on(*folders: Path, **options) -> str:
    """The notes in the report on the results of these runs."""
    runs = [read_run(folder, folder.name) for folder in folders]
    (dataset,) = detection_results(runs, **options)
    return "\n".join(dataset.notes)


def test_a_complete_run_has_no_notes(detection):
    assert notes_on(*detection[0]) == ""


def test_truth_that_has_moved_is_reported_and_can_be_named(detection, tmp_path):
    (one, _), truth, _ = detection
    moved = truth.rename(tmp_path / "moved.json")
    assert "The truth cannot be read" in notes_on(one)
    assert notes_on(one, truth_file=moved) == ""


def test_predictions_being_written_are_reported(detection):
    (one, other), *_ = detection
    (one / "inference" / "coco_instances_results.json").write_text('[{"image_id": 0, "cat')
    notes = notes_on(one, other)
    assert notes.startswith("a: the predictions cannot be measured: ")
    assert "it is being written, or its run was killed" in notes and "b: " not in notes


def test_images_that_are_not_there_are_reported(detection, tmp_path):
    options = ("--image-root", tmp_path / "elsewhere", "--output", tmp_path / "x.html")
    assert run_report(detection[0][0], *options) == ""
    assert "4 images cannot be drawn: " in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize(
    "text",
    ['{"tasks": 3}', '{"dataset": [], "tasks": {"bbox": [{"class": 1, "AP": "x"}]}}',
     "[]", '{"dataset": [], "tasks": {"bbox": [1]}}', "[" * 5000],
)  # fmt: skip
def test_files_of_any_form_end_no_report(text, detection, tmp_path):
    (one, _), *_ = detection
    for name in ("runs.json", "inference/own_val/per_class.json", "metrics.json", "config.yaml"):
        (one / name).write_text(text)
    (one / "inference" / "coco_instances_results.json").write_text(text)
    assert run_report(one, "--output", tmp_path / "x.html") == ""


def test_annotations_that_changed_since_are_reported(detection):
    (one, _), truth, _ = detection
    content = json.loads(truth.read_text())
    content["annotations"] = content["annotations"][:-1]
    truth.write_text(json.dumps(content))
    assert "have changed since" in notes_on(one)


def test_two_truths_of_the_same_name_are_reported(detection, tmp_path):
    (one, other), truth, _ = detection
    file = other / "inference" / "own_val" / "per_class.json"
    file.write_text(file.read_text().replace(str(truth), str(truth) + ".other"))
    assert "evaluated on different files" in notes_on(one, other)


def test_a_model_that_detects_nothing_is_reported(detection):
    (one, _), *_ = detection
    (one / "inference" / "coco_instances_results.json").write_text("[]")
    assert notes_on(one) == "a: the model detects nothing."


def test_only_recorded_results_are_shown_without_predictions(detection, tmp_path):
    (one, _), *_ = detection
    (one / "inference" / "coco_instances_results.json").unlink()
    assert run_report(one, "--output", tmp_path / "x.html") == ""
    html = (tmp_path / "x.html").read_text()
    assert "there are no predictions" in html and "Class by class" in html


def test_chromium_shows_a_pretraining(chromium, coco_files, tmp_path):  # noqa: F811
    images = sorted(coco_files[1].glob("*.jpg"))
    folder = classification_run(tmp_path / "run", images, [EVIL, "dog"])
    assert run_report(folder, "--output", tmp_path / "x.html") == ""
    with opened(chromium, tmp_path / "x.html") as page:
        text = page.locator("main").inner_text()
        assert f"{EVIL} 95%, it is dog (5%)" in text or f"{EVIL} 88%, it is dog (12%)" in text
        assert page.locator(".gallery img").count() == 4
        assert "top-1 %" in text and "50.0" in text
