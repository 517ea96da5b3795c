"""Material from Debian packages: cut-outs from stamps, backgrounds from wallpapers."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.packages import PackagesUnavailable, fetch_packages, unpack_package

from .library import MINIMUM_CUTOUTS, Cutout, Material, Photograph
from .scales import Scale

STAMPS_PACKAGE = "tuxpaint-stamps-default"
CREDITS = {
    STAMPS_PACKAGE: "cut-outs; (c) Bill Kendrick and the Tux Paint stamp authors; GPL-2+",
    "tuxpaint-data": "backgrounds; (c) Bill Kendrick and the Tux Paint authors; GPL-2+",
    "lomiri-wallpapers-16.04": "backgrounds; authors in the file names; "
    "CC-BY-4.0 or CC-BY-SA-4.0 per file, see the package's copyright file",
    "mate-backgrounds": "backgrounds; authors in the package's AUTHORS file; GPL-2+",
}

# Patterns below STAMPS_FOLDER. A leading "-" excludes files: transparent objects, or objects of
# doubtful class. Files named *_mirror are copies of another cut-out and are never used.
CLASSES = {
    "bird": ("animals/birds/*",),
    "carnivore": ("animals/mammals/bears/*", "animals/mammals/cats/*", "animals/mammals/dogs/*",
        "animals/mammals/badger.png"),
    "flower": ("plants/flowers/*",),
    "fruit": ("food/fruit/*",),
    "gravestone": ("seasonal/halloween/grave-*",),
    "hoofed_mammal": ("animals/mammals/bovines/*", "animals/mammals/camel/*",
        "animals/mammals/deer/*", "animals/mammals/equines/*", "animals/mammals/giraffe.png",
        "animals/mammals/hippopotamus.png", "animals/mammals/pig*",
        "animals/mammals/rhino_black.png", "animals/mammals/wildboar.png"),
    "household": ("household/*", "household/dishes/*", "household/dishes/utensils/*",
        "-household/dishes/glass.png"),
    "instrument": ("hobbies/music/*/*",),
    "road_sign": ("town/roadsigns/*", "-town/roadsigns/stoplight*",
        "-town/roadsigns/traffic_cone.png"),
    "sea_animal": ("animals/fish/*", "animals/mammals/aquatic/*", "animals/shellfish/*",
        "-animals/mammals/aquatic/otter.png"),
    "small_mammal": ("animals/mammals/rodents/*", "animals/mammals/ferret.png",
        "animals/mammals/rabbit_little.png"),
    "tool": ("household/tools/*", "household/arttools/scissors*",
        "-household/tools/cementmixer.png"),
    "vegetable": ("food/vegetables/*", "plants/mushrooms/*"),
    "vehicle": ("vehicles/auto/*", "vehicles/construction/*", "vehicles/cycle/*",
        "vehicles/emergency/firetruck.png", "vehicles/flight/*", "vehicles/flight/planes/*",
        "vehicles/garbagetruck.png", "vehicles/masstransit/*", "vehicles/race/*",
        "vehicles/ship/*"),
}  # fmt: skip

# Only photographs that show no object of a class above: photographs with flowers, dandelions,
# sheep, dogs, jellyfish, insects, fruit, tools or instruments are excluded.
PHOTOGRAPHS = {
    "lomiri-wallpapers-16.04": ("Bridge_by_Sander_Klootwijk", "aitzgorri_by_Aitzol_Berasategi",
        "analogpattern_by_Peter_Nerlich", "life_by_Aitzol_Berasategi",
        "picosdeeuropa_by_Aitzol_Berasategi", "sunset_by_Aitzol_Berasategi",
        "umang_by_Abhishek_Mudgal"),
    "mate-backgrounds": ("Aqua", "Blinds", "Dune", "GreenMeadow", "RainDrops", "Storm", "Wood"),
    "tuxpaint-data": ("burnt_bark", "cliff", "lighthouse", "mossy_bark", "mossy_log", "mudstone",
        "ocean_splash", "ocean_waves", "redwoods_above", "rocks", "sun_behind_clouds",
        "sun_behind_leaves", "trees_above", "trees_at_dusk", "wool_mill_machine"),
}  # fmt: skip

STAMPS_FOLDER = "usr/share/tuxpaint/stamps"
SMALLEST_SIDE = 32  # pixels; a smaller cut-out has too little detail to be enlarged
LEAST_OPAQUE = 0.6  # of the visible pixels; excludes glass, which has no clear mask
MINIMUM_PHOTOGRAPHS = 8
PHOTOGRAPH_MARGIN = 2.5  # photographs are kept at most this many times as large as a scene


def debian_material(scale: Scale, cache: Path) -> Material:
    """Fetch, unpack and read the packages that the scale needs.

    Raises:
        PackagesUnavailable: they cannot be fetched, or they hold too few pictures.
    """
    packages = (STAMPS_PACKAGE, *scale.background_packages)
    archives = fetch_packages(packages, cache)
    for stale in cache.glob("unpacked-*"):  # of a killed run
        shutil.rmtree(stale)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(dir=cache, prefix="unpacked-") as folder:
        for archive in tqdm(archives, desc="unpacking", unit="package"):
            unpack_package(archive, Path(folder), (".png", ".jpg", "/copyright"))
        documents = Path(folder, "usr/share/doc")
        licences = {p: (documents / p / "copyright").read_text(errors="replace") for p in packages}
        cutouts = _read_classes(Path(folder) / STAMPS_FOLDER, scale, notes)
        photographs = _read_photographs(Path(folder), scale, notes)
    if not cutouts or len(photographs) < MINIMUM_PHOTOGRAPHS:
        raise PackagesUnavailable(
            f"{', '.join(a.name for a in archives)} hold only {len(cutouts)} usable classes and "
            f"{len(photographs)} backgrounds: another layout than expected"
        )
    pairs = zip(archives, packages, strict=True)
    credits = [f"{archive.name}: {CREDITS[package]}" for archive, package in pairs]
    return Material(cutouts, photographs, credits, licences, notes)


def _read_classes(stamps: Path, scale: Scale, notes: list[str]) -> dict[str, list[Cutout]]:
    classes = {}
    limit = max(scale.object_side[1], scale.image_side)
    for label in scale.classes:
        cutouts = []
        for path in class_files(stamps, CLASSES[label]):
            name = path.relative_to(stamps).with_suffix("").as_posix()
            try:
                cutouts.append(Cutout(name, label, read_cutout(path, limit)))
            except (OSError, ValueError) as error:
                notes.append(f"{name}: left out, {error}")
        if len(cutouts) >= MINIMUM_CUTOUTS:
            classes[label] = cutouts
        else:
            notes.append(f"class {label}: left out, {len(cutouts)} cut-outs are too few")
    return classes


def class_files(stamps: Path, patterns: Sequence[str]) -> list[Path]:
    """The PNG files that match the patterns, without mirrored copies, sorted."""
    wanted, excluded = set(), set()
    for pattern in patterns:
        (excluded if pattern.startswith("-") else wanted).update(stamps.glob(pattern.lstrip("-")))
    files = sorted(wanted - excluded)
    return [p for p in files if p.suffix == ".png" and not p.stem.endswith("_mirror")]


def read_cutout(path: Path, limit: int) -> np.ndarray:
    """The visible part of a picture, its long side at most `limit`: uint8 (H, W, 4).

    Raises:
        ValueError: the alpha channel is missing or shows no opaque object.
        OSError: the file cannot be read.
    """
    with Image.open(path) as image:
        if "A" not in image.getbands() and "transparency" not in image.info:
            raise ValueError("no alpha channel")
        image = image.convert("RGBA")
    shown = image.getchannel("A").point(lambda alpha: 255 * (alpha > 12))
    image = image.crop(shown.getbbox() or (0, 0, 1, 1))
    alpha = np.asarray(image.getchannel("A"))
    if max(image.size) < SMALLEST_SIDE:
        raise ValueError(f"only {image.width}x{image.height} pixels show")
    if (alpha > 127).sum() < LEAST_OPAQUE * (alpha > 12).sum() or alpha.min() > 127:
        raise ValueError("not an opaque object on a transparent ground")
    return _shrink(image, limit / max(image.size))


def _read_photographs(root: Path, scale: Scale, notes: list[str]) -> list[Photograph]:
    """The photographs, shrunk to PHOTOGRAPH_MARGIN times the scene."""
    wanted = {name for p in scale.background_packages for name in PHOTOGRAPHS[p]}
    found = {p.stem: p for p in sorted(root.rglob("*.jpg")) if p.stem in wanted}
    width, height = (round(PHOTOGRAPH_MARGIN * side) for side in scale.scene_size)
    photographs = []
    for name in sorted(wanted):
        try:
            with Image.open(found[name]) as image:
                image.draft("RGB", (width, height))
                image = image.convert("RGB")
        except (KeyError, OSError) as error:
            notes.append(f"background {name}: left out, {error!r}")
            continue
        ratio = max(width / image.width, height / image.height)
        photographs.append(Photograph(name, _shrink(image, ratio)))
    return photographs


def _shrink(image: Image.Image, ratio: float) -> np.ndarray:
    """The image at `ratio` times its size, if that is smaller; colours are weighted by alpha."""
    if ratio < 1:
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image)
