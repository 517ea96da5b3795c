"""What importing d2_isonet does: registers its networks in whatever order, and takes no time."""

import json
import pickle
import pkgutil
import subprocess
import sys
from argparse import Namespace

import pytest
from benchmarks import imports

import d2_isonet
from d2_isonet.layers.activation import SReLU

HEAVY = ("torch", "torchvision", "detectron2", "numpy", "cv2", "matplotlib", "pycocotools", "yaml")
REGISTERED = [
    "ISONetRes5ROIHeads", "ImageClassifier", "build_cnn9_backbone", "build_isonet_backbone",
    "build_isonet_fpn_backbone", "build_retinanet_isonet_fpn_backbone",
]  # fmt: skip
ORDERS = {
    "ours first": "import d2_isonet, detectron2.modeling",
    "detectron2's first": "import detectron2.modeling, d2_isonet",
    "a name of modeling": "import d2_isonet\nfrom detectron2.modeling import build_model",
    "all public names": "from d2_isonet import *",
    "a public name": "import d2_isonet; d2_isonet.OrthogonalRegularizer",
    "a module as an attribute": "import d2_isonet; d2_isonet.engine",
    "an object from another process": f"import pickle; pickle.loads({pickle.dumps(SReLU(2))})",
    "two threads": """
import importlib, threading
names = ("d2_isonet.modeling.backbone.resnet", "detectron2.modeling")
threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in names]
for step in (threading.Thread.start, threading.Thread.join):
    for thread in threads:
        step(thread)
""",
    "again": """
import importlib, d2_isonet
importlib.reload(d2_isonet)
import detectron2.modeling
importlib.reload(detectron2.modeling)
importlib.reload(d2_isonet)
assert sum(type(f).__name__ == "ImportWatcher" for f in sys.meta_path) == 1
""",
    "after an error": """
import d2_isonet
sys.modules["d2_isonet.modeling.backbone.cnn9"] = None
try:
    import detectron2.modeling
except ImportError as error:
    assert "d2_isonet.modeling.backbone.cnn9" in str(error)
else:
    raise AssertionError("the error vanished")
del sys.modules["d2_isonet.modeling.backbone.cnn9"]
""",
} | {
    f"{name} first": f"import d2_isonet.{name}"
    for name in (
        "modeling.backbone.build", "modeling.classifier", "modeling.backbone.cnn9",
        "engine.trainer", "modeling.backbone.resnet",
        "modeling.roi_heads",
    )
}  # fmt: skip

# One process loads what detectron2 needs; forks of it, without detectron2 yet, try each order.
TRY_EACH = """
import json, os, sys, cv2, matplotlib.pyplot, pycocotools.mask, torch, torchvision
assert not any(name.startswith("detectron2") for name in sys.modules)
for name, code in json.load(sys.stdin).items():
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        try:
            exec(code, globals())
            from detectron2 import modeling
            registries = modeling.BACKBONE_REGISTRY, modeling.META_ARCH_REGISTRY
            items = [item for r in (*registries, modeling.ROI_HEADS_REGISTRY) for item in r]
            found = [name for name, x in items if x.__module__.startswith("d2_isonet.")]
        except BaseException as error:
            found = repr(error)
        print(json.dumps([name, found]), flush=True)
        os._exit(0)
    os.waitpid(process, 0)
"""


@pytest.fixture(scope="module")
def registered() -> dict[str, list[str] | str]:
    """For each order of imports what detectron2's registries hold of ours, or the error."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRY_EACH],
        input=json.dumps(ORDERS), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    return dict(json.loads(line) for line in process.stdout.splitlines())


def imported_by(*arguments: str) -> set[str]:
    """The packages that a Python process imports, as it reports them itself."""
    command = [sys.executable, "-X", "importtime", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    lines = [x for x in process.stderr.splitlines() if x.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("order", ORDERS)
def test_everything_is_registered_once(order, registered):
    assert not isinstance(registered[order], str), registered[order]
    assert sorted(registered[order]) == REGISTERED


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import d2_isonet; d2_isonet.__version__"],
        ["train_net.py", "--help"],
        ["train_net.py", "--num-gpus", "many"],
        ["tools/pretrain_imagenet.py", "--help"],
        ["tools/pretrain_imagenet.py", "--config-fil"],
        ["tools/convert_isonet_weights.py", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments):
    imported = imported_by(*arguments)
    assert "d2_isonet" in imported or "convert" in arguments[0]
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", d2_isonet.__all__)
def test_a_public_name_is_what_its_module_defines(name):
    value = getattr(d2_isonet, name)
    assert value.__name__ == name
    assert getattr(sys.modules[value.__module__], name) is value
    assert name in dir(d2_isonet)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'d2_isonet' has no attribute 'SRELU'"):
        d2_isonet.SRELU  # noqa: B018


def test_modules_keep_their_own_loaders():
    names = [module.name for module in pkgutil.iter_modules(d2_isonet.__path__, "d2_isonet.")]
    loaded = [sys.modules[name] for name in names if name in sys.modules]
    assert len(loaded) > 3
    assert {type(module.__loader__) for module in loaded} == {type(d2_isonet.__loader__)}
    assert all(module.__spec__.loader is module.__loader__ for module in loaded)


def test_the_benchmark_times_processes(monkeypatch):
    monkeypatch.setattr(imports, "_PEER", ["-c", "import json"])
    clock, cpu = imports.compare(Namespace(quick=True, repetitions=5))
    assert (clock.name, cpu.name) == ("import d2_isonet", "import d2_isonet, CPU")
    assert 0 < cpu.ours[0] and 0 < cpu.peer[0] and 0 < clock.ratio
    with pytest.raises(RuntimeError, match="(?s)1/0 failed: .*ZeroDivisionError"):
        list(imports._rows("broken", ["-c", "1/0"], ["-c", ""], 1, None))
