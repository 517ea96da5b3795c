"""The images with a detector's best and worst results: the truth beside the predictions."""

from pathlib import Path

import numpy as np

from d2_isonet.data.image_file import read_upright
from d2_isonet.engine.drawing import draw_objects
from d2_isonet.reporting.page.page import Page, Picture

from .datasets import DatasetResults
from .detection import Analysis, ImageScore, image_scores

RIGHT, WRONG, MISSED = (26, 115, 230), (230, 51, 26), (250, 168, 13)
WIDTH = 480  # pixels of each panel
_MOST_OBJECTS = 60  # per panel, those of the highest score


def add_pictures(page: Page, dataset: DatasetResults, number: int) -> None:
    """The best and the worst `number` images of the first run."""
    runs = dataset.analyses["bbox"]
    name, first = next(iter(runs.items()))
    page.subsection(
        "Best and worst images",
        "Left the truth: found objects in blue, missed ones in amber. Then the predictions: right "
        "ones in blue, wrong ones in red. Boxes at IoU 0.5; the order is by F1"
        + (f" of {name}." if len(runs) > 1 else "."),
    )
    if dataset.image_root is None:
        page.note("The folder of the images is unknown: add --images DIR.")
        return
    scores = image_scores(first.truth, first.matches, first.threshold)
    number = min(number, (len(scores) + 1) // 2)
    missing: list[str] = []
    for title, chosen in (("Worst", scores[::-1][:number]), ("Best", scores[:number])):
        pictures = [_picture(dataset.image_root, runs, score, missing) for score in chosen]
        page.images([p for p in pictures if p], title, max_side=WIDTH * (1 + len(runs)))
    if missing:
        page.note(f"{len(missing)} images cannot be drawn: {'; '.join(missing[:5])}.", "warning")


def _picture(
    image_root: Path, runs: dict[str, Analysis], score: ImageScore, missing: list[str]
) -> Picture | None:
    first = next(iter(runs.values()))
    name = first.truth.imgs[score.image_id]["file_name"]
    try:
        pixels = read_upright(str(image_root / name))
        panels = [_truth_panel(pixels, first, score.image_id)]
        panels += [_panel(pixels, analysis, score.image_id) for analysis in runs.values()]
    except (ValueError, KeyError, IndexError) as error:
        missing.append(f"{name} ({type(error).__name__}: {error})")
        return None
    caption = f"{name}: {score.right} right, {score.wrong} wrong, {score.missed} missed"
    if len(runs) > 1:
        caption += f"\ntruth | {' | '.join(runs)}"
    return Picture(np.hstack(panels), caption)


def _truth_panel(pixels: np.ndarray, analysis: Analysis, image_id: int) -> np.ndarray:
    truth, found = analysis.truth, analysis.matches.score_of_match
    own = [
        (annotation, found.get(place, -np.inf) >= analysis.threshold)
        for place, annotation in enumerate(truth.dataset["annotations"])
        if annotation["image_id"] == image_id and not annotation["iscrowd"]
    ][:_MOST_OBJECTS]
    colours = [RIGHT if is_found else MISSED for _, is_found in own]
    names = [truth.cats[a["category_id"]]["name"] for a, _ in own]
    return draw_objects(pixels, [a for a, _ in own], names, colours, WIDTH)


def _panel(pixels: np.ndarray, analysis: Analysis, image_id: int) -> np.ndarray:
    matches, categories = analysis.matches, analysis.truth.cats
    own = [
        (matches.detections[place], RIGHT if matches.right[place] else WRONG)
        for place in np.flatnonzero(matches.shown(analysis.threshold))
        if matches.detections[place]["image_id"] == image_id
    ]
    own = sorted(own, key=lambda x: -x[0]["score"])[:_MOST_OBJECTS]
    labels = [f"{categories[d['category_id']]['name']} {d['score']:.0%}" for d, _ in own]
    return draw_objects(pixels, [d for d, _ in own], labels, [c for _, c in own], WIDTH)
