"""Files that users really have where weights or a config should be; one function writes each."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from d2_isonet.config.loading import load_config
from d2_isonet.modeling.backbone.build import build_isonet_backbone

TENSORS = {"model": {"res2.0.conv1.weight": torch.arange(4000.0)}}


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_truncated(path: Path) -> None:
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_zip_bomb(path: Path, size: int = 1 << 26) -> None:
    """A torch.save file in which one tensor is `size` zeros, compressed to a thousandth."""
    original = path.with_suffix(".original")
    torch.save(TENSORS, original)
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(original) as source, packed as target:
        for entry in source.infolist():
            is_tensor = entry.filename.endswith("/data/0")
            target.writestr(
                entry.filename, bytes(size) if is_tensor else source.read(entry.filename)
            )


def write_hostile_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Hostile(path.parent / "executed")}))


def write_backbone(path: Path, depth: int, prefix: str = "", **content) -> None:
    """A state dict of R-ISONet with 16 channels, without a record of what it is."""
    from detectron2.layers import ShapeSpec

    width = 16 if depth < 50 else 64
    opts = ["MODEL.RESNETS.DEPTH", str(depth), "MODEL.RESNETS.STEM_OUT_CHANNELS", "16"]
    opts += ["MODEL.RESNETS.RES2_OUT_CHANNELS", str(width), "MODEL.RESNETS.WIDTH_PER_GROUP", "16"]
    cfg = load_config("configs/quickstart/small_risonet18_dc5.yaml", opts)
    state_dict = build_isonet_backbone(cfg, ShapeSpec(channels=3)).state_dict()
    torch.save({"model": {prefix + k: v for k, v in state_dict.items()}, **content}, path)


def aliases(lines: int, width: int, merge: bool = False) -> str:
    """yaml of so many lines, the last of which stands for width ** lines values."""
    text = ["a0: &a0 {x0: 1}" if merge else "a0: &a0 [x]"]
    for i in range(1, lines):
        names = ", ".join([f"*a{i - 1}"] * width)
        text.append(f"a{i}: &a{i} {{<<: [{names}]}}" if merge else f"a{i}: &a{i} [{names}]")
    return "\n".join(text) + "\n"


WEIGHTS = {
    "hostile.pkl": write_hostile_pickle,
    "hostile.pth": lambda path: torch.save({"model": Hostile(path.parent / "executed")}, path),
    "renamed_pickle.pth": write_hostile_pickle,
    "arguments.pth": lambda path: torch.save({**TENSORS, "args": argparse.Namespace()}, path),
    "numpy.pth": lambda path: torch.save({**TENSORS, "best": np.float64(38.1)}, path),
    "arrays.pth": lambda path: torch.save({"model": {"res2.0.x": np.ones((2, 2))}}, path),
    "truncated.pth": write_truncated,
    "empty.pth": lambda path: path.write_bytes(b""),
    "page.pth": lambda path: path.write_text("<!DOCTYPE html><html>Sign in</html>"),
    "pointer.pth": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "bomb.pth": write_zip_bomb,
    "folder.pth": lambda path: path.mkdir(),
    "photo.pth": lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(99)),
    "cut.safetensors": lambda path: path.write_bytes(b"\x09\x00\x00\x00\x00\x00\x00\x00{"),
    "list.pth": lambda path: torch.save([1, 2], path),
    "deeper.pth": lambda path: write_backbone(path, 34, matching_heuristics=True),
    "bottlenecks.pth": lambda path: write_backbone(path, 50, matching_heuristics=True),
    "shallower.pth": lambda path: write_backbone(path, 18, matching_heuristics=True),
    "no_prefix.pth": lambda path: write_backbone(path, 18),
    "other_prefix.pth": lambda path: write_backbone(path, 18, prefix="encoder."),
    "what?.pth": lambda path: write_backbone(path, 18, matching_heuristics=True),
}

YAML = {
    "tab.yaml": "SOLVER:\n\tBASE_LR: 0.1\n",
    "typo.yaml": "SOLVER: {BASE_LRR: 0.1}\n",
    "hostile.yaml": "OUTPUT_DIR: !!python/object/apply:os.mkdir [executed]\n",
    "hostile_leaf.yaml": "_BASE_: hostile.yaml\n",
    "circle_a.yaml": "_BASE_: circle_b.yaml\n",
    "circle_b.yaml": "_BASE_: circle_a.yaml\n",
    "orphan.yaml": "_BASE_: parent.yaml\n",
    "address.yaml": "_BASE_: https://example.invalid/base.yaml\n",
    "number_base.yaml": "_BASE_: 3\n",
    "aliases.yaml": aliases(10, 9),
    "merges.yaml": aliases(10, 9, merge=True),
    "ouroboros.yaml": "DATASETS: &a {TRAIN: [*a]}\n",
    "deep.yaml": "MODEL: " + "[" * 5000 + "]" * 5000 + "\n",
    "binary.yaml": b"\x80\x9c\x00" * 30,
    "list.yaml": "- MODEL\n",
    "date.yaml": "SOLVER: {BASE_LR: 2020-99-99}\n",
}


def write(folder: Path, name: str) -> Path:
    """Write the file of that name, and the yaml files that one may inherit from, into `folder`."""
    path = folder / name
    if name in WEIGHTS:
        WEIGHTS[name](path)
        return path
    for each, content in YAML.items():
        (folder / each).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
