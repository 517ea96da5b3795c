"""One reader of image files: what it turns, refuses and limits, alike wherever images are read."""

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as read_as_detectron2
from PIL import Image, ImageOps

from d2_isonet.config.loading import load_config
from d2_isonet.data.image_file import FORMATS, UnreadableImage, read_image, read_upright
from d2_isonet.data.image_folder import list_images
from d2_isonet.data.imagenet import ImageNetMapper
from d2_isonet.data.unreadable_images import NamingDatasetMapper
from d2_isonet.demo.streams import decode
from d2_isonet.preflight.data.image_scan import MISSING, look_at, look_at_all

ORIENTATION = 0x0112
NOISE = np.random.RandomState(0).randint(0, 256, (6, 8, 3), dtype=np.uint8)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n"


def saved(path: Path, orientation: int = 1, **options) -> str:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(NOISE).save(path, exif=exif, **options)
    return str(path)


def detection_mapper(*opts: str, is_train: bool = False) -> NamingDatasetMapper:
    return NamingDatasetMapper(load_config("configs/risonet18_c4.yaml", [*opts]), is_train)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "tiff", "png", "webp", "jpg"])
def test_training_evaluation_check_and_demo_turn_alike(suffix, orientation, tmp_path):
    path = saved(tmp_path / f"x.{suffix}", orientation)
    with Image.open(saved(tmp_path / f"upright.{suffix}")) as stored:
        stored.getexif()[ORIENTATION] = orientation  # of what the file holds, turned only once
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    height, width = expected.shape[:2]
    assert (height > width) == (orientation > 4)
    np.testing.assert_array_equal(read_upright(path), expected)
    np.testing.assert_array_equal(decode(Path(path).read_bytes()).bgr, expected[:, :, ::-1])
    assert look_at(path).upright_size() == (width, height)
    assert (look_at(path).width, look_at(path).height) == (8, 6)  # as stored
    sample = {"file_name": path, "width": width, "height": height}
    size = ["INPUT.MIN_SIZE_TEST", "0", "INPUT.FORMAT", "RGB"]
    mapped = detection_mapper(*size)(sample)["image"].numpy()
    np.testing.assert_array_equal(mapped, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "YUV-BT.601"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif", "ppm"])
def test_pixels_are_those_of_detectron2_to_the_bit(suffix, image_format, tmp_path):
    path = saved(tmp_path / f"x.{suffix}")
    expected = read_as_detectron2(path, image_format)
    np.testing.assert_array_equal(read_upright(path, image_format), expected)


def test_a_damaged_exif_block_does_not_make_an_image_unreadable(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(NOISE).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_upright(str(path)), read_as_detectron2(str(path), "RGB"))
    assert look_at(str(path)).error == "" and decode(path.read_bytes()).bgr.shape == (6, 8, 3)


def readers(path: Path) -> list[str]:
    """What each reader says of a file that it refuses."""
    told = [look_at(str(path)).error]
    sample = {"file_name": str(path)}
    for read in (
        read_upright,
        read_image,
        lambda path: detection_mapper()({"file_name": path}),
        lambda path: ImageNetMapper(True)(dict(sample)),
        lambda path: ImageNetMapper(False)(dict(sample)),
    ):
        with pytest.raises((UnreadableImage, FileNotFoundError)) as error:
            read(str(path))
        assert str(path) in str(error.value)
        told.append(str(error.value))
    return told


@pytest.mark.parametrize("behind_link", [False, True])
@pytest.mark.parametrize("kind", ["FIFO", "device", "folder"])
def test_what_is_no_file_is_refused_by_every_reader_at_once(kind, behind_link, tmp_path):
    makers = {"FIFO": os.mkfifo, "folder": os.mkdir}
    path = tmp_path / "x.jpg"
    makers.get(kind, lambda path: path.symlink_to("/dev/zero"))(path)
    if behind_link:
        (tmp_path / "link.jpg").symlink_to(path)
        path = tmp_path / "link.jpg"
    begin = time.monotonic()
    assert all(f"it is a {kind}, not a file" in told for told in readers(path))
    assert time.monotonic() - begin < 10


def test_a_broken_link_is_missing_for_every_reader(tmp_path):
    (tmp_path / "x.jpg").symlink_to("nowhere")
    told = readers(tmp_path / "x.jpg")
    assert told[0] == MISSING and all("does not exist" in x for x in told[1:])


@pytest.mark.parametrize("kind", ["eps", "ico", "pcx", "tga", "im", "sgi", "jp2"])
def test_other_formats_are_not_even_opened(kind, tmp_path, monkeypatch):
    def fail(*args, **options):
        pytest.fail("a program was started or a file made")

    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, {"tga": "tga", "jp2": "jpeg2000"}.get(kind, kind))
    monkeypatch.setattr("subprocess.Popen", fail)
    monkeypatch.setattr("tempfile.mkstemp", fail)
    for content in (file.getvalue(), POSTSCRIPT):
        (tmp_path / "x.jpg").write_bytes(content)
        assert all("no image of a kind that is read" in x for x in readers(tmp_path / "x.jpg"))
        with pytest.raises(UnreadableImage) as error:
            decode(content)
        assert error.value.reason.startswith("no image of a kind that is read (JPEG, PNG")


def test_every_suffix_of_a_listed_image_has_a_format_that_is_read():
    Image.init()
    from d2_isonet.data.image_folder import IMG_EXTENSIONS

    assert {Image.EXTENSION[suffix] for suffix in IMG_EXTENSIONS} <= set(FORMATS)


def test_too_many_pixels_are_told_with_the_key_and_not_decoded(tmp_path):
    path = saved(tmp_path / "x.png")
    opts = ["INPUT.MAX_IMAGE_PIXELS", "47"]
    message = "it is 8 x 6 and has more than 0 million pixels.; cut it into tiles, or set "
    with pytest.raises(UnreadableImage, match=f"{message}INPUT.MAX_IMAGE_PIXELS 48"):
        detection_mapper(*opts)({"file_name": path})
    for is_train in (True, False):
        with pytest.raises(UnreadableImage, match=message):
            ImageNetMapper(is_train, most_pixels=47)({"file_name": path})
    assert look_at_all([path])[path].error == ""
    assert look_at_all([path], most_pixels=47)[path].pixels == 48
    assert look_at_all([path])[path].error == ""  # a finding of another limit is not taken


def test_a_raised_limit_is_above_that_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = saved(tmp_path / "x.png")
    assert read_upright(path, most_pixels=48).shape == (6, 8, 3)


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "jpeg", progressive=True)
    data = file.getvalue()
    scan = data[data.rfind(b"\xff\xc4") : -2]
    with pytest.raises(UnreadableImage, match="scans, more than 100"):
        decode(data[:-2] + 150 * scan + data[-2:])


@pytest.mark.parametrize(
    "size, opts, is_train, message",
    [
        ((3000, 1), [], True, "thinner than a pixel if it fits INPUT.MAX_SIZE_TRAIN 1333"),
        ((1, 3000), [], False, "thinner than a pixel if it fits INPUT.MAX_SIZE_TEST 1333"),
        ((9, 1), ["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE",
         "[0.3,0.3]"], True, r"of which INPUT.CROP.SIZE \[0.3, 0.3\] can leave nothing"),
        ((9, 1), ["INPUT.MAX_SIZE_TEST", "100000"], False, r"resized .* 7200 x 800"),
    ],
)  # fmt: skip
def test_a_size_of_which_nothing_is_left_is_named_in_training(
    size, opts, is_train, message, tmp_path
):
    Image.new("RGB", size).save(tmp_path / "thin.png")
    if "resized" in message:
        opts = [*opts, "INPUT.MAX_IMAGE_PIXELS", "1000000"]
    mapper = detection_mapper(*opts, is_train=is_train)
    with pytest.raises(UnreadableImage, match=f"thin.png .*it is {size[0]} x {size[1]}.*{message}"):
        mapper({"file_name": str(tmp_path / "thin.png"), "annotations": []})


@pytest.mark.parametrize("crop", ["relative", "relative_range", "absolute", "absolute_range"])
def test_a_size_that_is_let_through_can_be_cropped_and_resized(crop, tmp_path):
    share = "[0.3,0.5]" if crop.startswith("relative") else "[2,5]"
    opts = ["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", crop, "INPUT.CROP.SIZE", share,
            "INPUT.MAX_SIZE_TRAIN", "40", "INPUT.MIN_SIZE_TRAIN", "(20,)"]  # fmt: skip
    mapper, numbers = detection_mapper(*opts, is_train=True), np.random.RandomState(0)
    refused = 0
    for width, height in numbers.randint(1, 90, (40, 2)):
        path = tmp_path / f"{width}_{height}.png"
        Image.new("RGB", (int(width), int(height))).save(path)
        try:
            for _ in range(3):
                image = mapper({"file_name": str(path)})["image"]
                assert min(image.shape) > 0
        except UnreadableImage:
            refused += 1
    assert refused < 20


def test_a_classifier_does_not_resize_to_far_too_many_pixels(tmp_path):
    Image.new("L", (3000, 1)).save(tmp_path / "thin.png")
    with pytest.raises(UnreadableImage, match="it is 3000 x 1, and resized .* 197 million pixels"):
        ImageNetMapper(False)({"file_name": str(tmp_path / "thin.png")})
    assert ImageNetMapper(True)({"file_name": str(tmp_path / "thin.png")})["image"].shape[0] == 3


def test_each_real_folder_is_listed_once_and_none_above(tmp_path):
    root = tmp_path / "train" / "a"
    for name in ("a/deep/1.jpg", "a/2.jpg", "b/3.jpg"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).write_bytes(b"x")
    for name, target in {"self": ".", "again": ".", "up": "..", "deep/back": "../deep",
                         "also": "deep", "loop": "loop"}.items():  # fmt: skip
        (root / name).symlink_to(target)
    begin = time.monotonic()
    images, others = list_images(str(root))
    assert images == [f"{root}/2.jpg", f"{root}/deep/1.jpg"]
    assert others == [f"{root}/loop"] and time.monotonic() - begin < 5
