"""Videos and cameras: every frame is read once, at its rate; errors are reported."""

import os

import cv2
import demo_detector
import numpy as np
import pytest

from d2_isonet.demo import streams, videos
from d2_isonet.demo.outputs import Sink
from d2_isonet.demo.sources import Source
from d2_isonet.demo.streams import Picture, Report, count_pictures, read_pictures, require_camera
from d2_isonet.demo.videos import FrameReader, FrameWriter, NoVideo
from d2_isonet.utils.files import SaveError


def frames(number: int, size=(48, 64)) -> list[np.ndarray]:
    """Grey frames, each brighter than the one before."""
    return [np.full((*size, 3), 40 + 20 * i, np.uint8) for i in range(number)]


def brightness(path) -> list[int]:
    reader = FrameReader(str(path))
    values = [round(float(frame.mean()), -1) for frame in reader]
    reader.close()
    return values


def source(path, kind: str = "video") -> Source:
    return Source(kind, str(path), path.name)


def read(path, max_frames=None) -> tuple[list[Picture], Report]:
    report = Report()
    return list(read_pictures(source(path), report, max_frames)), report


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_frames_come_in_order_with_their_rate_and_time(tmp_path, suffix):
    path = demo_detector.write_video(tmp_path / f"clip{suffix}", frames(5))
    pictures, report = read(path)
    assert [round(float(x.pixels.mean()), -1) for x in pictures] == [40, 60, 80, 100, 120]
    assert [x.rate for x in pictures] == [12.5] * 5
    assert pictures[3].entry == {
        "file_name": path.name, "width": 64, "height": 48, "frame": 3, "seconds": 0.24,
    }  # fmt: skip
    assert report.skipped == {} and count_pictures([source(path)], None) == 5


def test_an_animated_gif_is_a_video(tmp_path):
    from PIL import Image

    first, *others = map(Image.fromarray, frames(3))
    first.save(tmp_path / "x.gif", save_all=True, append_images=others, duration=100)
    assert len(read(tmp_path / "x.gif")[0]) == 3


def test_it_ends_after_so_many_frames(tmp_path):
    path = demo_detector.write_video(tmp_path / "clip.mp4", frames(6))
    pictures, report = read(path, max_frames=2)
    assert len(pictures) == 2 and report.skipped == {}
    assert count_pictures([source(path)], 2) == 2


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"it is empty \(0 bytes\)"),
        (b"no video at all" * 50, "cannot be opened as a video: it is damaged, or of a type"),
    ],
)
def test_what_is_no_video_is_skipped_with_a_reason(tmp_path, content, message, capfd):
    (tmp_path / "bad.mp4").write_bytes(content)
    pictures, report = read(tmp_path / "bad.mp4")
    assert pictures == [] and list(report.skipped) == ["bad.mp4"]
    with pytest.raises(NoVideo, match=message):
        FrameReader(str(tmp_path / "bad.mp4"))
    told = capfd.readouterr().err
    assert "moov" not in told and "ERROR" not in told  # ffmpeg's and OpenCV's own words
    assert count_pictures([source(tmp_path / "bad.mp4")], None) == 0


def test_a_video_without_its_index_is_skipped(tmp_path):
    path = demo_detector.write_video(tmp_path / "clip.mp4", frames(6))
    path.write_bytes(path.read_bytes()[:400])  # an mp4's index is at its end
    assert "cannot be opened" in read(path)[1].skipped["clip.mp4"]


def test_a_video_without_a_frame_is_skipped(tmp_path):
    path = demo_detector.write_video(tmp_path / "clip.avi", frames(6))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    assert list(read(path)[1].skipped) == ["clip.avi"]


def test_a_video_that_breaks_off_is_told_and_its_frames_are_kept(tmp_path, capfd):
    noise = list(np.random.RandomState(0).randint(0, 255, (40, 48, 64, 3), dtype=np.uint8))
    path = demo_detector.write_video(tmp_path / "clip.avi", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pictures, report = read(path)
    assert 5 < len(pictures) < 38 and report.skipped == {}
    assert f"clip.avi: {len(pictures)} of 40 frames could be read" in capfd.readouterr().err


def test_a_camera_that_is_not_there_is_told():
    with pytest.raises(NoVideo, match=r"camera 87 cannot be opened \(.*--input webcam0, webcam1"):
        require_camera(87)


# ---------------------------------------------------------------------------------------- writing


def picture_of(path, pixels, kind="video", rate=12.5) -> Picture:
    return Picture(source(path, kind), {}, pixels, rate)


@pytest.mark.parametrize("size", [(48, 64), (47, 65)])
def test_a_copy_has_the_frames_and_the_rate_of_the_original(tmp_path, size):
    sink = Sink(tmp_path / "out")
    for frame in frames(5, size):
        sink.write(picture_of(tmp_path / "clip.avi", frame), frame)
    assert not (tmp_path / "out" / "clip.avi.mp4").exists()  # until it is complete
    sink.close()
    copy = FrameReader(str(tmp_path / "out" / "clip.avi.mp4"))
    assert copy.rate == 12.5 and next(iter(copy)).shape == (48, 66 if size[1] == 65 else 64, 3)
    assert brightness(copy_path := tmp_path / "out" / "clip.avi.mp4") == [40, 60, 80, 100, 120]
    assert [path.name for path in copy_path.parent.iterdir()] == ["clip.avi.mp4"]


def test_each_video_has_its_own_copy(tmp_path):
    sink = Sink(tmp_path)
    for name, number in (("a.mp4", 2), ("b.mp4", 3)):
        for frame in frames(number):
            sink.write(picture_of(tmp_path / "x" / name, frame), frame)
    sink.close()
    assert len(brightness(tmp_path / "a.mp4")) == 2 and len(brightness(tmp_path / "b.mp4")) == 3


def test_a_frame_of_another_size_is_not_lost(tmp_path):
    writer = FrameWriter(tmp_path / "x.mp4", 10)
    for frame in (*frames(2), *frames(2, size=(24, 32))):
        writer.write(frame)
    writer.close()
    assert brightness(tmp_path / "x.mp4") == [40, 60, 40, 60]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("file/x.mp4", "x" * 300 + ".mp4"):
        with pytest.raises(SaveError, match=f"/{name} could not be written"):
            FrameWriter(tmp_path / name, 10).write(frames(1)[0])
        with pytest.raises(SaveError, match=f"/{name}.png could not be written: "):
            image = Picture(Source("image", "", f"{name}.png"), {}, frames(1)[0])
            Sink(tmp_path).write(image, image.pixels)


class Camera:
    """A cv2.VideoCapture(0) with three frames, 10 per second, and no number of frames."""

    def __init__(self, number):
        self.left = frames(3)

    def isOpened(self):
        return True

    def get(self, name):
        return {cv2.CAP_PROP_FPS: 10.0}.get(name, -1.0)

    def set(self, *args):
        return True

    def read(self):
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self):
        pass


def test_a_cameras_copy_lasts_as_long_as_was_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(videos.cv2, "VideoCapture", Camera)
    clock = iter([100.0, 100.0, 100.42, 100.5])  # the start, then after each frame
    monkeypatch.setattr("d2_isonet.demo.outputs.time.monotonic", lambda: next(clock))
    camera = Source("webcam", "0", "webcam0")
    sink = Sink(tmp_path)
    for picture in read_pictures(camera, Report(), None):
        assert picture.rate == 10.0
        sink.write(picture, picture.pixels)
    sink.close()
    monkeypatch.undo()
    assert brightness(tmp_path / "webcam0.mp4") == [40, 60, 60, 60, 80]


def test_a_camera_has_no_end_to_wait_for(monkeypatch):
    monkeypatch.setattr(streams, "FrameReader", lambda address: FrameReader.__new__(FrameReader))
    camera = Source("webcam", "0", "webcam0")
    assert count_pictures([camera], None) is None and count_pictures([camera], 7) == 7


def test_a_fifo_with_the_name_of_a_video_is_skipped_at_once(tmp_path):
    os.mkfifo(tmp_path / "clip.mp4")
    pictures, report = read(tmp_path / "clip.mp4")
    assert not pictures and report.skipped == {"clip.mp4": "it is a FIFO, not a file"}
    assert count_pictures([source(tmp_path / "clip.mp4")], None) == 0
