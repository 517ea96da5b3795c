"""Image files from strangers: pixels or UnreadableImage, in seconds and in bounded memory."""

import io
import resource
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2_isonet.data.image_file import UnreadableImage, read_image, read_upright
from d2_isonet.demo.streams import decode
from d2_isonet.preflight.data.image_scan import ImageFile, look_at

# The second in the slow suite.
EXAMPLES = pytest.mark.parametrize("examples", [50, pytest.param(2000, marks=pytest.mark.slow)])
NUMBERS = st.sampled_from([0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 10**5, 3000])
_NOISE = np.random.RandomState(0).randint(0, 256, (24, 32, 3), dtype=np.uint8)


def encoded(mode: str, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_NOISE).convert(mode).save(file, kind, **options)
    return file.getvalue()


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
FILES = [
    encoded("RGB", "jpeg", exif=_EXIF), encoded("RGB", "jpeg", progressive=True),
    encoded("CMYK", "jpeg"), encoded("RGBA", "png"), encoded("P", "png"), encoded("I;16", "png"),
    encoded("RGB", "bmp"), encoded("P", "bmp"), encoded("P", "gif"), encoded("RGB", "ppm"),
    encoded("L", "tiff"), encoded("RGB", "tiff", compression="tiff_lzw", exif=_EXIF),
    encoded("F", "tiff"), encoded("1", "tiff", compression="group4"), encoded("RGB", "webp"),
    encoded("RGBA", "webp", lossless=True), b"P3\n3000 1\n255\n1 2 3", b"%!PS-Adobe-3.0\n",
]  # fmt: skip


@st.composite
def damaged(draw) -> bytes:
    """A small file with numbers of its header replaced, bytes changed, or its end cut off."""
    data = bytearray(draw(st.sampled_from(FILES)))
    header = st.integers(0, min(len(data), 200) - 1)
    for _ in range(draw(st.integers(0, 3))):
        place, size = draw(header), draw(st.sampled_from([1, 2, 4]))
        order = draw(st.sampled_from(["big", "little"]))
        number = draw(NUMBERS) % 256**size
        data[place : place + size] = number.to_bytes(size, order)
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@EXAMPLES
def test_every_file_is_pixels_or_one_of_our_errors(examples, tmp_path):
    path = str(tmp_path / "x.jpg")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=examples, deadline=10_000, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(damaged())
    def run(data):
        (tmp_path / "x.jpg").write_bytes(data)
        begin = time.monotonic()
        look = look_at(path)
        assert isinstance(look, ImageFile)
        for read in (lambda: read_upright(path, "BGR"), lambda: np.asarray(read_image(path))):
            try:
                pixels = read()
            except UnreadableImage as error:
                assert path in str(error) and path not in error.reason
            else:
                assert pixels.shape[2] == 3 and pixels.size and not look.error
        try:
            assert decode(data, 64_000_000, 2048).bgr.shape[2] == 3
        except UnreadableImage as error:
            assert "/" not in error.reason.replace("/pixel", "")
        assert time.monotonic() - begin < 10

    run()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 1_500_000  # kB
