"""The images that a detector does best and worst on, the truth beside the predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data.detection_utils import read_image

from d2_isonet.data.image_folder import PILLOW_ERRORS
from d2_isonet.engine.drawing import draw_objects
from d2_isonet.reporting.page.page import Page, Picture

from .datasets import DatasetResults, Result
from .matches import ImageScore, image_scores

RIGHT, WRONG, MISSED = (26, 115, 230), (230, 51, 26), (250, 168, 13)
WIDTH = 480  # pixels of each panel
_MOST_OBJECTS = 60  # drawn in one panel, those of the highest score


def add_pictures(
    page: Page, dataset: DatasetResults, thresholds: dict[str, float], number: int
) -> None:
    """The best and the worst `number` images, by the first run that has been measured."""
    measured = [result for result in dataset.results if "bbox" in result.analyses]
    first = measured[0]
    page.subsection(
        "Best and worst images",
        "Left the truth: found objects in blue, missed ones in amber. Then the predictions: right "
        "ones in blue, wrong ones in red. Boxes at IoU 0.5; the order is by F1"
        + (f" of {first.run.name}." if len(measured) > 1 else "."),
    )
    if dataset.image_root is None:
        page.note("It is not known where the images are: add --image-root DIR.")
        return
    scores = image_scores(dataset.truth, first.analyses["bbox"].matches, thresholds[first.run.name])
    number = min(number, (len(scores) + 1) // 2)
    missing: list[str] = []
    for title, chosen in (("Worst", scores[::-1][:number]), ("Best", scores[:number])):
        pictures = [_picture(dataset, measured, thresholds, score, missing) for score in chosen]
        page.images([p for p in pictures if p], title, max_side=WIDTH * (1 + len(measured)))
    if missing:
        page.note(f"{len(missing)} images cannot be drawn: {'; '.join(missing[:5])}.", "warning")


def _picture(
    dataset: DatasetResults,
    results: Sequence[Result],
    thresholds: dict[str, float],
    score: ImageScore,
    missing: list[str],
) -> Picture | None:
    image = dataset.truth.imgs[score.image_id]
    path = Path(dataset.image_root, image["file_name"])
    try:
        pixels = read_image(str(path), "RGB")
        panels = [_truth_panel(pixels, dataset, results[0], thresholds, score.image_id)]
        panels += [_panel(pixels, dataset, r, thresholds, score.image_id) for r in results]
    except (*PILLOW_ERRORS, AssertionError, ValueError, KeyError, IndexError) as error:
        missing.append(f"{image['file_name']} ({type(error).__name__}: {error})")
        return None
    caption = (
        f"{image['file_name']}: {score.right} right, {score.wrong} wrong, {score.missed} missed"
    )
    if len(results) > 1:
        caption += f"\ntruth | {' | '.join(r.run.name for r in results)}"
    return Picture(np.hstack(panels), caption)


def _truth_panel(
    pixels, dataset: DatasetResults, result: Result, thresholds, image_id
) -> np.ndarray:
    truth, matches = dataset.truth, result.analyses["bbox"].matches
    places = {id(a): place for place, a in enumerate(truth.dataset["annotations"])}
    objects = [a for a in truth.imgToAnns[image_id] if not a["iscrowd"]][:_MOST_OBJECTS]
    threshold = thresholds[result.run.name]
    colours = [
        RIGHT if matches.score_of_match.get(places[id(a)], -np.inf) >= threshold else MISSED
        for a in objects
    ]
    names = [truth.cats[a["category_id"]]["name"] for a in objects]
    return draw_objects(pixels, objects, names, colours, WIDTH)


def _panel(pixels, dataset: DatasetResults, result: Result, thresholds, image_id) -> np.ndarray:
    matches, threshold = result.analyses["bbox"].matches, thresholds[result.run.name]
    own = [
        place for place in np.flatnonzero(matches.shown(threshold))
        if matches.detections[place]["image_id"] == image_id
    ]  # fmt: skip
    own = sorted(own, key=lambda place: -matches.detections[place]["score"])[:_MOST_OBJECTS]
    found = [matches.detections[place] for place in own]
    colours = [RIGHT if matches.right[place] else WRONG for place in own]
    names = [f"{dataset.truth.cats[d['category_id']]['name']} {d['score']:.0%}" for d in found]
    return draw_objects(pixels, found, names, colours, WIDTH)
