"""The files in data/before_the_move, the data of their runs, and how contents are compared."""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import detectron2.engine.train_loop
import numpy as np
import PIL
import torch
from PIL import Image
from repository import REPOSITORY

BEFORE = REPOSITORY / "tests" / "data" / "before_the_move"


def write_coco(root: Path) -> None:
    """Four training and two validation images of noise, one object each; PNG keeps every pixel."""
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        images, annotations = [], []
        (root / split).mkdir(parents=True)
        for i in seeds:
            width, height = ((80, 60), (60, 80))[i % 2]
            Image.fromarray(noise(i, height, width)).save(root / split / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
            annotations.append(
                {"id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 1760,
                 "bbox": [8, 6, 40, 44], "segmentation": [[8, 6, 48, 6, 48, 50, 8, 50]]}
            )  # fmt: skip
        categories = [{"id": 1, "name": "thing"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def write_tree(root: Path) -> Path:
    """The image folder that the stored shards were made of, byte by byte."""
    for shard in (BEFORE / "shards").glob("*.tar"):
        with tarfile.open(shard) as archive:
            content = {m.name: archive.extractfile(m).read() for m in archive}
        for name, record in content.items():
            if name.endswith(".json"):
                file = root / shard.name.partition("-")[0] / json.loads(record)["file"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content[name.replace(".json", ".png")])
    return root


def leaves(content, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value in nested mappings and sequences by its path; tuples count as lists."""
    if isinstance(content, Mapping):
        pairs = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        pairs = [(str(i), value) for i, value in enumerate(content)]
    else:
        yield path, content
        return
    yield path, sorted(key for key, _ in pairs)
    for key, value in pairs:
        yield from leaves(value, f"{path}/{key}")


def differences(first, second, tolerance: float = 0.0) -> list[str]:
    """Paths at which two nested contents differ."""
    first, second = dict(leaves(first)), dict(leaves(second))
    shared = first.keys() & second.keys()
    unequal = [p for p in shared if not is_same(first[p], second[p], tolerance)]
    return sorted({*unequal, *(first.keys() ^ second.keys())})


def is_same(first, second, tolerance: float) -> bool:
    if not isinstance(first, torch.Tensor):
        return type(first) is type(second) and first == second
    if tolerance:
        return torch.allclose(first.double(), second.double(), rtol=0, atol=tolerance)
    return first.dtype == second.dtype and torch.equal(first, second)


def digest(content) -> str:
    """The sha256 of every value in nested mappings and sequences."""
    hashing = hashlib.sha256()
    for path, value in sorted(leaves(content)):
        value = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        hashing.update(path.encode() + value)
    return hashing.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Of what a finished training leaves."""
    final = load(folder / "model_final.pth")
    found = {part: digest(final[part]) for part in ("model", "trainer", "meta")}
    found["average"] = digest(load(folder / "model_final_ema.pth"))
    return found


def load(path: Path) -> dict:
    content = torch.load(path, weights_only=True)
    if (path.parent / "backbone.pth").exists():  # classifiers did not record their classes then
        content.get("meta", {}).pop("categories", None)
    return content


def machine() -> dict[str, str]:
    """What the bits of a training depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    loop = Path(detectron2.engine.train_loop.__file__).read_bytes()  # differs from release to HEAD
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": model,
        "threads": str(torch.get_num_threads()),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
        "detectron2": hashlib.sha256(loop).hexdigest()[:12],
    }


def other_machine() -> str:
    """How this machine differs from the one that wrote the files; "" if it does not."""
    then, now = json.loads((BEFORE / "machine.json").read_text()), machine()
    return ", ".join(f"{k} {then[k]} -> {now[k]}" for k in now if then[k] != now[k])
