"""The edits that make detectron2 v0.6 run with today's libraries: what, where, how often, why."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """Replace every occurrence of `old` in one file by `new`; there must be `count` of them."""

    path: str
    old: str
    new: str
    reason: str
    count: int = 1


def _numpy_alias(path: str, name: str, count: int) -> Edit:
    """NumPy 1.24 removed its aliases of Python's types; they always meant the built-in type."""
    return Edit(path, f"np.{name})", f"{name})", f"NumPy has no np.{name}", count)


CAFFE2 = "PyTorch has no Caffe2"
MESHGRID = "PyTorch wants meshgrid's indexing spelled out"
LAZY_PANOPTICAPI = "panopticapi, which no package index has, is imported where it is used"
NO_OPERATOR = "operators that were not compiled say so"
PKG_RESOURCES = "setuptools has no pkg_resources"

EDITS = (
    Edit(
        "detectron2/data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "Pillow 10 has no Image.LINEAR",
    ),
    _numpy_alias("detectron2/data/build.py", "int", 1),
    Edit(
        "detectron2/data/build.py",
        'x.get("iscrowd", 0)], dtype=np.int\n',
        'x.get("iscrowd", 0)], dtype=int\n',
        "NumPy has no np.int",
    ),
    _numpy_alias("detectron2/data/datasets/pascal_voc.py", "str", 1),
    _numpy_alias("detectron2/evaluation/pascal_voc_evaluation.py", "bool", 2),
    _numpy_alias("detectron2/evaluation/sem_seg_evaluation.py", "int", 2),
    _numpy_alias("detectron2/evaluation/sem_seg_evaluation.py", "float", 5),
    _numpy_alias("detectron2/structures/masks.py", "bool", 3),
    _numpy_alias("detectron2/utils/video_visualizer.py", "bool", 1),
    _numpy_alias("detectron2/utils/visualizer.py", "bool", 3),
    Edit(
        "detectron2/layers/mask_ops.py",
        "mask = np.array(mask, copy=False)",
        "mask = np.asarray(mask)",
        "NumPy 2 raises where copy=False would copy",
    ),
    Edit(
        "detectron2/data/common.py",
        "self._rng.sample(self._fallback_candidates, k=1)",
        "self._rng.sample(sorted(self._fallback_candidates), k=1)",
        "Python 3.11 does not sample from a set",
    ),
    Edit("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", "", PKG_RESOURCES),
    Edit(
        "detectron2/model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
        PKG_RESOURCES,
    ),
    Edit(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        MESHGRID,
    ),
    Edit(
        "detectron2/projects/panoptic_deeplab/post_processing.py",
        "torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n",
        "torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n"
        '        indexing="ij",\n',
        MESHGRID,
    ),
    Edit(
        "detectron2/layers/nms.py",
        "from torchvision.ops import nms  # BC-compat\n",
        "from torchvision.ops import nms  # BC-compat\n\nfrom detectron2 import _C\n",
        NO_OPERATOR,
    ),
    Edit(
        "detectron2/layers/nms.py",
        "torch.ops.detectron2.nms_rotated(",
        "_C.nms_rotated(",
        NO_OPERATOR,
    ),
    Edit(
        "detectron2/evaluation/coco_evaluation.py",
        "self._use_fast_impl = use_fast_impl\n",
        "self._use_fast_impl = use_fast_impl and COCOeval_opt is not COCOeval\n",
        NO_OPERATOR,
    ),
    Edit(
        "detectron2/projects/panoptic_deeplab/dataset_mapper.py",
        "from panopticapi.utils import rgb2id\n",
        "",
        LAZY_PANOPTICAPI,
    ),
    Edit(
        "detectron2/projects/panoptic_deeplab/dataset_mapper.py",
        "        targets = self.panoptic_target_generator(rgb2id(",
        "        from panopticapi.utils import rgb2id\n\n"
        "        targets = self.panoptic_target_generator(rgb2id(",
        LAZY_PANOPTICAPI,
    ),
    Edit("detectron2/export/__init__.py", "from .api import *\n", "", CAFFE2),
    *(
        Edit(
            f"detectron2/export/{module}.py",
            "import logging\n",
            "from . import _needs_caffe2  # noqa: F401\nimport logging\n",
            CAFFE2,
        )
        for module in ("api", "caffe2_export", "caffe2_inference", "shared")
    ),
)


def apply_edits(tree: Path, edits: tuple[Edit, ...] = EDITS) -> None:
    """Edit the files under tree; an edit that does not find its text raises ValueError."""
    for edit in edits:
        path = tree / edit.path
        text = path.read_text(encoding="utf-8")
        found = text.count(edit.old)
        if found != edit.count:
            raise ValueError(
                f"{edit.path}: expected {edit.count} times {edit.old!r}, found {found}. The edits "
                f"are for detectron2 v0.6 only; this is another source."
            )
        # The licence (section 4b) asks that changed files say so.
        notice = f"# Changed from detectron2 v0.6: {edit.reason}.\n"
        text = text.replace(edit.old, edit.new)
        path.write_text(text if notice in text else text + notice, encoding="utf-8")
