"""Facts about the detectron2 that third_party/detectron2 builds, and about how it is built."""

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import detectron2
import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog, get_detection_dataset_dicts
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from repository import REPOSITORY

THIRD_PARTY = REPOSITORY / "third_party" / "detectron2"
MODULES = ["model_zoo", "data", "engine", "evaluation", "export", "projects.panoptic_deeplab"]

built_here = pytest.mark.skipif(
    not (Path(detectron2.__file__).parent / "export" / "_needs_caffe2.py").is_file(),
    reason="this is an official detectron2, not the one third_party/detectron2 builds",
)


@pytest.fixture
def build(monkeypatch):
    """Imports a module of the build backend by its short name."""
    monkeypatch.syspath_prepend(str(THIRD_PARTY))
    return lambda name: importlib.import_module(f"detectron2_build.{name}")


@pytest.fixture
def dataset(request):
    """Registers a data set of records under the test's own name; forgets it afterwards."""
    name = request.node.name

    def register(records: list[dict], **metadata) -> str:
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield register
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


# One process loads torch; each module is imported by a fork of it that knows no detectron2 yet.
IMPORT_EACH_FIRST = """
import importlib, os, sys, torchvision, matplotlib.pyplot
for module in sys.argv[1:]:
    process = os.fork()
    if process == 0:
        importlib.import_module("detectron2." + module)
        print(module, flush=True)
        os._exit(0)
    os.waitpid(process, 0)
"""


@pytest.fixture(scope="module")
def first_imports() -> subprocess.CompletedProcess:
    """Prints the name of each module that can be imported before the others."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_EACH_FIRST, *MODULES]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@built_here
@pytest.mark.parametrize("module", MODULES)
def test_module_can_be_imported_first(first_imports, module):
    assert module in first_imports.stdout.splitlines(), first_imports.stderr


@built_here
def test_every_module_imports_or_says_that_it_needs_caffe2():
    failures = {}
    for module in pkgutil.walk_packages(detectron2.__path__, "detectron2."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            failures[module.name.removeprefix("detectron2.export.")] = str(error)
    assert all("needs Caffe2" in message for message in failures.values()), failures
    caffe2 = {"api", "c10", "caffe2_export", "caffe2_inference", "caffe2_modeling", "caffe2_patch"}
    assert set(failures) == caffe2 | {"shared", "_needs_caffe2"}


@built_here
def test_a_missing_operator_is_named_with_the_remedy():
    from detectron2.layers import nms_rotated

    with pytest.raises(NotImplementedError, match="nms_rotated is a compiled.*build the official"):
        nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5)


@built_here
def test_hasattr_answers_no_for_a_missing_operator():
    from detectron2 import _C

    assert not hasattr(_C, "COCOevalAccumulate")
    assert _C.has_cuda() is False


@built_here
def test_the_environment_report_of_default_setup_is_written():
    from detectron2.utils.collect_env import collect_env_info

    assert "not compiled (pure-Python detectron2)" in collect_env_info()


@built_here
def test_a_model_zoo_config_is_found_without_pkg_resources():
    from detectron2 import model_zoo

    config = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    assert config.MODEL.MASK_ON is True


def test_a_class_beyond_the_class_names_is_refused(dataset):
    # np.int made this check an AttributeError, which detectron2 v0.6 took for "no class names".
    annotation = {"category_id": 7, "bbox": [0, 0, 1, 1]}
    name = dataset([{"annotations": [annotation]}], thing_classes=["cat", "dog"])
    with pytest.raises(AssertionError, match="category_id=7"):
        get_detection_dataset_dicts(name)


def test_a_record_mapped_to_none_is_replaced_by_another():
    # Python 3.11 removed random.sample from a set, which this fallback used.
    odd = MapDataset([0, 1, 2, 3], lambda number: number if number % 2 else None)
    assert [odd[1], odd[3]] == [1, 3]
    assert {odd[0], odd[2]} <= {1, 3}


def test_true_boxes_and_masks_score_100_without_compiled_operators(dataset, tmp_path):
    mask = np.zeros((40, 50), dtype=np.uint8)
    mask[10:30, 5:45] = 1
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 10, 40, 20], "area": 800}
    annotation |= {"iscrowd": 0, "segmentation": [[5, 10, 45, 10, 45, 30, 5, 30]]}
    image = {"id": 1, "file_name": "1.jpg", "height": 40, "width": 50}
    truth = {"info": {}, "images": [image], "annotations": [annotation]}
    truth["categories"] = [{"id": 1, "name": "thing"}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    found = Instances((40, 50), pred_boxes=Boxes(torch.tensor([[5.0, 10, 45, 30]])))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    found.pred_masks = torch.from_numpy(mask)[None].bool()
    name = dataset([], json_file=str(tmp_path / "truth.json"), thing_classes=["thing"])
    MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = {1: 0}

    evaluator = COCOEvaluator(name, tasks=("bbox", "segm"), output_dir=str(tmp_path))
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    results = evaluator.evaluate()

    assert pycocotools.mask.area(pycocotools.mask.encode(np.asfortranarray(mask))) == 800
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)


def test_another_archive_is_refused(build, tmp_path, monkeypatch):
    archive = tmp_path / "pb1-detectron2-0.6.tar.gz"
    archive.write_bytes(b"another source")
    monkeypatch.setenv("DETECTRON2_SDIST", str(archive))
    with pytest.raises(ValueError, match="is not the expected sdist.*DETECTRON2_SDIST"):
        build("sdist").obtain_sdist(tmp_path)


def test_a_given_archive_that_is_missing_is_named(build, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_SDIST", str(tmp_path / "missing.tar.gz"))
    with pytest.raises(FileNotFoundError, match="missing.tar.gz: there is no such file"):
        build("sdist").obtain_sdist(tmp_path)


def test_an_edit_that_finds_nothing_stops_the_build(build, tmp_path):
    edits = build("edits")
    (tmp_path / "module.py").write_text("answer = 42\n")
    with pytest.raises(ValueError, match="module.py: expected 1 times 'answer = 41', found 0"):
        edits.apply_edits(tmp_path, (edits.Edit("module.py", "answer = 41", "", "a reason"),))


def test_an_edited_file_says_so(build, tmp_path):
    edits = build("edits")
    (tmp_path / "module.py").write_text("answer = 41\n")
    edits.apply_edits(tmp_path, (edits.Edit("module.py", "41", "42", "a reason"),))
    expected = "answer = 42\n# Changed from detectron2 v0.6: a reason.\n"
    assert (tmp_path / "module.py").read_text() == expected


def test_the_build_asks_the_index_that_pip_is_configured_for(build, tmp_path, monkeypatch):
    configuration = "[global]\nindex-url = https://file.invalid/simple\ntrusted-host = a b\n"
    (tmp_path / "pip.conf").write_text(configuration)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.invalid/simple")
    options = build("sdist").pip_options()
    assert options["index-url"] == "https://variable.invalid/simple"
    assert options["trusted-host"] == "a b"
