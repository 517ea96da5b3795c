"""A look at image files: what it sees, and that it looks once."""

import os

import numpy as np
import pytest
from PIL import Image

from d2_isonet.preflight.data import image_scan
from d2_isonet.preflight.data.image_scan import MISSING, ImageFile, look_at, look_at_all
from d2_isonet.preflight.findings import Finding, findings_table

UNKNOWN = "no image of a kind that is read (JPEG, PNG, BMP, GIF, PPM, TIFF, WEBP), 6 bytes"


@pytest.fixture
def photograph(tmp_path):
    file = tmp_path / "photograph.jpg"
    Image.effect_noise((90, 60), 60).convert("RGB").save(file)
    return file


def test_size_mode_and_orientation_are_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (9, 5)).save(tmp_path / "turned.jpg", exif=exif)
    look = look_at(str(tmp_path / "turned.jpg"))
    assert look[:5] == ("", 9, 5, "L", 6)
    assert look.upright_size() == (5, 9)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_seen_as_by_full_decoding(share, photograph):
    data = photograph.read_bytes()
    photograph.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(OSError, match="truncated"), Image.open(photograph) as image:
        image.load()
    assert "truncated" in look_at(str(photograph)).error


def test_an_empty_a_foreign_and_a_missing_file_are_told_apart(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    errors = [look_at(str(tmp_path / name)).error for name in ("empty.jpg", "page.jpg", "no.jpg")]
    assert errors == ["0 bytes", UNKNOWN, MISSING]


def test_sixteen_bits_are_seen(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert look_at(str(tmp_path / "deep.png")).has_deep_pixels


def test_a_file_is_looked_at_again_only_when_it_has_changed(photograph, monkeypatch):
    looks = []
    monkeypatch.setattr(
        image_scan, "look_at", lambda path, **_: looks.append(path) or look_at(path)
    )
    path = str(photograph)
    first = look_at_all([path, path])
    assert look_at_all([path]) == first == {path: look_at(path)}
    assert looks == [path]
    Image.new("RGB", (4, 4)).save(photograph)
    os.utime(photograph, ns=(1, 1))
    assert look_at_all([path])[path].width == 4
    assert looks == [path, path]


def test_a_file_that_is_missing_is_looked_for_again(photograph):
    path = str(photograph)
    data = photograph.read_bytes()
    photograph.unlink()
    assert look_at_all([path])[path].error == MISSING
    photograph.write_bytes(data)
    assert look_at_all([path])[path].error == ""


@pytest.mark.parametrize("damage", ["a file for the folder", "no database"])
def test_a_cache_that_cannot_be_used_is_told_and_done_without(
    damage, photograph, tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("FVCORE_CACHE", str(folder))
    if damage == "no database":
        (folder / "d2_isonet").mkdir()
        for number in range(9):
            (folder / f"d2_isonet/preflight{number}.sqlite").write_bytes(b"x" * 4096)
    else:
        (folder / "d2_isonet").write_bytes(b"")
    assert isinstance(look_at_all([str(photograph)])[str(photograph)], ImageFile)
    assert "not kept for the next one" in caplog.text


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg", "x" * 5000, "", "/"])
def test_a_name_that_no_file_can_have_is_an_error_of_that_file(name, tmp_path):
    path = str(tmp_path / name)
    assert look_at_all([path])[path].error


def test_a_name_that_is_no_utf8_is_looked_at_kept_and_printed(photograph):
    path = os.fsdecode(os.fsencode(photograph.parent) + b"/\xff.jpg")
    os.rename(photograph, path)
    assert look_at_all([path])[path] == look_at_all([path])[path]
    findings_table([Finding("fact", path, path)]).encode()
