"""The images with a detector's best and worst results: the truth beside the predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data.detection_utils import read_image

from d2_isonet.data.image_folder import PILLOW_ERRORS
from d2_isonet.engine.drawing import draw_objects
from d2_isonet.reporting.page.page import Page, Picture

from .datasets import DatasetResults
from .detection import Analysis
from .matches import ImageScore, image_scores

RIGHT, WRONG, MISSED = (26, 115, 230), (230, 51, 26), (250, 168, 13)
WIDTH = 480  # pixels of each panel
_MOST_OBJECTS = 60  # per panel, those of the highest score


class _Measured(NamedTuple):
    """A run's boxes, and the least score of those that are drawn."""

    run: str
    analysis: Analysis
    threshold: float


def add_pictures(
    page: Page, dataset: DatasetResults, thresholds: dict[str, float], number: int
) -> None:
    """The best and the worst `number` images of the first run."""
    runs = [_Measured(run, a, thresholds[run]) for run, a in dataset.analyses("bbox").items()]
    page.subsection(
        "Best and worst images",
        "Left the truth: found objects in blue, missed ones in amber. Then the predictions: right "
        "ones in blue, wrong ones in red. Boxes at IoU 0.5; the order is by F1"
        + (f" of {runs[0].run}." if len(runs) > 1 else "."),
    )
    if dataset.image_root is None:
        page.note("The folder of the images is unknown: add --images DIR.")
        return
    first = runs[0].analysis
    scores = image_scores(first.truth, first.matches, runs[0].threshold)
    number = min(number, (len(scores) + 1) // 2)
    missing: list[str] = []
    for title, chosen in (("Worst", scores[::-1][:number]), ("Best", scores[:number])):
        pictures = [_picture(dataset.image_root, runs, score, missing) for score in chosen]
        page.images([p for p in pictures if p], title, max_side=WIDTH * (1 + len(runs)))
    if missing:
        page.note(f"{len(missing)} images cannot be drawn: {'; '.join(missing[:5])}.", "warning")


def _picture(
    image_root: Path, runs: Sequence[_Measured], score: ImageScore, missing: list[str]
) -> Picture | None:
    name = runs[0].analysis.truth.imgs[score.image_id]["file_name"]
    try:
        pixels = read_image(str(image_root / name), "RGB")
        panels = [_truth_panel(pixels, runs[0], score.image_id)]
        panels += [_panel(pixels, run, score.image_id) for run in runs]
    except (*PILLOW_ERRORS, ValueError, KeyError, IndexError) as error:
        missing.append(f"{name} ({type(error).__name__}: {error})")
        return None
    caption = f"{name}: {score.right} right, {score.wrong} wrong, {score.missed} missed"
    if len(runs) > 1:
        caption += f"\ntruth | {' | '.join(run.run for run in runs)}"
    return Picture(np.hstack(panels), caption)


def _truth_panel(pixels: np.ndarray, run: _Measured, image_id: int) -> np.ndarray:
    truth, found = run.analysis.truth, run.analysis.matches.score_of_match
    places = {id(a): place for place, a in enumerate(truth.dataset["annotations"])}
    objects = [a for a in truth.imgToAnns[image_id] if not a["iscrowd"]][:_MOST_OBJECTS]
    colours = [
        RIGHT if found.get(places[id(a)], -np.inf) >= run.threshold else MISSED for a in objects
    ]
    names = [truth.cats[a["category_id"]]["name"] for a in objects]
    return draw_objects(pixels, objects, names, colours, WIDTH)


def _panel(pixels: np.ndarray, run: _Measured, image_id: int) -> np.ndarray:
    matches, categories = run.analysis.matches, run.analysis.truth.cats
    own = [
        (matches.detections[place], RIGHT if matches.right[place] else WRONG)
        for place in np.flatnonzero(matches.shown(run.threshold))
        if matches.detections[place]["image_id"] == image_id
    ]
    own = sorted(own, key=lambda x: -x[0]["score"])[:_MOST_OBJECTS]
    labels = [f"{categories[d['category_id']]['name']} {d['score']:.0%}" for d, _ in own]
    return draw_objects(pixels, [d for d, _ in own], labels, [c for _, c in own], WIDTH)
