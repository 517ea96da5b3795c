"""A picture of predictions beside the truth."""

import json
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils.visualizer import Visualizer
from pycocotools.coco import COCO

SCORE_THRESHOLD = 0.5
COLORS = [
    (0.90, 0.25, 0.20), (0.20, 0.60, 0.90), (0.95, 0.75, 0.10), (0.30, 0.75, 0.35),
    (0.65, 0.35, 0.85), (0.95, 0.50, 0.15), (0.20, 0.75, 0.75), (0.85, 0.40, 0.65),
]  # fmt: skip


def draw_predictions(
    json_file: Path, image_root: Path, runs: dict[str, Path], picture: Path, num_images: int = 6
) -> Path:
    """Write a picture of one row an image: the truth, then the predictions of each run.

    Args:
        json_file, image_root: the validation set, COCO format.
        runs: title -> OUTPUT_DIR of a training, whose inference/ holds the predictions.
        picture: the file to write.
    """
    truth = COCO(str(json_file))
    predictions = {title: _load(run) for title, run in runs.items()}
    rows = [_titles(["truth", *runs])]
    for image in truth.loadImgs(
        sorted(truth.getImgIds())[:: max(1, len(truth.imgs) // num_images)]
    ):
        pixels = cv2.imread(str(image_root / image["file_name"]))[:, :, ::-1]
        shown = [truth.loadAnns(truth.getAnnIds(image["id"]))]
        shown += [
            [p for p in found if p["image_id"] == image["id"]] for found in predictions.values()
        ]
        rows.append(np.hstack([_draw(pixels, objects, truth) for objects in shown]))
    width = rows[-1].shape[1]
    rows[0] = cv2.resize(rows[0], (width, 40))
    cv2.imwrite(str(picture), np.vstack(rows[: num_images + 1])[:, :, ::-1])
    return picture


def _load(run: Path) -> list[dict]:
    file = run / "inference" / "coco_instances_results.json"
    found = json.loads(file.read_text()) if file.is_file() else []
    return [p for p in found if p["score"] >= SCORE_THRESHOLD]


def _titles(titles: list[str]) -> np.ndarray:
    cell = 400
    row = np.full((40, cell * len(titles), 3), 255, np.uint8)
    for i, title in enumerate(titles):
        cv2.putText(row, title, (cell * i + 8, 27), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1,
                    cv2.LINE_AA)  # fmt: skip
    return row


def _draw(pixels: np.ndarray, objects: list[dict], truth: COCO) -> np.ndarray:
    scale = 400 / pixels.shape[1]
    visualizer = Visualizer(pixels, MetadataCatalog.get("quickstart"), scale=scale)
    categories = sorted(truth.cats)
    labels = [
        truth.cats[o["category_id"]]["name"] + (f" {o['score']:.0%}" if "score" in o else "")
        for o in objects
    ]
    boxes = np.array([o["bbox"] for o in objects], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return visualizer.overlay_instances(
        boxes=boxes,
        labels=labels,
        masks=[o["segmentation"] for o in objects] or None,
        assigned_colors=[COLORS[categories.index(o["category_id"]) % 8] for o in objects],
    ).get_image()
