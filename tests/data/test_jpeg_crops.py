"""Crops of JPEG files: the pixels of the whole image, whatever the file's format, and errors."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from d2_isonet.data import crops as jpeg_crops
from d2_isonet.data.crops import decode_box, decode_reduced, find_frame

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
        monkeypatch.setattr(jpeg_crops, "simplejpeg", None)


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
