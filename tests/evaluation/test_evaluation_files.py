"""What COCO evaluations leave: detectron2's own files, and none where the disk is full."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.structures import Boxes, Instances

from d2_isonet.evaluation.build import TolerantEvaluator, make_coco_json
from d2_isonet.evaluation.coco_evaluation import FastCOCOEvaluator
from d2_isonet.utils.files import SaveError


def found(**fields) -> Instances:
    return Instances((60, 80), **fields)


BOXES = Boxes(torch.tensor([[5.0, 6, 23, 46], [30, 6, 50, 50]]))
KINDS = {
    "instances": lambda: found(
        pred_boxes=BOXES, scores=torch.tensor([0.9, 0.5]), pred_classes=torch.tensor([0, 2])
    ),
    "proposals": lambda: found(proposal_boxes=BOXES, objectness_logits=torch.tensor([2.0, 1.0])),
}


@pytest.fixture
def evaluate(coco_files, request):
    """Results of an evaluator's class on four images with the same output."""
    name = request.node.name
    MetadataCatalog.get(name).set(
        json_file=str(coco_files[0]),
        thing_dataset_id_to_contiguous_id={9: 0, 3: 1, 7: 2},
        thing_classes=["ship", "cat", "tree"],
    )

    def run(kind: str, evaluator_class: type[COCOEvaluator], folder) -> dict:
        evaluator = evaluator_class(name, output_dir=str(folder), use_fast_impl=False)
        evaluator.reset()
        for i in range(4):
            evaluator.process([{"image_id": i}], [{kind: KINDS[kind]()}])
        return evaluator.evaluate()

    yield run
    MetadataCatalog.pop(name)


def content(folder) -> dict:
    """By name of the file, what is in it, in plain types."""
    files = {p.name: p for p in folder.iterdir() if p.is_file()}  # not that of each class
    plain = {n: p.read_bytes() for n, p in files.items() if n.endswith((".json", ".pkl"))}
    predictions = torch.load(files["instances_predictions.pth"], weights_only=False)
    return plain | {"instances_predictions.pth": str(predictions)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_those_of_detectron2(kind, evaluate, tmp_path):
    ours = evaluate(kind, FastCOCOEvaluator, tmp_path / "ours")
    theirs = evaluate(kind, COCOEvaluator, tmp_path / "theirs")
    np.testing.assert_equal(ours, theirs)
    assert content(tmp_path / "ours") == content(tmp_path / "theirs")
    assert len(content(tmp_path / "ours")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_costs_the_files_alone(kind, evaluate, tmp_path, monkeypatch, caplog):
    expected = evaluate(kind, FastCOCOEvaluator, tmp_path / "good")

    def full(path, content):
        raise SaveError(f"{path} could not be written: No space left on device")

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write_checkpoint", "write_text"):
        monkeypatch.setattr(f"d2_isonet.evaluation.coco_evaluation.{name}", full)
    monkeypatch.setattr("detectron2.evaluation.coco_evaluation.PathManager.open", no_space)
    np.testing.assert_equal(evaluate(kind, FastCOCOEvaluator, tmp_path / "full"), expected)
    for name in content(tmp_path / "good"):
        text = (
            f"full/{name} could not be written: No space left on device. The evaluation continues"
        )
        assert text in caplog.text


class Writing(DatasetEvaluator):
    """What goes wrong when it writes, as torch.save or open say it."""

    def __init__(self, error: OSError, wrapped: bool):
        self.error, self.wrapped, self.calls = error, wrapped, []

    def reset(self) -> None:
        self.calls.append("reset")

    def process(self, inputs, outputs) -> None:
        self.calls.append("process")

    def evaluate(self) -> dict:
        try:
            raise self.error
        except OSError:
            if self.wrapped:
                raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904
            raise


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_evaluator_on_a_full_disk_has_no_result(wrapped, caplog):
    writing = Writing(OSError(errno.ENOSPC, "No space left on device"), wrapped)
    evaluator = TolerantEvaluator(writing)
    evaluator.reset()
    evaluator.process([], [])
    assert evaluator.evaluate() == {} and writing.calls == ["reset", "process"]
    assert (
        "A file of Writing could not be written: No space left on device. It has no" in caplog.text
    )


def test_another_mistake_of_an_evaluator_is_raised():
    missing = OSError(errno.ENOENT, "No such file or directory")
    with pytest.raises(FileNotFoundError):
        TolerantEvaluator(Writing(missing, False)).evaluate()


def test_a_file_that_is_needed_is_written_elsewhere(tmp_path, monkeypatch, caplog):
    def convert(name: str, path: str) -> None:
        if path.startswith(str(tmp_path)):
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(path).write_text("{}")

    monkeypatch.setattr("d2_isonet.evaluation.build.convert_to_coco_json", convert)
    DatasetCatalog.register("written_elsewhere", list)
    make_coco_json("written_elsewhere", str(tmp_path))
    path = MetadataCatalog.get("written_elsewhere").json_file
    DatasetCatalog.remove("written_elsewhere")
    MetadataCatalog.remove("written_elsewhere")
    assert not path.startswith(str(tmp_path)) and Path(path).read_text() == "{}"
    assert (
        f"{tmp_path} could not be written: No space left on device. The COCO json is" in caplog.text
    )
