"""Random resized crops: torchvision's, to the last bit or within a stated difference."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms.v2 import functional

from d2_isonet.data import crops as random_crops
from d2_isonet.data.crops import RandomResizedCrop
from d2_isonet.data.image_folder import load_image_folder

SIZES = [(500, 375), (33, 47), (1, 1), (2, 300), (300, 2), (40, 10), (10, 39)]


def photograph(width: int, height: int) -> Image.Image:
    """Blurred colours with some noise: as smooth as a photograph."""
    coarse = torch.rand(1, 3, height // 12 + 2, width // 12 + 2) * 255
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    pixels = (smooth + 4 * torch.randn_like(smooth)).clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def of_torchvision(size: int, path) -> torch.Tensor:
    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    return transforms.Compose([*steps, transforms.PILToTensor()])(Image.open(path).convert("RGB"))


def seeded(seed: int, function, *args):
    torch.manual_seed(seed)
    return function(*args)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0), (0.01, 0.02)])
@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_those_of_torchvision(size, scale):
    ratio = (3 / 4, 4 / 3)
    crop, image = RandomResizedCrop(8, scale, ratio), Image.new("L", size)
    for seed in range(100):
        left, top, right, bottom = seeded(seed, crop.draw, *size)
        after = torch.rand(1)
        expected = seeded(seed, transforms.RandomResizedCrop.get_params, image, scale, ratio)
        assert (top, left, bottom - top, right - left) == expected
        assert torch.equal(after, torch.rand(1))  # as many numbers drawn


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "x.jpg"), ("L", "x.jpg"), ("CMYK", "x.jpg"), ("RGB", "x.png"), ("P", "x.png")],
)
def test_exact_crops_have_the_pixels_of_torchvision(mode, name, tmp_path):
    path = tmp_path / name
    photograph(90, 70).convert(mode).save(path)
    crop = RandomResizedCrop(24, exact=True)
    for seed in range(20):
        expected = seeded(seed, of_torchvision, 24, path)
        assert torch.equal(seeded(seed, crop, str(path)), expected)


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_fast_crops_have_the_pixels_of_torchvision_on_tensors(name, tmp_path):
    path = tmp_path / name
    photograph(90, 70).save(path)
    crop = RandomResizedCrop(64)
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    for seed in range(20):
        image = seeded(seed, crop, str(path))
        left, top, right, bottom = seeded(seed, crop.draw, 90, 70)
        box = (top, left, bottom - top, right - left)
        expected = functional.resized_crop(pixels, *box, [64, 64], antialias=True)
        flipped = torch.rand(1) < 0.5
        assert torch.equal(image, expected.flip(2) if flipped else expected)
        on_pil = seeded(seed, of_torchvision, 64, path)
        assert (image.int() - on_pil).abs().max() <= 1


def test_reduced_decoding_changes_pixels_by_less_than_2_in_the_mean(samples):
    paths = [d["file_name"] for d in load_image_folder(str(samples / "imagenet"), "train")[0]]
    differences = []
    for seed, path in enumerate(paths[::6]):
        image = seeded(seed, RandomResizedCrop(48), path)
        expected = seeded(seed, of_torchvision, 48, path)
        differences.append((image.int() - expected).abs().float().mean().item())
    assert 0.5 < sum(differences) / len(differences) < 2 and max(differences) < 6


@pytest.mark.parametrize(("side", "scale"), [(47, 1), (48, 2), (95, 2), (96, 4), (192, 8)])
def test_scale_of_decoding_leaves_at_least_the_size(side, scale, tmp_path, monkeypatch):
    photograph(side, side + 9).save(tmp_path / "x.jpg")
    scales = []
    reduced = random_crops.decode_reduced
    monkeypatch.setattr(
        random_crops, "decode_reduced", lambda *args: scales.append(args[-1]) or reduced(*args)
    )
    crop = RandomResizedCrop(24)
    crop.draw = lambda width, height: (0, 9, width, height)
    image = crop(str(tmp_path / "x.jpg"))
    assert image.shape == (3, 24, 24) and scales == ([scale] if scale > 1 else [])


def test_reduced_crop_is_the_drawn_box(tmp_path):
    """A box that is not a multiple of the scale: a ramp shows where its middle is."""
    ramp = np.broadcast_to(np.linspace(0, 255, 200).round()[None, :, None], (200, 200, 3))
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    crop = RandomResizedCrop(10)
    crop.draw = lambda width, height: (33, 3, 133, 103)
    image = crop(str(tmp_path / "x.jpg")).float()
    expected = 255 / 199 * (33 + 10 * torch.arange(10) + 4.5)
    columns = image.mean((0, 1))
    assert torch.minimum((columns - expected).abs(), (columns.flip(0) - expected).abs()).max() < 1


@pytest.mark.parametrize("length", [700, -500, -100, -1])
def test_truncated_file_is_an_error_wherever_the_crop_lies(length, tmp_path):
    path = tmp_path / "x.jpg"
    photograph(90, 70).save(path)
    path.write_bytes(path.read_bytes()[:length])
    crop = RandomResizedCrop(24)
    crop.draw = lambda width, height: (0, 0, 30, 8)
    with pytest.raises(ValueError, match=f"Image {path} cannot be read .*truncated"):
        crop(str(path))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"Image {tmp_path}/x.jpg does not exist"):
        RandomResizedCrop(24)(str(tmp_path / "x.jpg"))
    Image.new("I;16", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="more than 8 bits a channel"):
        RandomResizedCrop(24)(str(tmp_path / "x.png"))
