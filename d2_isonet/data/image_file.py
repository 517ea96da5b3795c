"""The one reader of image files: which formats, sizes and kinds of files, and which way up."""

import contextlib
import io
import re
from collections.abc import Iterator

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

from d2_isonet.utils.files import why_not_regular
from d2_isonet.utils.messages import MissingFileError, UserError

# Pillow decodes them in this process. Others would start a program (EPS) or write files.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 178_956_970  # Pillow's limit: it raises above twice its MAX_IMAGE_PIXELS
_MOST_BYTES = 6  # a pixel: RGB of 16 bits, uncompressed
_MOST_SCANS = 100  # of a progressive JPEG, which has about 10
_MOST_PARTS = 300_000  # strips or tiles of a TIFF
_ORIENTATION = 0x0112  # EXIF and TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(UserError):
    """An image that cannot be decoded, or that cannot be used as it is.

    Args:
        reason: what is wrong, without the name of the file.

    `pixels` is their number if they are too many, else 0.
    """

    def __init__(self, what: str, remedy: str = "", reason: str = ""):
        super().__init__(what, remedy)
        self.reason, self.pixels = reason or what, 0


def unreadable(
    path: str, reason: str, remedy: str = "replace or remove the file"
) -> UnreadableImage:
    """The error of the image at `path`; `reason` says what is wrong with it."""
    return UnreadableImage(f"Image {path} cannot be read ({reason})", remedy, reason)


@contextlib.contextmanager
def errors_naming(path: str) -> Iterator[None]:
    """Turn an error of reading the image at `path` into UnreadableImage or MissingFileError.

    On a damaged file, Pillow's plug-ins raise all kinds of exceptions.
    """
    try:
        yield
    except (UnreadableImage, MissingFileError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"Image {path} does not exist (a broken link, or removed since it was listed)"
        raise MissingFileError(what, "restore it or start again") from error
    except Exception as error:
        raise unreadable(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _too_large(path: str, what: str, pixels: int, most_pixels: int) -> UnreadableImage:
    reason = f"{what} more than {most_pixels / 1e6:,.0f} million pixels"
    remedy = f"cut it into tiles, or set INPUT.MAX_IMAGE_PIXELS {pixels}"
    error = unreadable(path, reason, remedy)
    error.pixels = pixels
    return error


def read_file(path: str, most_pixels: int = MOST_PIXELS) -> bytes:
    """The content of an image file, which is a regular file or a URL.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableImage: it is a FIFO, a device, a folder, or larger than `most_pixels` are.
    """
    with errors_naming(path):
        most_bytes = _MOST_BYTES * most_pixels
        if "://" not in path and (reason := why_not_regular(path, most_bytes)):
            raise unreadable(path, reason)
        with PathManager.open(path, "rb") if "://" in path else open(path, "rb") as file:
            return file.read(most_bytes)


@contextlib.contextmanager
def opened(
    path: str, data: bytes | None = None, most_pixels: int = MOST_PIXELS
) -> Iterator[Image.Image]:
    """The image at `path`, not yet decoded; an exception in the block becomes UnreadableImage.

    Args:
        data: the content of the file; None reads it from `path`.
        most_pixels: INPUT.MAX_IMAGE_PIXELS.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableImage: it is no image of FORMATS, is damaged or too large.
    """
    if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < most_pixels:
        Image.MAX_IMAGE_PIXELS = most_pixels // 2 + 1  # the user has raised the limit
    data = read_file(path, most_pixels) if data is None else data
    if not data:
        raise unreadable(path, "0 bytes")
    with errors_naming(path):
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > most_pixels:
                    what = f"it is {width} x {height} and has"
                    raise _too_large(path, what, width * height, most_pixels)
                _refuse_slow(path, image, data)
                yield image
        except UnidentifiedImageError as error:
            what = f"no image of a kind that is read ({', '.join(FORMATS)}), {len(data)} bytes"
            raise unreadable(path, what) from error
        except Image.DecompressionBombError as error:
            pixels = int(max(re.findall(r"\d+", str(error)), key=int, default=0))
            raise _too_large(path, f"it has {pixels:,} pixels,", pixels, most_pixels) from error


def _refuse_slow(path: str, image: Image.Image, data: bytes) -> None:
    """Refuse small files that take minutes: every scan of a JPEG is one over all pixels."""
    scans = data.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    for number, most, what in (
        (scans, _MOST_SCANS, "scans"),
        (len(getattr(image, "tile", ())), _MOST_PARTS, "strips or tiles"),
    ):
        if number > most:
            raise unreadable(path, f"it has {number:,} {what}, more than {most:,}")


def orientation_of(image: Image.Image) -> int:
    """The number of EXIF or TIFF, 1 to 8, of how the image is to be turned; 1 is upright.

    Pillow itself turns a TIFF while it decodes it, and takes the number away.
    """
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing
        orientation = image.getexif().get(_ORIENTATION, 1)
        return orientation if orientation in _TURNS else 1
    return 1


def upright(image: Image.Image) -> Image.Image:
    """The decoded image, turned by its orientation."""
    image.load()
    turn = _TURNS.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def is_deep(mode: str) -> bool:
    """Whether pixels have more than 8 bits a channel: a conversion would clip most to white."""
    return mode.startswith(("I", "F"))


def _refuse_deep(path: str, mode: str) -> None:
    if is_deep(mode):
        what = f"more than 8 bits a channel (mode {mode})"
        raise UnreadableImage(f"Image {path} has {what}", "save it with 8 bits", f"it has {what}")


def read_image(path: str, data: bytes | None = None, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The image as 8-bit RGB; grey, palette and CMYK are converted, an alpha channel is dropped.

    An EXIF orientation is not applied (that of a TIFF is). Arguments and errors are those of
    `opened`; UnreadableImage also for more than 8 bits a channel.
    """
    with opened(path, data, most_pixels) as image:
        _refuse_deep(path, image.mode)
        return image.convert("RGB")


def read_upright(
    path: str, image_format: str = "RGB", most_pixels: int = MOST_PIXELS
) -> np.ndarray:
    """The pixels (H, W, C) of an image, turned by its orientation; errors as of `read_image`.

    Args:
        image_format: of detectron2's INPUT.FORMAT, such as "BGR"; "L" is (H, W, 1), for labels.
    """
    with opened(path, None, most_pixels) as image:
        if image_format != "L":
            _refuse_deep(path, image.mode)
        return convert_PIL_to_numpy(upright(image), image_format)
