"""prepare_cutouts.py: Debian packages or shapes, reuse, killed runs, bad input."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets.command import prepare_cutouts
from datasets.cutouts import dataset, library, scales
from datasets.cutouts.dataset import prepare
from datasets.cutouts.debian import (
    CREDITS,
    PHOTOGRAPHS,
    STAMPS_FOLDER,
    STAMPS_PACKAGE,
    class_files,
    debian_material,
    read_cutout,
)
from datasets.cutouts.pictures import Painter
from datasets.cutouts.scales import SCALES
from datasets.packages import PackagesUnavailable, fetch_packages, unpack_package
from PIL import Image

TINY = replace(
    SCALES["small"],
    classes=("bird", "fruit"),
    background_packages=("tuxpaint-data",),
    scenes=(3, 2),
    scene_size=(96, 80),
    object_side=(20, 48),
    images=(8, 8),
    image_side=48,
)
FOLDERS = {"bird": "animals/birds", "fruit": "food/fruit"}
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="this is not Debian")


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch):
    for name, value in {"VARIANTS": 2, "GROUNDS": 2, "GROUND_SIZE": (160, 120)}.items():
        monkeypatch.setattr(library, name, value)


@pytest.fixture
def no_apt(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)


def programs(folder, monkeypatch, apt_get):
    """An apt-get that runs this shell script, before the real programs on the PATH."""
    folder.mkdir()
    (folder / "apt-get").write_text("#!/bin/sh\n" + apt_get)
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def make_package(name, files, folder):
    """A .deb of this name with the files, a mapping of path to image."""
    root = folder / f"tree-{name}"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: a\n"
    (root / "DEBIAN" / "control").write_text(control)
    licence = root / "usr/share/doc" / name / "copyright"
    licence.parent.mkdir(parents=True)
    licence.write_text(f"licence of {name}")
    for path, image in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / path)
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), f"{folder}/{name}_1_all.deb"]
    subprocess.run(command, check=True, capture_output=True)


def stamp_image(number):
    """A disc on transparency, its colour from the number."""
    y, x = np.mgrid[:60, :80]
    rgba = np.full((60, 80, 4), 10 * number + 20, np.uint8)
    rgba[..., 3] = 255 * ((x - 40) ** 2 + (y - 30) ** 2 < 800)
    return Image.fromarray(rgba)


@pytest.fixture
def debian_cache(tmp_path):
    """A folder that holds a data set's cache with small packages in the real layout."""
    cache = tmp_path / "out" / "cache"
    cache.mkdir(parents=True)
    stamps = {
        f"{STAMPS_FOLDER}/{folder}/item{number}.png": stamp_image(number)
        for folder in FOLDERS.values()
        for number in range(8)
    }
    grounds = {
        f"usr/share/tuxpaint/templates/{name}.jpg": Image.new("RGB", (300, 250), (9 * i, 90, 60))
        for i, name in enumerate(PHOTOGRAPHS["tuxpaint-data"])
    }
    make_package(STAMPS_PACKAGE, stamps, cache)
    make_package("tuxpaint-data", grounds, cache)
    for tree in cache.glob("tree-*"):
        shutil.rmtree(tree)
    return cache


# Where the pictures come from


@needs_dpkg
def test_cached_packages_are_used_without_apt_get(debian_cache, tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, "exit 1")
    prepare(debian_cache.parent, TINY, 0, "debian", workers=1)
    classes = debian_cache.parent / "classification" / "train"
    assert sorted(path.name for path in classes.iterdir()) == ["bird", "fruit"]
    text = (debian_cache.parent / "licences" / "tuxpaint-data.txt").read_text()
    assert text == "licence of tuxpaint-data"


@needs_dpkg
def test_apt_get_download_fills_the_cache(debian_cache, tmp_path, monkeypatch):
    shop = debian_cache.rename(tmp_path / "shop")
    name = "tuxpaint-data_1_all.deb"
    listing = f"echo \"'http://x/{name}' {name} 5 SHA256:0\""
    script = f'case "$*" in *print-uris*) {listing};; *) cp {shop}/{name} .;; esac'
    programs(tmp_path / "bin", monkeypatch, script)
    assert fetch_packages(["tuxpaint-data"], tmp_path / "new") == [tmp_path / "new" / name]


def test_without_debian_shapes_are_generated_and_the_reason_is_one_line(no_apt, tmp_path, capsys):
    prepare(tmp_path, TINY, 0, "auto", workers=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "No photographs" in line]
    assert len(lines) == 1 and "not Debian: no apt-get" in lines[0]
    assert (tmp_path / "classification" / "val" / "star").is_dir()


def test_source_debian_does_not_fall_back(no_apt, tmp_path, capsys):
    assert prepare_cutouts(["--output", str(tmp_path), "--source", "debian"]) == 1
    assert "not Debian" in capsys.readouterr().err


@needs_dpkg
@pytest.mark.parametrize("words, updates", [("Unable to locate package a", 1), ("no space", 0)])
def test_only_unknown_packages_ask_for_fresh_lists(tmp_path, monkeypatch, words, updates):
    script = (
        f'case "$*" in *update*) echo >> {tmp_path}/updates;; esac; echo "E: {words}"; exit 100'
    )
    programs(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(PackagesUnavailable, match=words):
        fetch_packages(["a"], tmp_path / "cache")
    assert (tmp_path / "updates").exists() == bool(updates)


@needs_dpkg
def test_a_damaged_package_is_named_and_deleted(debian_cache, tmp_path):
    archive = next(debian_cache.glob("tuxpaint-data*.deb"))
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(PackagesUnavailable, match="tuxpaint-data.*damaged"):
        unpack_package(archive, tmp_path / "x", (".jpg",))
    assert not archive.exists()


def test_mirrored_copies_and_excluded_files_are_not_used(tmp_path):
    for name in ("dumper.png", "dumper_mirror.png", "glass.png", "plan.svg"):
        (tmp_path / name).touch()
    assert class_files(tmp_path, ("*", "-glass.png")) == [tmp_path / "dumper.png"]


@pytest.mark.parametrize(
    "image, reason",
    [
        (Image.new("RGB", (80, 60)), "no alpha channel"),
        (Image.new("RGBA", (80, 60), (9, 9, 9, 255)), "not an opaque object"),
        (Image.new("RGBA", (80, 60), (9, 9, 9, 60)), "not an opaque object"),
        (Image.new("RGBA", (20, 20), (9, 9, 9, 255)), "only 20x20 pixels"),
    ],
)
def test_a_picture_without_usable_alpha_is_refused(tmp_path, image, reason):
    image.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=reason):
        read_cutout(tmp_path / "a.png", limit=100)


@needs_dpkg
def test_an_unreadable_picture_is_named_and_left_out(debian_cache):
    bad = {f"{STAMPS_FOLDER}/animals/birds/bad.png": Image.new("RGB", (80, 60))}
    good = {f"{STAMPS_FOLDER}/animals/birds/{n}.png": stamp_image(n) for n in range(8)}
    next(debian_cache.glob("tuxpaint-stamps*.deb")).unlink()
    make_package(STAMPS_PACKAGE, bad | good, debian_cache)
    material = debian_material(TINY, debian_cache)
    assert "animals/birds/bad: left out, no alpha channel" in material.notes
    assert len(material.cutouts["bird"]) == 8 and "fruit" not in material.cutouts


def test_every_package_of_every_scale_has_its_licence_named():
    for scale in SCALES.values():
        assert {STAMPS_PACKAGE, *scale.background_packages} <= CREDITS.keys()


def test_real_packages_fill_every_class():
    folder = os.environ.get("D2_ISONET_DEBIAN_CACHE")
    if not folder:
        pytest.skip("set D2_ISONET_DEBIAN_CACHE to a folder with the .deb files of scale full")
    material = debian_material(SCALES["full"], Path(folder))
    assert sorted(material.cutouts) == sorted(SCALES["full"].classes)
    assert len(material.photographs) == sum(map(len, PHOTOGRAPHS.values()))


# What happens to the folder


def pictures(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}


def test_a_complete_data_set_is_reused_and_said_so(tmp_path):
    prepare(tmp_path, TINY, 0, "shapes", workers=1)
    before = pictures(tmp_path)
    assert "already" in prepare(tmp_path, TINY, 0, "shapes", workers=1)
    assert pictures(tmp_path) == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"scale": replace(TINY, image_side=40)}])
def test_other_parameters_replace_the_data_set(tmp_path, change):
    prepare(tmp_path, TINY, 0, "shapes", workers=1)
    before = pictures(tmp_path)
    options = {"scale": TINY, "seed": 0, "source": "shapes", "workers": 1, **change}
    assert "already" not in prepare(tmp_path, **options)
    assert not pictures(tmp_path).items() & before.items()


def test_a_deleted_folder_is_made_again(tmp_path):
    prepare(tmp_path, TINY, 0, "shapes", workers=1)
    shutil.rmtree(tmp_path / "detection")
    prepare(tmp_path, TINY, 0, "shapes", workers=1)
    assert (tmp_path / "detection" / "instances_val.json").is_file()


def test_a_run_killed_while_painting_leaves_no_data_set(tmp_path, monkeypatch):
    def killed(self, job, generator):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Painter, "paint_scene", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, TINY, 0, "shapes", workers=1)
    assert {path.name for path in tmp_path.iterdir()} == {".partial", "cutouts.json"}
    assert "already" not in prepare(tmp_path, TINY, 0, "shapes", workers=1)
    assert not (tmp_path / ".partial").exists()


def test_a_rebuild_killed_while_painting_keeps_the_old_data_set(tmp_path, monkeypatch):
    prepare(tmp_path, TINY, 0, "shapes", workers=1)
    before = pictures(tmp_path)
    monkeypatch.setattr(Painter, "paint_scene", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(tmp_path, TINY, 1, "shapes", workers=1)
    assert before.items() <= pictures(tmp_path).items()
    assert "already" in prepare(tmp_path, TINY, 0, "shapes", workers=1)


def test_a_run_killed_between_two_renames_is_not_complete(tmp_path, monkeypatch):
    replace_path = os.replace

    def killed(source, target):
        if Path(target).name == "detection":
            raise KeyboardInterrupt
        replace_path(source, target)

    monkeypatch.setattr(scales.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, TINY, 0, "shapes", workers=1)
    parameters = scales.parameters_of(TINY, 0, "shapes")
    assert not scales.is_complete(tmp_path, parameters, ())


def test_a_folder_of_someone_else_is_refused(tmp_path):
    (tmp_path / "detection").mkdir()
    with pytest.raises(ValueError, match="not made by this program"):
        prepare(tmp_path, TINY, 0, "shapes", workers=1)


def test_a_negative_seed_is_refused(tmp_path, capsys):
    assert prepare_cutouts(["--output", str(tmp_path / "new"), "--seed", "-1"]) == 1
    assert "seed -1 is negative" in capsys.readouterr().err


def test_the_command_prints_the_table_and_the_licences(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "debian_material", lambda *arguments: 1 / 0)
    monkeypatch.setitem(SCALES, "small", TINY)
    command = ["--output", str(tmp_path), "--source", "shapes", "--workers", "1"]
    assert prepare_cutouts(command) == 0
    printed = capsys.readouterr().out
    assert "train: 3 scenes" in printed and "Sources and licences" in printed
    assert json.loads((tmp_path / "cutouts.json").read_text())["complete"] is True
