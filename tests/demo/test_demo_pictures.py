"""Images of every kind become upright 8-bit pixels."""

import io

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from d2_isonet.data.image_file import UnreadableImage
from d2_isonet.demo import streams as pictures
from d2_isonet.demo.streams import decode

ORIENTATION = 0x0112  # EXIF
NOISE = np.random.RandomState(0).randint(0, 256, (6, 8, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(Image.fromarray(NOISE), kind, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_it_is_turned_as_in_evaluation(orientation, kind, tmp_path):
    (tmp_path / "x").write_bytes(turned(orientation, kind))
    expected = read_image(str(tmp_path / "x"), "BGR")
    assert expected.shape == ((8, 6, 3) if orientation > 4 else (6, 8, 3))
    np.testing.assert_array_equal(decode(turned(orientation, kind)).bgr, expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "RGB"])
def test_other_modes_become_colour_as_in_evaluation(mode, tmp_path):
    data = encode(Image.fromarray(NOISE).convert(mode), "tiff")
    (tmp_path / "x").write_bytes(data)
    decoded = decode(data)
    np.testing.assert_array_equal(decoded.bgr, read_image(str(tmp_path / "x"), "BGR"))
    assert decoded.bgr.dtype == np.uint8 and decoded.note == ""


@pytest.mark.parametrize(
    "dtype, kind", [(np.uint16, "png"), (np.uint16, "tiff"), (np.float32, "tiff")]
)
def test_more_than_8_bits_are_scaled_by_the_brightest_pixel_and_told(dtype, kind):
    values = np.array([[0, 1000, 2000], [4000, 500, 4000]], dtype=dtype)
    bgr, note = decode(encode(Image.fromarray(values), kind))
    assert bgr[:, :, 0].tolist() == [[0, 64, 128], [255, 32, 255]]
    assert (bgr[:, :, :1] == bgr).all()
    assert "of more than 8 bits, scaled: 0-4000 became 0-255" in note


def test_a_black_16_bit_image_stays_black():
    assert decode(encode(Image.fromarray(np.zeros((2, 3), np.uint16)))).bgr.max() == 0


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_numbers_that_are_no_brightness_are_refused(value):
    values = np.array([[0, value]], dtype=np.float32)
    with pytest.raises(UnreadableImage, match="its pixels are from .*; save it with 8 bits"):
        decode(encode(Image.fromarray(values), "tiff"))


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", r"\(0 bytes\)"),
        (b"\x89PNG\r\n\x1a\n", "no image of a kind that is read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of a kind that is read"),
        (encode(Image.fromarray(NOISE))[:60], "cannot be read .*image file is truncated"),
        (turned(1, "jpeg")[:-40], "image file is truncated"),
    ],
)
def test_what_is_none_is_told(data, message):
    with pytest.raises(UnreadableImage, match=message):
        decode(data)


def test_pixels_are_counted_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "_upright", lambda *args: pytest.fail("it was decoded"))
    with pytest.raises(UnreadableImage, match="it is 8 x 6 and has more than 0 million pixels"):
        decode(encode(Image.fromarray(NOISE)), most_pixels=47)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_large_one_is_reduced_and_keeps_its_proportions(kind):
    large = Image.fromarray(np.zeros((300, 900, 3), np.uint8))
    bgr, note = decode(encode(large, kind), longest=90)
    assert bgr.shape == (30, 90, 3)
    assert note == "reduced from 900 to 90 pixels on the long side"
    assert decode(encode(large, kind), longest=900).note == ""
