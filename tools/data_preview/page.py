"""The samples as a page and as files."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from pages.page import Page, Picture
from PIL import Image
from reporting.drawing import draw
from reporting.figures import COLOURS

from .samples import Sample

WIDTH = 640  # pixels of a drawn image


def write_preview(samples: Iterable[Sample], cfg: CfgNode, source: str, folder: Path) -> Path:
    """Write index.html and a jpg for each sample into the folder; returns the page's path.

    Args:
        source: "mapper" or "annotation".
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = list(samples)
    numbers = Counter(name for sample in samples for name in sample.names)
    pictures = []
    for place, sample in enumerate(samples):
        image = drawn(sample, sorted(numbers))
        Image.fromarray(image).save(folder / f"{place:04d}.jpg", quality=92)
        pictures.append(Picture(image, _caption(sample)))
    page = Page(f"Data of {', '.join(cfg.DATASETS.TRAIN)}", _SOURCES[source])
    _add_pixels(page, samples, cfg)
    page.section("Classes", f"In the {len(samples)} images below.")
    page.table(
        [{"class": name, "number": n} for name, n in numbers.most_common()], ["class", "number"]
    )
    page.section("Images").images(pictures, max_side=WIDTH)
    return page.write(folder / "index.html")


_SOURCES = {
    "mapper": "As the network is fed in training: after augmentation and normalization, which is "
    "undone for the eye.",
    "annotation": "As annotated: images upright, before any augmentation.",
}


def drawn(sample: Sample, classes: list[str]) -> np.ndarray:
    """The sample's pixels, with its objects where it has any; a colour a class."""
    if not sample.objects:
        return sample.pixels
    colours = [COLOURS[classes.index(name) % len(COLOURS)] for name in sample.names]
    return draw(sample.pixels, sample.objects, sample.names, colours, WIDTH)


def _caption(sample: Sample) -> str:
    height, width = sample.pixels.shape[:2]
    what = f"{len(sample.objects)} objects" if sample.objects else ", ".join(sample.names)
    return f"{Path(sample.file_name).name}, {width} x {height}\n{what or 'no object'}"


def _add_pixels(page: Page, samples: list[Sample], cfg: CfgNode) -> None:
    """How the pixels are fed; a wrong order of channels or mean shows in the numbers."""
    fed = [sample.fed for sample in samples if sample.fed is not None]
    if not fed:
        return
    page.section("What the network is fed")
    page.facts({
        "INPUT.FORMAT": cfg.INPUT.FORMAT,
        "MODEL.PIXEL_MEAN": cfg.MODEL.PIXEL_MEAN,
        "MODEL.PIXEL_STD": cfg.MODEL.PIXEL_STD,
        "sizes": _sizes(samples),
    })  # fmt: skip
    pixels = torch.cat([image.flatten(1) for image in fed], dim=1)
    rows = [
        {"channel": name, "mean": float(x.mean()), "standard deviation": float(x.std())}
        for name, x in zip(cfg.INPUT.FORMAT, pixels, strict=True)
    ]
    caption = "After normalization, over these images: about 0 and 1 where mean and std are theirs."
    page.table(rows, caption=caption, formats={"mean": ".3f", "standard deviation": ".3f"})
    changes = cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA > 0 or bool(cfg.SOLVER.ADVERSARIAL.ATTACK)
    if changes and cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        page.note("Mixup and adversarial training change the images later, in the network.")


def _sizes(samples: list[Sample]) -> str:
    heights, widths = zip(*(sample.pixels.shape[:2] for sample in samples), strict=True)
    return f"{_range(widths)} wide, {_range(heights)} high"


def _range(values: tuple[int, ...]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
