"""Fashion-MNIST as an image folder: classes, numbers, and files that are too short."""

import gzip
from pathlib import Path

import pytest
from datasets.command import write_split


def _idx(path: Path, header: int, content: bytes) -> None:
    with gzip.open(path, "wb") as file:
        file.write(bytes(header) + content)


def test_fashion_mnist_becomes_an_image_folder(tmp_path):
    _idx(tmp_path / "t-images-idx3-ubyte.gz", 16, bytes(range(196)) * 8)
    _idx(tmp_path / "t-labels-idx1-ubyte.gz", 8, bytes([9, 0]))
    write_split(tmp_path, "t", 2, tmp_path / "val")
    files = sorted(str(p.relative_to(tmp_path / "val")) for p in tmp_path.glob("val/*/*.png"))
    assert files == ["0_t_shirt/00001.png", "9_ankle_boot/00000.png"]
    with pytest.raises(ValueError, match="2 labels where 3 images"):
        write_split(tmp_path, "t", 3, tmp_path / "val")
