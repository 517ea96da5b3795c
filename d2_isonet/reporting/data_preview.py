"""A page of training images: as the network gets them, or as they are annotated."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from PIL import Image
from pycocotools import mask as coco_mask

from d2_isonet.data.datasets import load_registered
from d2_isonet.data.image_file import read_image, read_upright
from d2_isonet.data.pixels import pixels_of
from d2_isonet.engine.drawing import class_colour, draw_objects
from d2_isonet.engine.pretraining import ClassificationTrainer
from d2_isonet.engine.trainer import Trainer
from d2_isonet.reporting.page.page import Page, Picture
from d2_isonet.utils.messages import UserError

WIDTH = 640  # pixels of a drawn image
_SOURCES = {
    "mapper": "As the network gets them in training, after augmentation; the normalization is "
    "undone for display.",
    "annotation": "As annotated: upright images before any augmentation.",
}


@dataclass
class Sample:
    """One image to show."""

    pixels: np.ndarray  # (H, W, 3) uint8, RGB
    file_name: str
    names: list[str]  # the classes of the objects or, without objects, of the image
    # COCO's form: bbox (x, y, width, height) in these pixels, maybe segmentation
    objects: list[dict] = field(default_factory=list)
    # (3, H, W) float, normalized, in the network's order of channels; None if annotated
    fed: torch.Tensor | None = None


def seen_by_network(fed: torch.Tensor, cfg: CfgNode) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a normalized image (3, H, W)."""
    mean, std = (fed.new_tensor(x) for x in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    pixels = (fed.permute(1, 2, 0) * std + mean).round().clamp(0, 255).numpy()
    return convert_image_to_rgb(pixels, cfg.INPUT.FORMAT).astype(np.uint8)


def from_mapper(cfg: CfgNode, number: int) -> Iterator[Sample]:
    """The first samples of a training, from its loader: augmented and, with SEED, in its order."""
    is_classifier = cfg.MODEL.META_ARCHITECTURE == "ImageClassifier"
    trainer = ClassificationTrainer if is_classifier else Trainer
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    classes = metadata.get("classes" if is_classifier else "thing_classes")
    with EventStorage():  # the loader counts unreadable images in it
        batches = trainer.build_train_loader(cfg)
        for mapped in itertools.islice(itertools.chain.from_iterable(batches), number):
            fed = pixels_of(cfg).normalize(mapped["image"])
            pixels, file = seen_by_network(fed, cfg), mapped["file_name"]
            if is_classifier:
                yield Sample(pixels, file, [classes[mapped["label"]]], fed=fed)
            else:
                instances = mapped.get("instances", Instances(pixels.shape[:2]))
                yield Sample(pixels, file, *_objects_of(instances, classes), fed=fed)


def _objects_of(instances: Instances, classes: Sequence[str]) -> tuple[list[str], list[dict]]:
    """Names and objects of the mapped annotations."""
    if not len(instances):
        return [], []
    boxes = BoxMode.convert(instances.gt_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    objects = [{"bbox": box} for box in boxes.tolist()]
    if instances.has("gt_masks"):
        for item, mask in zip(objects, _masks(instances.gt_masks), strict=True):
            item["segmentation"] = mask
    return [classes[i] for i in instances.gt_classes.tolist()], objects


def _masks(masks: PolygonMasks | BitMasks) -> list:
    if isinstance(masks, PolygonMasks):
        return [[polygon.tolist() for polygon in polygons] for polygons in masks.polygons]
    return [coco_mask.encode(np.asfortranarray(x.numpy().astype(np.uint8))) for x in masks.tensor]


def from_annotations(cfg: CfgNode, number: int) -> Iterator[Sample]:
    """Stored images, upright, with their annotations; evenly spread over the data set."""
    most_pixels = cfg.INPUT.MAX_IMAGE_PIXELS
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        dicts, classes = load_registered(cfg.DATASETS.TRAIN)
        if not isinstance(dicts, list):
            raise UserError("images in shards have no files to show", "omit --source annotation")
        for item in _spread(dicts, number):
            pixels = np.asarray(read_image(item["file_name"], most_pixels=most_pixels))
            yield Sample(pixels, item["file_name"], [classes[item["label"]]])
        return
    for name in cfg.DATASETS.TRAIN:
        classes = MetadataCatalog.get(name).thing_classes
        for item in _spread(DatasetCatalog.get(name), number):
            names, objects = [], []
            for x in item.get("annotations", []):
                names.append(classes[x["category_id"]] + (" (crowd)" if x.get("iscrowd") else ""))
                box = list(BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYWH_ABS))
                objects.append({"bbox": box, "segmentation": x.get("segmentation")})
            pixels = read_upright(item["file_name"], "RGB", most_pixels)
            yield Sample(pixels, item["file_name"], names, objects)


def _spread(dicts: Sequence[dict], number: int) -> list[dict]:
    places = np.linspace(0, len(dicts) - 1, min(number, len(dicts))).round().astype(int)
    return [dicts[place] for place in places]


def write_preview(samples: Iterable[Sample], cfg: CfgNode, source: str, folder: Path) -> Path:
    """Write index.html and a jpg for each sample into the folder; returns the page's path.

    Args:
        source: "mapper" or "annotation".
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = list(samples)
    numbers = Counter(itertools.chain.from_iterable(sample.names for sample in samples))
    pictures = []
    for place, sample in enumerate(samples):
        image = drawn(sample, sorted(numbers))
        Image.fromarray(image).save(folder / f"{place:04d}.jpg", quality=92)
        pictures.append(Picture(image, _caption(sample)))
    page = Page(f"Data of {', '.join(cfg.DATASETS.TRAIN)}", _SOURCES[source])
    _add_pixels(page, samples, cfg)
    page.section("Classes", f"In the {len(samples)} images below.")
    page.table(numbers.most_common(), ["class", "number"])
    page.section("Images").images(pictures, max_side=WIDTH)
    return page.write(folder / "index.html")


def drawn(sample: Sample, classes: list[str]) -> np.ndarray:
    """The sample's pixels with its objects, a colour per class."""
    if not sample.objects:
        return sample.pixels
    colours = [class_colour(classes.index(name)) for name in sample.names]
    return draw_objects(sample.pixels, sample.objects, sample.names, colours, WIDTH)


def _caption(sample: Sample) -> str:
    height, width = sample.pixels.shape[:2]
    what = f"{len(sample.objects)} objects" if sample.objects else ", ".join(sample.names)
    return f"{Path(sample.file_name).name}, {width} x {height}\n{what or 'no object'}"


def _add_pixels(page: Page, samples: list[Sample], cfg: CfgNode) -> None:
    """How the network gets the pixels; the numbers show a wrong order of channels or mean."""
    fed = [sample.fed for sample in samples if sample.fed is not None]
    if not fed:
        return
    page.section("Input of the network")
    height, width = (_range([sample.pixels.shape[axis] for sample in samples]) for axis in (0, 1))
    page.facts({
        "INPUT.FORMAT": cfg.INPUT.FORMAT, "MODEL.PIXEL_MEAN": cfg.MODEL.PIXEL_MEAN,
        "MODEL.PIXEL_STD": cfg.MODEL.PIXEL_STD, "sizes": f"{width} wide, {height} high",
    })  # fmt: skip
    pixels = torch.cat([image.flatten(1) for image in fed], dim=1)
    rows = [
        {"channel": name, "mean": float(x.mean()), "standard deviation": float(x.std())}
        for name, x in zip(cfg.INPUT.FORMAT, pixels, strict=True)
    ]
    caption = "After normalization, over these images: about 0 and 1 if mean and std fit the data."
    page.table(rows, caption=caption, formats={"mean": ".3f", "standard deviation": ".3f"})
    changes = cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA > 0 or bool(cfg.SOLVER.ADVERSARIAL.ATTACK)
    if changes and cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        page.note("Mixup and adversarial training change the images later, inside the network.")


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
