"""The mapper and the loaders of ImageNet and of any other set of classified images."""

from collections.abc import Callable, Iterable

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import InferenceSampler
from torch.utils.data import DataLoader
from torchvision import transforms

from d2_isonet.config.options import check_name, check_range
from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.data.shards.loader import build_shard_test_loader, build_shard_train_loader
from d2_isonet.distributed.lifetime import outlive_signals
from d2_isonet.utils.messages import UserError

from .crops import RandomResizedCrop
from .datasets import Images
from .image_file import MOST_PIXELS, read_image, unreadable
from .image_sizes import SIZE_REMEDY, resized_problem
from .loader import LoaderOptions, build_resumable_loader
from .sampling import shuffled_pass


class ImageNetMapper:
    """Adds "image" to a data set dict: uint8 (3, crop_size, crop_size), range 0-255.

    Training: random resized crop and horizontal flip or, with `padding`, the CIFAR recipe (He et
    al. 2016, section 4.2): shorter side to `resize`, zero pixels around it, random crop, flip.
    Evaluation: shorter side to `resize`, centre crop. All are torchvision's on PIL images
    (bilinear, antialiased), as in the authors' code, except that random resized crops without
    `exact_crops` have slightly different pixels. They draw from torch's generator, which the
    training loader seeds for every image.

    EXIF orientation is NOT applied, unlike in detectron2's mappers: ImageNet accuracies, the
    authors' included, are measured on the pixels as stored. (Pillow applies that of a TIFF.)

    Args:
        image_format: "RGB" or "BGR", channel order of the result (INPUT.FORMAT).
        crop_size, resize: pixels.
        scale: share of the image's area that a training crop covers; not with `padding`.
        padding: zero pixels on each side in training; 0 for random resized crops.
        exact_crops: random resized crops have torchvision's pixels to the last bit. Otherwise the
            same crops are made faster and differ a little, see `RandomResizedCrop`.
        most_pixels: INPUT.MAX_IMAGE_PIXELS, of a file and of the resized image.

    Raises:
        UserError: a number is out of its range, or the crop does not fit into the resized image.
    """

    def __init__(
        self,
        is_train: bool,
        image_format: str = "RGB",
        crop_size: int = 224,
        resize: int = 256,
        scale: tuple[float, float] = (0.08, 1.0),
        padding: int = 0,
        exact_crops: bool = False,
        most_pixels: int = MOST_PIXELS,
    ):
        check_name("INPUT.FORMAT", image_format, ("RGB", "BGR"))
        check_range("INPUT.CLASSIFICATION.CROP_SIZE", crop_size, 1)
        check_range("INPUT.CLASSIFICATION.RESIZE", resize, 1)
        check_range("INPUT.CLASSIFICATION.PADDING", padding)
        if not 0 <= scale[0] <= scale[1]:
            what = f"INPUT.CLASSIFICATION.MIN_AREA is {scale[0]}"
            raise UserError(what, f"it must be a share from 0 to {scale[1]:g}")
        self.image_format = image_format
        self.resize, self.most_pixels = resize, most_pixels
        self.random_crop = None
        # torchvision's v2 gives the same pixels, but takes 50 % longer on small images.
        if not is_train:
            _check_crop_fits(crop_size, resize)
            steps = [transforms.Resize(resize), transforms.CenterCrop(crop_size)]
        elif padding:
            _check_crop_fits(crop_size, resize, padding)
            steps = [transforms.Resize(resize), transforms.RandomCrop(crop_size, padding)]
            steps.append(transforms.RandomHorizontalFlip())
        else:
            self.random_crop = RandomResizedCrop(
                crop_size, scale, exact=exact_crops, most_pixels=most_pixels
            )
            return
        self.transform = transforms.Compose([*steps, transforms.PILToTensor()])

    def __call__(self, dataset_dict: dict) -> dict:
        """A copy of the dict with its "image"; raises what `read_image` raises.

        If the dict has "data", it is the content of the file, and the copy does not contain it.
        """
        mapped = dict(dataset_dict)
        file = mapped["file_name"], mapped.pop("data", None)
        image = self.random_crop(*file) if self.random_crop else self._resized(*file)
        mapped["image"] = image.flip(0) if self.image_format == "BGR" else image
        return mapped

    def _resized(self, path: str, data: bytes | None) -> torch.Tensor:
        image = read_image(path, data, self.most_pixels)
        if reason := resized_problem(*image.size, self.resize, self.most_pixels):
            raise unreadable(path, reason, SIZE_REMEDY)
        return self.transform(image)


def _check_crop_fits(crop_size: int, resize: int, padding: int = 0) -> None:
    if crop_size > resize + 2 * padding:
        padded = f" with {padding} pixels around it" if padding else ""
        raise UserError(
            f"The crop of {crop_size} pixels does not fit into a shorter side of {resize}{padded}",
            "INPUT.CLASSIFICATION.CROP_SIZE must not exceed INPUT.CLASSIFICATION.RESIZE"
            + (" + 2 * INPUT.CLASSIFICATION.PADDING" if padding else ""),
        )


def stack_images(batch: list[dict]) -> list[dict]:
    """The batch with its images in one tensor (N, 3, H, W), of which every "image" is a view.

    A worker sends each tensor through a file descriptor of its own: a batch of 256 single images
    times the batches in flight would exceed the usual limit of 1024 open files.
    """
    images = torch.stack([x["image"] for x in batch])
    return [{**x, "image": image} for x, image in zip(batch, images, strict=True)]


def build_image_train_loader(
    images: Images, mapper: Callable[[dict], dict], options: LoaderOptions
) -> Iterable[list[dict]]:
    """An endless loader of shuffled batches, each a list of mapped dicts."""
    if isinstance(images, ShardedImages):
        return build_shard_train_loader(images, mapper, stack_images, options)
    one_pass = shuffled_pass(len(images))
    return build_resumable_loader(images, mapper, one_pass, options, stack_images)


def build_image_test_loader(
    images: Images, mapper: Callable[[dict], dict], batch_size: int = 64, num_workers: int = 0
) -> DataLoader:
    """A loader that yields every image exactly once over all processes, in order.

    detectron2 v0.6's own test loader has batches of one image only.

    Args:
        batch_size: images per batch and process; the last batch may be smaller.
    """
    if isinstance(images, ShardedImages):
        return build_shard_test_loader(images, mapper, stack_images, batch_size, num_workers)
    return DataLoader(
        MapDataset(DatasetFromList(images, copy=False), mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(images)),
        num_workers=num_workers,
        collate_fn=stack_images,
        worker_init_fn=outlive_signals,
    )


def classification_mapper(cfg: CfgNode, is_train: bool) -> ImageNetMapper:
    """The mapper that `cfg` describes."""
    options = cfg.INPUT.CLASSIFICATION
    return ImageNetMapper(
        is_train,
        image_format=cfg.INPUT.FORMAT,
        crop_size=options.CROP_SIZE,
        resize=options.RESIZE,
        scale=(options.MIN_AREA, 1.0),
        padding=options.PADDING,
        exact_crops=options.EXACT_CROPS,
        most_pixels=cfg.INPUT.MAX_IMAGE_PIXELS,
    )
