"""Random crops of image files: torchvision's, to the last bit or within a stated difference.

The pixels of a JPEG are those of the whole image, whatever the file's format.
"""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms.v2 import functional

from d2_isonet.data import crops
from d2_isonet.data.crops import RandomResizedCrop, decode_box, decode_reduced, find_frame
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
    reduced = crops.decode_reduced
    monkeypatch.setattr(
        crops, "decode_reduced", lambda *args: scales.append(args[-1]) or reduced(*args)
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


WIDTH, HEIGHT = 77, 101
FORMATS = {
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0"},
    "optimized": {"optimize": True},
    "restart markers": {"restart_marker_blocks": 3},
    "with thumbnail": {"exif": b"Exif\0\0" + b"\xff\xd8 of a thumbnail \xff\xc0 \xff\xd9"},
    "stored as RGB": {"keep_rgb": True},
}
BOXES = list(itertools.product((0, 13), (0, 30), (40, WIDTH), (31, 48, 63, 64, 95, HEIGHT)))


def jpeg(mode: str = "RGB", height: int = HEIGHT, **options) -> bytes:
    """A JPEG of sharp coloured noise: chroma of one row shows in the next."""
    pixels = torch.randint(0, 256, (height, WIDTH, 3), dtype=torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def whole(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(params=["Pillow", "simplejpeg"])
def decoder(request, monkeypatch):
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(crops, "simplejpeg", None)


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_box_has_the_pixels_of_the_whole_image(options, decoder):
    data = jpeg(**options)
    frame, expected = find_frame(data), whole(data)
    assert (frame.width, frame.height, frame.channels) == (WIDTH, HEIGHT, 3)
    for left, top, right, bottom in BOXES:
        pixels = decode_box(data, frame, (left, top, right, bottom))
        assert np.array_equal(pixels, expected[top:bottom, left:right])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_converted_as_in_the_whole_image(mode, decoder):
    data = jpeg(mode)
    assert np.array_equal(
        decode_box(data, find_frame(data), (9, 8, 50, 60)), whole(data)[8:60, 9:50]
    )


def test_rows_below_the_box_are_not_decoded(decoder):
    data = bytearray(jpeg())
    frame, expected = find_frame(bytes(data)), whole(bytes(data))
    data[-2000:-2] = bytes(1998)  # damage that the whole image shows
    assert not np.array_equal(whole(bytes(data)), expected)
    assert np.array_equal(decode_box(bytes(data), frame, (0, 0, 77, 30)), expected[:30])


def test_box_may_end_with_the_last_row_of_the_last_block(decoder):
    data = jpeg(height=64)
    for bottom in (61, 62, 63, 64):
        pixels = decode_box(data, find_frame(data), (0, 5, WIDTH, bottom))
        assert np.array_equal(pixels, whole(data)[5:bottom])


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_reduced_rows_are_those_of_the_reduced_image(options, scale):
    data = jpeg(**options)
    image = Image.open(io.BytesIO(data))
    image.draft(None, (WIDTH // scale, HEIGHT // scale))
    expected = np.asarray(image.convert("RGB"))
    assert image.size == (-(-WIDTH // scale), -(-HEIGHT // scale))
    for bottom in (31, 48, 64, HEIGHT):
        rows = -(-bottom // scale)
        reduced = np.asarray(decode_reduced(data, find_frame(data), bottom, scale))
        assert np.array_equal(reduced[:rows], expected[:rows])


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"\xff\xd8\xff\xd9",
        png,
        lambda: jpeg(progressive=True),
        lambda: jpeg()[:-2],
        lambda: jpeg()[:2000],
        lambda: jpeg().replace(b"\xff\xc0\x00\x11\x08\x00\x65", b"\xff\xc0\x00\x11\x08\xff\xff")
        .replace(b"\x00\x4d\x03", b"\xff\xff\x03"),  # 65535 x 65535
    ],
    ids=["empty", "no frame", "png", "progressive", "no end", "truncated", "huge"],
)  # fmt: skip
def test_other_files_have_no_frame(make):
    assert find_frame(make()) is None


def test_every_truncation_of_a_header_is_without_frame_or_error():
    data = jpeg()
    start = data.index(b"\xff\xc0")
    assert all(find_frame(data[:n] + b"\xff\xd9") is None for n in range(start + 6))


def test_rows_that_cannot_be_decoded_are_an_error(decoder):
    data = jpeg()
    tables = data.replace(b"\xff\xc4", b"\xff\xfe")  # Huffman tables become comments
    broken = data[:2] + b"\xff\xc0\x00\x0b\x08\x00\x40\x00\x40\x01\x09\x99\x00" + b"\xff\xd9"
    assert find_frame(tables) is not None and find_frame(broken) is not None
    with pytest.raises((OSError, SyntaxError, ValueError)):
        decode_box(broken, find_frame(broken), (0, 0, 10, 10))
