"""Image folders and their shards for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from d2_isonet.commands import make_shards


def write_images(root: Path, counts: dict[str, int], splits: tuple[str, ...] = ("train", "val")):
    """ROOT/<split>/<class>/<n>.jpg and .png, `counts` images a class, of different sizes."""
    random = np.random.default_rng(0)
    for split in splits:
        for name, count in counts.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                pixels = random.integers(0, 256, (20 + n, 24, 3), dtype=np.uint8)
                suffix = "png" if n % 3 == 2 else "JPEG"
                Image.fromarray(pixels).save(folder / f"{split}.{n}.{suffix}")


def write_shards(folder: Path, output: Path, *options: str) -> Path:
    """Run make_shards; the output folder."""
    assert make_shards.main([str(folder), "--output", str(output), *options]) == 0
    return output
