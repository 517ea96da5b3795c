#!/usr/bin/env python
"""Pretrains on real photographs, transfers the weights to Mask R-CNN, evaluates and compares.

python tools/quickstart.py [--scale small|full] [--seeds 1] [--output output/quickstart]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO
from reproduction.training_run import REPOSITORY, data_of_detection, environment, run_training
from tabulate import tabulate

from d2_isonet.data.image_file import read_upright
from d2_isonet.engine.drawing import class_colour, draw_objects

CONFIGS = REPOSITORY / "configs" / "quickstart"
DETECTORS = {"pretrained": "R-ISONet pretrained", "random": "random initialization"}
MEASURES = {"box AP": "bbox/AP", "box AP50": "bbox/AP50", "mask AP": "segm/AP",
            "mask AP50": "segm/AP50"}  # fmt: skip
SCORE_THRESHOLD = 0.5
WIDTH = 400  # pixels of each image in the picture


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--seeds", type=int, default=1, help="repetitions with other seeds")
    parser.add_argument("--output", type=Path, default=Path("output/quickstart"))
    parser.add_argument("--source", default="auto", help="pictures: auto, debian or shapes")
    parser.add_argument("opts", nargs="*", help="KEY=VALUE for all trainings")
    return parser.parse_args()


def prepare(args: argparse.Namespace, data: Path) -> int:
    """Make the pictures unless they are there; returns the number of classes."""
    script = REPOSITORY / "tools" / "prepare_cutouts.py"
    options = ["--output", data, "--scale", args.scale, "--source", args.source]
    code = subprocess.call([sys.executable, *map(str, [script, *options])], env=environment())
    if code:
        sys.exit(code)
    return sum(1 for p in (data / "classification" / "train").iterdir() if p.is_dir())


def run_seed(args: argparse.Namespace, data: Path, seed: int) -> dict:
    """One pretraining and both detectors; results by name."""
    folder = args.output / args.scale / f"seed{seed}"
    common = [f"SEED={seed}", *args.opts]
    script, config = REPOSITORY / "tools" / "pretrain_imagenet.py", f"{args.scale}_risonet18"
    results = {
        "pretraining": run_training(
            f"pretraining, seed {seed}", script, CONFIGS / f"{config}.yaml", folder / "pretraining",
            ["--data-root", data / "classification"], common,
        )
    }  # fmt: skip
    for name, title in DETECTORS.items():
        weights = folder / "pretraining" / "backbone.pth" if name == "pretrained" else ""
        results[name] = run_training(
            f"Mask R-CNN, {title}, seed {seed}", REPOSITORY / "train_net.py",
            CONFIGS / f"{config}_dc5.yaml", folder / name, data_of_detection(data / "detection"),
            [f"MODEL.WEIGHTS={weights}", *common],
        )  # fmt: skip
    return results


def measure(metrics: dict, key: str) -> float:
    """A metric in percent; 0 if nothing was detected, for which COCO's evaluation gives nan."""
    value = metrics.get(key, 0.0)
    return value if value == value else 0.0


def mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def tables(results: dict[int, dict], num_classes: int) -> str:
    """The results as text: accuracy against chance, and the AP of both detectors."""
    top1 = [r["pretraining"]["classification/top1"] for r in results.values()]
    rows = [
        [title, *(mean_and_spread([measure(r[name], key) for r in results.values()])
                  for key in MEASURES.values())]
        for name, title in DETECTORS.items()
    ]  # fmt: skip
    return (
        f"Classification of {num_classes} classes on unseen cut-outs and backgrounds: top-1 "
        f"{mean_and_spread(top1)} % (chance {100 / num_classes:.1f} %)\n\n"
        + tabulate(rows, headers=["Mask R-CNN, backbone from", *MEASURES])
    )


def draw_predictions(
    json_file: Path, image_root: Path, runs: dict[str, Path], picture: Path, num_images: int = 6
) -> Path:
    """Write a picture with a row for each image: the truth, then the predictions of each run.

    Args:
        json_file, image_root: the validation set, COCO format.
        runs: title -> OUTPUT_DIR of a training, whose inference/ holds the predictions.
        picture: the file to write.
    """
    truth = COCO(str(json_file))
    files = [run / "inference" / "coco_instances_results.json" for run in runs.values()]
    predictions = [json.loads(file.read_text()) if file.is_file() else [] for file in files]
    rows = [_titles(["truth", *runs])]
    step = max(1, len(truth.imgs) // num_images)
    for image in truth.loadImgs(sorted(truth.getImgIds())[::step][:num_images]):
        pixels = read_upright(str(image_root / image["file_name"]))
        shown = [truth.imgToAnns[image["id"]]]
        for found in predictions:
            own = (p for p in found if p["image_id"] == image["id"])
            shown.append([p for p in own if p["score"] >= SCORE_THRESHOLD])
        rows.append(np.hstack([_draw(pixels, objects, truth) for objects in shown]))
    cv2.imwrite(str(picture), np.vstack(rows)[:, :, ::-1])
    return picture


def _titles(titles: list[str]) -> np.ndarray:
    row = np.full((40, WIDTH * len(titles), 3), 255, np.uint8)
    for i, title in enumerate(titles):
        cv2.putText(row, title, (WIDTH * i + 8, 27), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1,
                    cv2.LINE_AA)  # fmt: skip
    return row


def _draw(pixels: np.ndarray, objects: list[dict], truth: COCO) -> np.ndarray:
    categories, found = sorted(truth.cats), [o["category_id"] for o in objects]
    colours = [class_colour(categories.index(category)) for category in found]
    scores = [f" {o['score']:.0%}" if "score" in o else "" for o in objects]
    labels = [truth.cats[c]["name"] + score for c, score in zip(found, scores, strict=True)]
    return draw_objects(pixels, objects, labels, colours, WIDTH)


def main() -> None:
    args = parse_args()
    start = time.time()
    if args.scale == "small":
        print("Quick start: about 9 minutes a seed on 2 CPU cores", flush=True)
    folder = args.output / args.scale
    data = folder / "data"
    num_classes = prepare(args, data)
    results = {seed: run_seed(args, data, seed) for seed in range(1, args.seeds + 1)}
    report = tables(results, num_classes)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    (folder / "results.txt").write_text(report + "\n")
    json_file, images = data / "detection" / "instances_val.json", data / "detection" / "val"
    runs = {title: folder / "seed1" / name for name, title in DETECTORS.items()}
    picture = draw_predictions(json_file, images, runs, folder / "predictions.png")
    print(f"\n{report}\n")
    print(f"Predictions beside the truth: {picture}")
    print(f"Results: {folder / 'results.json'}; weights, logs and metrics: {folder}/seed*/")
    print(f"Pictures trained on, and their licences: {data}/README.txt")
    print(f"Time: {(time.time() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    sys.exit(main())
