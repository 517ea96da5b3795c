"""ImageNet, or any folder tree of its shape: the mapper and the loaders; what they need by name."""

from collections.abc import Iterable

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader
from torchvision import transforms

from d2_isonet.config.options import check_range
from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.data.shards.loader import build_shard_test_loader, build_shard_train_loader
from d2_isonet.utils.messages import UserError

from .crops import RandomResizedCrop
from .datasets import load_registered
from .image_folder import read_image
from .loader import ResumableLoader, SeededImages, images_per_process
from .sampling import BatchOrder, shuffled_pass
from .unreadable_images import Mapper, build_tolerant_loader


class ImageNetMapper:
    """A data set dict with its image: "image", uint8 (3, crop_size, crop_size), range 0-255.

    Training: random resized crop and horizontal flip or, with `padding`, the CIFAR recipe (He et
    al. 2016, section 4.2): shorter side to `resize`, zero pixels around it, random crop, flip.
    Evaluation: shorter side to `resize`, centre crop. All are torchvision's on PIL images
    (bilinear, antialiased), as in the authors' code, but for the pixels of random resized crops
    without `exact_crops`. They draw from torch's generator, which the training loader seeds for
    every image.

    EXIF orientation is NOT applied, unlike in detectron2's mappers: ImageNet accuracies, the
    authors' included, are measured on the pixels as stored.

    Args:
        image_format: "RGB" or "BGR", channel order of the result (INPUT.FORMAT).
        crop_size, resize: pixels.
        scale: share of the image's area that a training crop covers; not with `padding`.
        ratio: width / height of a training crop; not with `padding`.
        padding: zero pixels on each side in training; 0 for random resized crops.
        exact_crops: random resized crops have torchvision's pixels to the last bit; otherwise the
            same crops are made faster and differ a little, see `RandomResizedCrop`.

    Raises:
        UserError: a number out of its range, or a crop larger than what it is taken from.
    """

    def __init__(
        self,
        is_train: bool,
        image_format: str = "RGB",
        crop_size: int = 224,
        resize: int = 256,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        padding: int = 0,
        exact_crops: bool = False,
    ):
        if image_format not in ("RGB", "BGR"):
            raise UserError(f"INPUT.FORMAT is {image_format!r}", "it must be 'RGB' or 'BGR'")
        check_range("INPUT.CLASSIFICATION.CROP_SIZE", crop_size, 1)
        check_range("INPUT.CLASSIFICATION.RESIZE", resize, 1)
        check_range("INPUT.CLASSIFICATION.PADDING", padding)
        if not 0 <= scale[0] <= scale[1]:
            raise UserError(
                f"INPUT.CLASSIFICATION.MIN_AREA is {scale[0]}",
                f"it must be a share from 0 to {scale[1]:g}",
            )
        self.image_format = image_format
        self.random_crop = None
        # torchvision's v2 gives the same pixels and takes half as long again on small images.
        if not is_train:
            _check_crop_fits(crop_size, resize)
            steps = [transforms.Resize(resize), transforms.CenterCrop(crop_size)]
        elif padding:
            _check_crop_fits(crop_size, resize, padding)
            steps = [transforms.Resize(resize), transforms.RandomCrop(crop_size, padding)]
            steps.append(transforms.RandomHorizontalFlip())
        else:
            self.random_crop = RandomResizedCrop(crop_size, scale, ratio, exact_crops)
            return
        self.transform = transforms.Compose([*steps, transforms.PILToTensor()])

    def __call__(self, dataset_dict: dict) -> dict:
        """A copy of the dict with its "image"; raises what `read_image` raises.

        The file's content is the dict's "data", which the copy lacks, where there is one.
        """
        mapped = dict(dataset_dict)
        file = mapped["file_name"], mapped.pop("data", None)
        image = self.random_crop(*file) if self.random_crop else self.transform(read_image(*file))
        mapped["image"] = image.flip(0) if self.image_format == "BGR" else image
        return mapped


def _check_crop_fits(crop_size: int, resize: int, padding: int = 0) -> None:
    if crop_size > resize + 2 * padding:
        padded = f" with {padding} pixels around it" if padding else ""
        raise UserError(
            f"The crop of {crop_size} pixels does not fit into a shorter side of {resize}{padded}; "
            "INPUT.CLASSIFICATION.CROP_SIZE must not exceed INPUT.CLASSIFICATION.RESIZE"
            + (" + 2 * INPUT.CLASSIFICATION.PADDING" if padding else "")
        )


def stack_images(batch: list[dict]) -> list[dict]:
    """The batch, its images moved into one tensor (N, 3, H, W) that every "image" is a part of.

    A worker hands over each tensor through a file descriptor of its own: a batch of 256 single
    images times the batches in flight would exceed the usual limit of 1024 open files.
    """
    images = torch.stack([x["image"] for x in batch])
    return [{**x, "image": image} for x, image in zip(batch, images, strict=True)]


def _dicts(dataset: list[dict] | ShardedImages | str | Iterable[str]) -> list[dict] | ShardedImages:
    """The data set's dicts (or its shards), of themselves or of registered names."""
    if isinstance(dataset, ShardedImages):
        return dataset
    entries = [dataset] if isinstance(dataset, str) else list(dataset)
    dicts = [entry for entry in entries if isinstance(entry, dict)]
    return dicts or load_registered([str(name) for name in entries])[0]


def build_image_train_loader(
    dataset: list[dict] | ShardedImages | str | Iterable[str],
    mapper: ImageNetMapper,
    total_batch_size: int,
    num_workers: int = 0,
    seed: int | None = None,
    max_unreadable: float = 0.0,
    shard_streams: int = 0,
) -> Iterable[list[dict]]:
    """An endless loader of shuffled batches, each a list of mapped dicts.

    Args:
        dataset: dicts, or the names of registered data sets.
        total_batch_size: images per batch over all processes, whose number must divide it.
        num_workers: loading processes per training process; the batches do not depend on it.
        seed: of the order of the images and of their augmentation, the same on every rank; None
            draws a common one.
        max_unreadable: share of the images that may be unreadable, see `build_tolerant_loader`;
            in shards none may be.
        shard_streams: DATALOADER.SHARD_STREAMS.
    """
    seed = comm.shared_random_seed() if seed is None else seed
    images = _dicts(dataset)
    if isinstance(images, ShardedImages):
        return build_shard_train_loader(
            images, mapper, stack_images, total_batch_size, num_workers, seed, shard_streams
        )
    # Serialized: workers share one array instead of copying a million dicts page by page.
    dicts = DatasetFromList(images, copy=False)
    order = BatchOrder(shuffled_pass(len(dicts)), images_per_process(total_batch_size), seed)

    def build(mapper: Mapper) -> ResumableLoader:
        return ResumableLoader(SeededImages(dicts, mapper), order, num_workers, stack_images)

    return build_tolerant_loader(build, mapper, dicts, max_unreadable)


def build_image_test_loader(
    dataset: list[dict] | ShardedImages | str | Iterable[str],
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
    if isinstance(dicts, ShardedImages):
        return build_shard_test_loader(dicts, mapper, stack_images, batch_size, num_workers)
    return DataLoader(
        MapDataset(DatasetFromList(dicts, copy=False), mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dicts)),
        num_workers=num_workers,
        collate_fn=stack_images,
    )


def classification_mapper(cfg: CfgNode, is_train: bool) -> ImageNetMapper:
    options = cfg.INPUT.CLASSIFICATION
    return ImageNetMapper(
        is_train,
        image_format=cfg.INPUT.FORMAT,
        crop_size=options.CROP_SIZE,
        resize=options.RESIZE,
        scale=(options.MIN_AREA, 1.0),
        padding=options.PADDING,
        exact_crops=options.EXACT_CROPS,
    )
