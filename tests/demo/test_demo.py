"""d2-isonet demo as a user runs it: what is written, what is told, and every mistake in words."""

import argparse
import json
import re
import sys

import bad_files
import cv2
import demo_detector
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2_isonet.commands import demo
from d2_isonet.data.categories import Categories
from d2_isonet.demo import detector, runner
from d2_isonet.demo.sources import find_sources

RED, BLUE = (10, 20, 30, 15), (50, 5, 20, 10)


@pytest.fixture
def photos(tmp_path):
    """A folder: an image with red and blue, a turned one with red, and two that are none."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    cv2.imwrite(str(folder / "both.png"), demo_detector.picture(RED, BLUE))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be shown after a quarter turn clockwise
    upright = demo_detector.picture(RED)[:, :, ::-1]
    lying = np.ascontiguousarray(np.rot90(upright))
    Image.fromarray(lying).save(folder / "sub" / "turned.png", exif=exif)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "sub" / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("x")
    return folder


def options(tmp_path, *words, **changes) -> argparse.Namespace:
    given = ["--config-file", "x", "--weights", "x", "--output", str(tmp_path / "out")]
    args = demo.argument_parser().parse_args([*given, "--input", *map(str, words)])
    return argparse.Namespace(**{**vars(args), **changes})


def run(tmp_path, *words, **changes) -> int:
    """The exit code of a demo with the detector of bright rectangles."""
    args = options(tmp_path, *words, **changes)
    return runner.run(args, demo_detector.BrightDetector(), find_sources(args.input))


def read(tmp_path, name: str):
    return json.loads((tmp_path / "out" / name).read_text())


def test_a_folder_becomes_annotated_copies_and_coco_json(photos, tmp_path, capsys):
    assert run(tmp_path, photos) == 0
    written = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/*.*")
    )
    assert written == ["both.png", "images.json", "results.json", "sub/turned.png"]
    images, results = read(tmp_path, "images.json"), read(tmp_path, "results.json")
    assert images["images"] == [
        {"id": 1, "file_name": "both.png", "width": 80, "height": 60},
        {"id": 2, "file_name": "sub/turned.png", "width": 80, "height": 60},
    ]
    assert [(x["image_id"], x["category_id"], x["bbox"]) for x in results] == [
        (1, 3, list(RED)), (1, 9, list(BLUE)), (2, 3, list(RED)),
    ]  # fmt: skip
    assert images["categories"][2] == {"id": 9, "name": "blue"}
    told = capsys.readouterr()
    assert "2 pictures in" in told.out and "3 objects of score 0.5 or more" in told.out
    assert "skipped: empty.jpg: 0 bytes" in told.err
    assert "2 of 4 files could not be read: empty.jpg, sub/text.jpg" in told.err
    assert "left out, not an image or video by suffix: " in told.err and "notes.txt" in told.err


def test_the_copy_of_a_turned_image_is_upright(photos, tmp_path):
    run(tmp_path, photos / "sub" / "turned.png")
    with Image.open(tmp_path / "out" / "turned.png") as copy:
        assert copy.size == (80, 60) and copy.getexif().get(0x0112, 1) == 1
        assert np.asarray(copy)[50, 70].tolist() == [30, 30, 30]


def evaluate(truth: dict, results: list, folder, task: str) -> float:
    """COCO's AP by pycocotools."""
    (folder / "truth.json").write_text(json.dumps(truth))
    coco = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(results), task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def truth_of(photos) -> dict:
    """The user's own COCO file of the folder, with ids of its own."""
    x, y, w, h = RED
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    a, b, c, d = BLUE
    annotations = [
        {"id": 1, "image_id": 500, "category_id": 3, "bbox": list(RED), "segmentation": polygon},
        {"id": 2, "image_id": 70, "category_id": 3, "bbox": list(RED), "segmentation": polygon},
        {"id": 3, "image_id": 70, "category_id": 9, "bbox": list(BLUE),
         "segmentation": [[a, b, a + c, b, a + c, b + d, a, b + d]]},
    ]  # fmt: skip
    for annotation in annotations:
        annotation |= {"iscrowd": 0, "area": annotation["bbox"][2] * annotation["bbox"][3]}
    names = zip(demo_detector.CATEGORIES.ids, demo_detector.CATEGORIES.names, strict=True)
    images = [{"id": 70, "file_name": "both.png"}, {"id": 500, "file_name": "sub/turned.png"}]
    return {
        "images": [{**image, "width": 80, "height": 60} for image in images],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in names],
    }


def test_pycocotools_evaluates_the_results_against_ones_own_annotations(photos, tmp_path, capsys):
    (tmp_path / "own.json").write_text(json.dumps(truth_of(photos)))
    assert run(tmp_path, photos, annotations=str(tmp_path / "own.json")) == 0
    assert "are not in" not in capsys.readouterr().out
    results = read(tmp_path, "results.json")
    assert {x["image_id"] for x in results} == {70, 500}
    for task in ("bbox", "segm"):
        assert evaluate(truth_of(photos), results, tmp_path, task) == pytest.approx(1.0)
        missed = [x for x in results if x["category_id"] != 9]  # one of two classes
        assert evaluate(truth_of(photos), missed, tmp_path, task) == pytest.approx(0.5)


def test_images_that_the_annotations_do_not_know_get_new_ids_and_are_counted(
    photos, tmp_path, capsys
):
    truth = truth_of(photos)
    truth["images"] = truth["images"][1:]
    (tmp_path / "own.json").write_text(json.dumps(truth))
    run(tmp_path, photos, annotations=str(tmp_path / "own.json"))
    assert {x["file_name"]: x["id"] for x in read(tmp_path, "images.json")["images"]} == {
        "both.png": 501, "sub/turned.png": 500,
    }  # fmt: skip
    assert "1 of them are not in" in capsys.readouterr().out


def test_images_json_itself_is_read_by_pycocotools(photos, tmp_path):
    run(tmp_path, photos)
    coco = COCO(str(tmp_path / "out" / "images.json"))
    found = coco.loadRes(str(tmp_path / "out" / "results.json"))
    assert found.annToMask(found.loadAnns([1])[0]).sum() == 30 * 15


def test_a_video_becomes_a_video_and_results_by_frame(tmp_path):
    pictures = [demo_detector.picture((10 + 5 * i, 20, 20, 20)) for i in range(4)]
    demo_detector.write_video(tmp_path / "clip.mp4", pictures)
    assert run(tmp_path, tmp_path / "clip.mp4", batch_size=3) == 0
    copy = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert (copy.get(cv2.CAP_PROP_FRAME_COUNT), copy.get(cv2.CAP_PROP_FPS)) == (4, 12.5)
    images, results = read(tmp_path, "images.json")["images"], read(tmp_path, "results.json")
    assert [(x["id"], x["frame"], x["seconds"]) for x in images] == [
        (1, 0, 0.0), (2, 1, 0.08), (3, 2, 0.16), (4, 3, 0.24),
    ]  # fmt: skip
    assert [x["image_id"] for x in results] == [1, 2, 3, 4]
    assert all(abs(x["bbox"][0] - (5 + 5 * x["image_id"])) < 3 for x in results)


def test_where_nothing_can_be_read_it_ends_with_1(tmp_path, capsys):
    for name in ("a.jpg", "b.mp4"):
        (tmp_path / name).write_text("nothing")
    assert run(tmp_path, tmp_path / "a.jpg", tmp_path / "b.mp4") == 1
    assert "2 of 2 files could not be read: a.jpg, b.mp4" in capsys.readouterr().err
    assert read(tmp_path, "results.json") == []


def test_ctrl_c_keeps_what_there_is(tmp_path, photos, capsys, monkeypatch):
    demo_detector.write_video(tmp_path / "clip.mp4", [demo_detector.picture()] * 6)
    found, calls = demo_detector.BrightDetector.instances, []

    def interrupted(self, images):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return found(self, images)

    monkeypatch.setattr(demo_detector.BrightDetector, "instances", interrupted)
    assert run(tmp_path, tmp_path / "clip.mp4") == 130
    assert len(read(tmp_path, "results.json")) == 3
    assert cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert "interrupted: the results so far are written" in capsys.readouterr().out


# ------------------------------------------------------------------------------ a real detector


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return demo_detector.write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.pth")


def main(weights, *words) -> int:
    """The exit code of `d2-isonet demo` with words after config and weights."""
    given = ["--config-file", demo_detector.SMALL, "--weights", str(weights), *map(str, words)]
    opts = [] if "--opts" in given else ["--opts", *demo_detector.OPTS]
    return demo.main([*given, *opts])


@pytest.fixture
def shapes(tmp_path):
    """A folder of five pictures in two sizes."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    for i in range(5):
        size = (60, 80) if i % 2 else (80, 60)
        noise = np.random.RandomState(i).randint(0, 256, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), noise)
    return folder


def test_a_batch_finds_what_single_images_give_and_fused_layers_too(
    weights, shapes, tmp_path, capsys
):
    out = [tmp_path / name for name in ("one", "three", "fused")]
    common = ("--input", shapes, "--threshold", "0")
    assert main(weights, *common, "--output", out[0]) == 0
    assert main(weights, *common, "--output", out[1], "--batch-size", "3") == 0
    assert main(weights, *common, "--output", out[2], "--fuse") == 0
    one, *others = (json.loads((folder / "results.json").read_text()) for folder in out)
    assert len(one) > 20
    for other in others:
        for a, b in zip(one, other, strict=True):
            assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
            np.testing.assert_allclose(a["bbox"], b["bbox"], rtol=1e-3, atol=1e-2)
            assert a["score"] == pytest.approx(b["score"], rel=1e-4)
    told = capsys.readouterr().out
    assert (
        "3 classes, named by " in told and "device cpu" in told and told.count("Hint: --fuse") == 2
    )


def test_only_the_scores_that_are_asked_for_are_written(weights, shapes, tmp_path):
    def scores_above(threshold: float, name: str) -> list[float]:
        words = ("--input", shapes, "--threshold", threshold, "--output", tmp_path / name)
        main(weights, *words)
        results = json.loads((tmp_path / name / "results.json").read_text())
        return sorted(result["score"] for result in results)

    scores = scores_above(0, "all")
    middle = float(np.mean(scores[len(scores) // 2 - 1 :][:2]))
    assert scores_above(middle, "some") == pytest.approx([s for s in scores if s > middle])


def test_an_image_that_the_detector_refuses_is_skipped_and_the_others_are_not(
    weights, shapes, tmp_path, capsys
):
    cv2.imwrite(str(shapes / "strip.png"), np.zeros((1, 4000, 3), np.uint8))
    words = ("--input", shapes, "--output", tmp_path / "out", "--batch-size", "6")
    assert main(weights, *words) == 0
    assert "skipped: strip.png: the image is 4000 x 1; made to fit" in capsys.readouterr().err
    assert len(read(tmp_path, "images.json")["images"]) == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_taken_and_named(weights, shapes, tmp_path, capsys):
    opts = [x if x != "cpu" else "cuda" for x in demo_detector.OPTS]
    main(
        weights,
        "--input",
        shapes / "0.png",
        "--output",
        tmp_path / "out",
        "--opts",
        *opts,
    )
    assert "There is no CUDA device: running on the CPU" in capsys.readouterr().out


def test_names_come_from_the_annotations_only_where_they_are_the_detectors(tmp_path, photos):
    truth, path = truth_of(photos), str(tmp_path / "own.json")

    def named(source: str, **changes) -> list[str]:
        """What the classes red, green, blue are called that `source` has named."""
        (tmp_path / "own.json").write_text(json.dumps({**truth, **changes}))
        found = Categories(["red", "green", "blue"], [1, 2, 3], source)
        return detector._named_by(path, found, "w.pth")

    assert named("w.pth") == (["red", "green", "blue"], [3, 7, 9], path)
    truth["categories"][0]["name"] = "cat"
    with pytest.raises(ValueError, match="has 'cat' in place of 'red' in w.pth, and 0 more"):
        named("w.pth")
    for uncertain in ("data set 'coco_2017_val'", ""):
        assert named(uncertain).names == ["cat", "green", "blue"]
    with pytest.raises(ValueError, match="has 2 names, the network 3 classes"):
        named("", categories=truth["categories"][:2])


MISTAKES = {
    "MODEL.WEIGHTS: there is no file .*/none.pth": ("--weights", "{tmp}/none.pth"),
    "is an HTML page, not weights": ("--weights", "{file:page.pth}"),
    "is truncated": ("--weights", "{file:truncated.pth}"),
    "is a pickle, which can run any code.*--trust-pickle": ("--weights", "{file:hostile.pkl}"),
    "does not fit the model: .* tensors would keep": ("--weights", "{file:deeper.pth}"),
    "x.yaml": ("--config-file", "{tmp}/x.yaml"),
    "describes no detector": ("--config-file", "configs/imagenet/risonet18.yaml"),
    "--input: there is no file or folder .*/none.jpg": ("--input", "{tmp}/none.jpg"),
    "/empty has no image and no video in it": ("--input", "{tmp}/empty"),
    "camera 93 cannot be opened": ("--input", "webcam93"),
    "lies in the --input folder": ("--output", "{tmp}/shapes/new"),
    "already has 1 of the files that would be written: results.json": ("--output", "{tmp}/used"),
    "annotations: there is no file": ("--annotations", "{tmp}/none.json"),
    "MODEL.DEVICE is 'tpu'": ("--opts", "MODEL.DEVICE tpu"),
    "Non-existent key: MODEL.NOTHING": ("--opts", "MODEL.NOTHING 1"),
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_told_in_one_message(message, weights, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "results.json").write_text("precious")
    option, value = MISTAKES[message]
    if value.startswith("{file:"):
        value = str(bad_files.write(tmp_path, value[6:-1]))
    words = {"--input": str(shapes), "--output": str(tmp_path / "out")}
    words[option] = value.format(tmp=tmp_path)
    given = [part for pair in words.items() if pair[0] != "--opts" for part in pair]
    opts = ["--opts", *demo_detector.OPTS, *words.get("--opts", "").split()]
    with pytest.raises(SystemExit) as end:
        main(weights, *given, *opts)
    told = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in told
    assert len([x for x in told.splitlines() if x.startswith("error: ")]) == 1
    assert re.search(f"error: .*{message}", told), told
    assert not (tmp_path / "out").exists() and not (tmp_path / "executed").exists()


ARGUMENTS = {
    "the following arguments are required: --weights": "--config-file x",
    "there is nothing to look at: give --input": "--config-file x --weights x",
    "--output DIR is missing": "--config-file x --weights x --input a",
    "--weights is empty; name": "--config-file x --input a --output b --weights=",
    "--score-threshold is 50; it must be from 0 to 1": "--config-file x --weights x --threshold 50",
    "--batch-size is 0; it must be": "--config-file x --weights x --batch-size 0",
    "--max-frames is 0": "--config-file x --weights x --max-frames 0",
    "--threads is -1": "--config-file x --weights x --threads -1",
    "leave out --input and --output": "--config-file x --weights x --serve --input a",
    "--port is 99999": "--config-file x --weights x --serve --port 99999",
    "--max-upload is 0": "--config-file x --weights x --serve --max-upload 0",
}


@pytest.mark.parametrize("message", ARGUMENTS)
def test_arguments_that_cannot_be_meant_are_told(message, capsys):
    with pytest.raises(SystemExit) as end:
        demo.argument_parser().parse_args(ARGUMENTS[message].split())
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_without_flask_the_extra_is_named(weights, monkeypatch, capsys):
    import d2_isonet.demo as package

    monkeypatch.delattr(package, "server", raising=False)
    monkeypatch.delitem(sys.modules, "d2_isonet.demo.server", raising=False)
    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(SystemExit):
        main(weights, "--serve")
    message = "--serve needs waitress, which is not installed; pip install waitress"
    assert message in capsys.readouterr().err


def test_the_page_shows_what_a_real_detector_finds(weights, shapes, monkeypatch, capsys):
    pytest.importorskip("flask", reason="Flask is not installed (the extra 'serve')")
    pytest.importorskip("waitress", reason="waitress is not installed (the extra 'serve')")
    from d2_isonet.demo import server

    answers = []

    def ask(app, listening, args):
        """Ask once, where a server would go on for ever."""
        headers = {"Content-Type": "application/octet-stream"}
        data = (shapes / "0.png").read_bytes()
        send = lambda: answers.append(app.test_client().post("/detect", data=data, headers=headers))  # noqa: E731
        return argparse.Namespace(run=send)

    monkeypatch.setattr(server, "create_server", ask)
    assert main(weights, "--serve", "--port", "0", "--threshold", "0") == 0
    assert "The page is at http://127.0.0.1:" in capsys.readouterr().out
    assert answers[0].status_code == 200 and len(answers[0].json["objects"]) > 5


def test_ctrl_c_before_the_start_ends_quietly(weights, shapes, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(detector, "Predictor", interrupt)
    assert main(weights, "--input", shapes, "--output", tmp_path / "out") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_does_not_wait_for_torch():
    import subprocess

    code = "import sys; sys.argv = ['demo', '--help']\nfrom d2_isonet.commands import demo\n"
    code += "try:\n    demo.main()\nexcept SystemExit:\n    pass\n"
    code += "assert not {'torch', 'cv2', 'flask', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
