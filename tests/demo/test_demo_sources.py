"""What --input names, and what may be written into --output."""

import os
import re
from pathlib import Path

import demo_detector  # noqa: F401  (the path of the tools)
import pytest

from d2_isonet.demo.outputs import check_targets, target_of
from d2_isonet.demo.sources import Found, Source, find_sources


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder with three images, a video, a text and what macOS leaves."""
    for name in ("b.jpg", "a.png", "sub/c.JPG", "sub/clip.MP4", "notes.txt", "._b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names_of(*words) -> list[str]:
    return [source.name for source in find_sources([str(word) for word in words]).sources]


def test_a_folder_gives_its_images_and_videos_at_any_depth_in_order(files):
    found = find_sources([str(files)])
    assert [(s.kind, s.name) for s in found.sources] == [
        ("image", "a.png"),
        ("image", "b.jpg"),
        ("image", "sub/c.JPG"),
        ("video", "sub/clip.MP4"),
    ]
    assert found.folders == [str(files)]
    assert found.others == [str(files / "notes.txt")]


def test_a_file_is_taken_whatever_its_suffix(files):
    assert names_of(files / "notes.txt") == ["notes.txt"]


def test_a_pattern_gives_what_fits_it(files):
    assert names_of(files / "*.jpg") == ["b.jpg"]
    assert names_of(files / "**" / "*.[jJ]*") == ["b.jpg", "sub/c.JPG"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(files):
    (files / "a[1].jpg").write_bytes(b"x")
    assert names_of(files / "a[1].jpg") == ["a[1].jpg"]


def test_files_of_several_folders_are_named_below_what_they_share(files):
    assert names_of(files / "b.jpg", files / "sub" / "c.JPG") == ["b.jpg", "sub/c.JPG"]


def test_a_file_is_looked_at_once(files):
    (files / "link.jpg").symlink_to(files / "b.jpg")
    assert names_of(files / "b.jpg", files / "link.jpg", files / "b.jpg") == ["b.jpg"]


@pytest.mark.parametrize("word, number", [("webcam", "0"), ("webcam0", "0"), ("webcam12", "12")])
def test_a_webcam_has_a_number(word, number):
    assert find_sources([word]).sources == [Source("webcam", number, f"webcam{number}")]


def test_a_file_that_is_called_webcam_is_a_file(files, monkeypatch):
    monkeypatch.chdir(files)
    Path("webcam").write_bytes(b"x")
    assert find_sources(["webcam"]).sources[0].kind == "image"


def bad_words(folder: Path) -> dict[str, list[str]]:
    (folder / "empty").mkdir()
    (folder / "empty" / "readme.md").write_text("x")
    (folder / "broken.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe")
    return {
        "there is no file or folder .*/missing.jpg$": [f"{folder}/missing.jpg"],
        "no file matches the pattern .*/x\\*.jpg$": [f"{folder}/x*.jpg"],
        "/empty has no image and no video in it \\(1 other files\\); images end in .jpg": [
            f"{folder}/empty"
        ],
        "/broken.jpg is a link to a file that is not there": [f"{folder}/broken.jpg"],
        "/pipe is not a file; a camera is --input webcam0": [f"{folder}/pipe"],
        "webcam1 must be given alone": ["webcam1", f"{folder}/b.jpg"],
    }


def test_what_names_nothing_is_told(files):
    for message, words in bad_words(files).items():
        with pytest.raises((ValueError, FileNotFoundError), match=f"^--input: .*{message}"):
            find_sources(words)


@pytest.mark.parametrize(
    "kind, name, expected",
    [
        ("image", "sub/a.jpg", "sub/a.jpg"),
        ("image", "a.PNG", "a.PNG"),
        ("image", "a.tif", "a.tif.png"),
        ("image", "photo", "photo.png"),
        ("video", "a.mp4", "a.mp4"),
        ("video", "a.avi", "a.avi.mp4"),
        ("webcam", "webcam0", "webcam0.mp4"),
    ],
)
def test_a_copy_has_its_originals_name(kind, name, expected):
    assert target_of(Source(kind, "", name)) == expected


def test_a_new_folder_is_fine(files):
    check_targets(find_sources([str(files)]), files.parent / "copies" / "deep", False)


def refusals(files: Path, out: Path) -> dict:
    """Message: what is looked at, and where it would go."""
    return {
        "lies in the --input folder .*; name a folder outside": (files, files),
        "sub/new lies in the --input folder": (files, files / "sub" / "new"),
        "holds the input, and b.jpg would be overwritten": (files / "b.jpg", files),
        "already has 2 of the files that would be written: images.json, b.jpg; .*--overwrite": (
            files / "b.jpg",
            out,
        ),
        "notes.txt is not a folder; name another": (files / "b.jpg", files / "notes.txt" / "x"),
    }


def test_nothing_is_destroyed(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    for name in ("images.json", "b.jpg"):
        (out / name).write_text("precious")
    for message, (word, folder) in refusals(files, out).items():
        with pytest.raises(ValueError, match=f"^--output: .*{message}"):
            check_targets(find_sources([str(word)]), folder, False)


def test_an_earlier_demo_is_replaced_where_that_is_asked_for_and_an_input_never(files):
    found = find_sources([str(files / "b.jpg")])
    (files / "out").mkdir()
    (files / "out" / "b.jpg").write_text("old")
    check_targets(found, files / "out", True)
    with pytest.raises(ValueError, match="b.jpg would be overwritten"):
        check_targets(found, files, True)


def test_an_input_behind_a_link_is_not_written_over(files):
    (files / "out").mkdir()
    (files / "out" / "b.jpg").symlink_to(files / "b.jpg")
    with pytest.raises(ValueError, match="b.jpg would be overwritten"):
        check_targets(find_sources([str(files / "b.jpg")]), files / "out", True)


def test_two_files_of_one_target_are_told():
    found = Found(
        [Source("image", "/x/a.tif", "a.tif"), Source("image", "/x/b", "a.tif.png")], [], []
    )
    with pytest.raises(ValueError, match=re.escape("would both be written to a.tif.png")):
        check_targets(found, Path("/tmp/nowhere"), False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_named(files):
    (files / "locked").mkdir(mode=0o500)
    with pytest.raises(ValueError, match="locked cannot be written to; name another folder"):
        check_targets(find_sources([str(files / "b.jpg")]), files / "locked", False)


def test_two_stars_list_each_real_folder_once(files):
    for name in ("self", "again", "sub/up"):
        (files / name).symlink_to(files)
    assert names_of(files / "**" / "*.[jJ]*") == ["b.jpg", "sub/c.JPG"]
    assert names_of(files / "**" / "sub" / "**") == names_of(files / "sub" / "*")
