"""Detectors for the demo's tests: one that finds bright rectangles, and a real but tiny one."""

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from d2_isonet.data.categories import Categories

CATEGORIES = Categories(["red", "green", "blue"], [3, 7, 9], "test")
SMALL = "configs/quickstart/small_risonet18_dc5.yaml"
OPTS = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", "3", "DATASETS.TRAIN", "()"]
OPTS += ["DATASETS.TEST", "()"]


class BrightDetector:
    """Finds each rectangle whose red, green or blue is above 200, with score 0.9 - 0.1 * class."""

    categories = CATEGORIES

    def instances(self, images) -> list[Instances]:
        return [find_bright(image) for image in images]


def find_bright(bgr: np.ndarray) -> Instances:
    masks, classes = [], []
    for index in range(3):
        channel = bgr[:, :, 2 - index] > 200
        number, labels = cv2.connectedComponents(channel.astype(np.uint8))
        masks += [labels == i for i in range(1, number)]
        classes += [index] * (number - 1)
    found = Instances(bgr.shape[:2])
    rectangles = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
    found.pred_boxes = Boxes(
        torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rectangles]).reshape(-1, 4).float()
    )
    found.scores = torch.tensor([0.9 - 0.1 * i for i in classes])
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    found.pred_masks = torch.tensor(np.array(masks).reshape(-1, *bgr.shape[:2]))
    return found


def picture(red=(10, 20, 30, 15), blue=None, size=(60, 80)) -> np.ndarray:
    """A dark picture (H, W, 3), BGR, with rectangles (x, y, w, h)."""
    pixels = np.full((*size, 3), 30, dtype=np.uint8)
    for rectangle, channel in ((red, 2), (blue, 0)):
        if rectangle:
            x, y, w, h = rectangle
            pixels[y : y + h, x : x + w, channel] = 250
    return pixels


def write_tiny_weights(path: Path) -> Path:
    """Random weights of the quick start's small detector with three classes."""
    from detectron2.modeling import build_model

    from d2_isonet.config.loading import load_config

    cfg = load_config(SMALL, OPTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build_model(cfg).state_dict()
    record = {"categories": {"names": CATEGORIES.names, "ids": CATEGORIES.ids}}
    torch.save({"model": state, "meta": record}, path)
    return path


def write_video(path: Path, frames: list[np.ndarray], rate: float = 12.5) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path
