"""ImageNet, or any folder of that shape: data sets by name, mapper, loaders, top-1 and top-5."""

import difflib
import os
from collections.abc import Iterable

import torch
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    build_detection_train_loader,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from torch.utils.data import DataLoader, Sampler
from torchvision.transforms import v2

from .classification_evaluation import ImageNetEvaluator
from .image_folder import load_image_folder, read_image

__all__ = [
    "ImageNetEvaluator",
    "ImageNetMapper",
    "build_image_test_loader",
    "build_image_train_loader",
    "load_registered",
    "register_data_root",
    "register_image_folder",
]


def _builtin_root() -> str:
    return os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), "imagenet")


def register_image_folder(name: str, root: str | None = None, split: str = "train") -> None:
    """Register ROOT/SPLIT/<class>/* as detectron2 data set `name`; the disk is read when it loads.

    Loading sets MetadataCatalog.get(name).classes. The same registration again does nothing.

    Args:
        root: None means $DETECTRON2_DATASETS/imagenet, looked up when the data set loads.

    Raises:
        ValueError: `name` is registered for something else.
    """
    place = (root and os.path.abspath(os.path.expanduser(root)), split)
    if name in DatasetCatalog.list():
        registered = MetadataCatalog.get(name).get("image_folder")
        if registered != place:
            raise ValueError(
                f"Data set {name!r} is already registered for {registered or 'other data'}, not "
                f"for {place}; choose another name"
            )
        return

    def load() -> list[dict]:
        dicts, classes = load_image_folder(place[0] or _builtin_root(), split)
        # Not setattr, which refuses a new value: the tree may have changed since the last load.
        vars(MetadataCatalog.get(name))["classes"] = classes
        return dicts

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(image_folder=place, evaluator_type="classification")


def register_data_root(root: str) -> tuple[str, str]:
    """Register ROOT/train and ROOT/val (`--data-root ROOT`); their names are the folders' paths."""
    root = os.path.abspath(os.path.expanduser(root))
    names = os.path.join(root, "train"), os.path.join(root, "val")
    for name, split in zip(names, ("train", "val"), strict=True):
        register_image_folder(name, root, split)
    return names


def load_registered(names: str | Iterable[str]) -> tuple[list[dict], list[str]]:
    """The dicts of one or several registered data sets, joined, and their common class names.

    Raises:
        ValueError: a name is not registered, holds no classified images, or the classes differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    dicts, classes = [], None
    for name in names:
        if name not in DatasetCatalog.list():
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3) or ["none"]
            raise ValueError(
                f"Data set {name!r} is not registered; nearest names: {', '.join(near)}. Use "
                "imagenet_train and imagenet_val, or give --data-root"
            )
        loaded = DatasetCatalog.get(name)
        own = MetadataCatalog.get(name).get("classes")
        if own is None:
            raise ValueError(
                f"Data set {name!r} has no metadata `classes`: it is no classification data set; "
                "register it with register_image_folder"
            )
        if classes is not None and own != classes:
            raise ValueError(f"Data sets {', '.join(names)} have different classes; use one only")
        dicts, classes = dicts + loaded, own
    if not dicts:
        raise ValueError(
            "No data set is named; use imagenet_train and imagenet_val, or --data-root"
        )
    return dicts, classes


class ImageNetMapper:
    """A data set dict with its image: "image", uint8 (3, crop_size, crop_size), range 0-255.

    Training: random resized crop and horizontal flip. Evaluation: shorter side to `resize`, centre
    crop. Both are torchvision's on PIL images (bilinear, antialiased), as in the authors' code, and
    draw from torch's generator, which detectron2 seeds in every worker.

    EXIF orientation is NOT applied, unlike in detectron2's mappers: ImageNet accuracies, the
    authors' included, are measured on the pixels as stored.

    Args:
        image_format: "RGB" or "BGR", channel order of the result (INPUT.FORMAT).
        crop_size, resize: pixels.
        scale: share of the image's area that a training crop covers.
        ratio: width / height of a training crop.
    """

    def __init__(
        self,
        is_train: bool,
        image_format: str = "RGB",
        crop_size: int = 224,
        resize: int = 256,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ):
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT is {image_format!r}; it must be 'RGB' or 'BGR'")
        if not is_train and crop_size > resize:
            raise ValueError(
                f"The crop of {crop_size} pixels does not fit into a shorter side of {resize}; "
                "INPUT.CLASSIFICATION.CROP_SIZE must not exceed INPUT.CLASSIFICATION.RESIZE"
            )
        self.image_format = image_format
        steps = (
            [v2.RandomResizedCrop(crop_size, scale, ratio), v2.RandomHorizontalFlip()]
            if is_train
            else [v2.Resize(resize), v2.CenterCrop(crop_size)]
        )
        self.transform = v2.Compose([*steps, v2.PILToTensor()])

    def __call__(self, dataset_dict: dict) -> dict:
        """A copy of the dict with its "image"; raises what `read_image` raises."""
        image = self.transform(read_image(dataset_dict["file_name"]))
        if self.image_format == "BGR":
            image = image.flip(0)
        return {**dataset_dict, "image": image}


def stack_images(batch: list[dict]) -> list[dict]:
    """The batch, its images moved into one tensor (N, 3, H, W) that every "image" is a part of.

    A worker hands over each tensor through a file descriptor of its own: a batch of 256 single
    images times the batches in flight would exceed the usual limit of 1024 open files.
    """
    images = torch.stack([x["image"] for x in batch])
    return [{**x, "image": image} for x, image in zip(batch, images, strict=True)]


def _dicts(dataset: list[dict] | str | Iterable[str]) -> list[dict]:
    """The data set's dicts, of dicts or of registered names."""
    dataset = [dataset] if isinstance(dataset, str) else list(dataset)
    return dataset if dataset and isinstance(dataset[0], dict) else load_registered(dataset)[0]


def build_image_train_loader(
    dataset: list[dict] | str | Iterable[str],
    mapper: ImageNetMapper,
    total_batch_size: int,
    num_workers: int = 0,
    seed: int | None = None,
    sampler: Sampler | None = None,
) -> DataLoader:
    """An endless loader of shuffled batches, each a list of mapped dicts.

    Args:
        dataset: dicts, or the names of registered data sets.
        total_batch_size: images per batch over all processes, whose number must divide it.
        num_workers: loading processes per training process.
        seed: of the order of the images, the same on every rank; None draws a common one.
            Augmentation follows torch's global seed.
        sampler: replaces the TrainingSampler that `seed` makes.
    """
    dicts = _dicts(dataset)
    return build_detection_train_loader(
        # Serialized: workers share one array instead of copying a million dicts page by page.
        DatasetFromList(dicts, copy=False),
        mapper=mapper,
        sampler=TrainingSampler(len(dicts), seed=seed) if sampler is None else sampler,
        total_batch_size=total_batch_size,
        aspect_ratio_grouping=False,  # every crop has one size
        num_workers=num_workers,
        collate_fn=stack_images,
    )


def build_image_test_loader(
    dataset: list[dict] | str | Iterable[str],
    mapper: ImageNetMapper,
    batch_size: int = 64,
    num_workers: int = 0,
) -> DataLoader:
    """A loader that yields every image exactly once over all processes, in order.

    detectron2 v0.6's own test loader has batches of one image only.

    Args:
        dataset: dicts, or the names of registered data sets.
        batch_size: images per batch and process; the last batch may be smaller.
    """
    dicts = _dicts(dataset)
    return DataLoader(
        MapDataset(DatasetFromList(dicts, copy=False), mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dicts)),
        num_workers=num_workers,
        collate_fn=stack_images,
    )


for _name, _split in (("imagenet_train", "train"), ("imagenet_val", "val")):
    if _name not in DatasetCatalog.list():  # another project's data set of that name stays
        register_image_folder(_name, split=_split)
