"""Replaces unreadable training images, logs each, and fails above a limit."""

import copy
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import check_image_size, transform_proposals
from detectron2.data.transforms import AugInput
from detectron2.utils.events import get_event_storage

from .coco_json import whole_sizes
from .image_file import UnreadableImage, read_upright, unreadable
from .image_sizes import SIZE_REMEDY, detection_size_problem
from .masks import refuse_masks

logger = logging.getLogger(__name__)
_KEY = "unreadable_images"  # in a sample: {file name: message} of the images that it replaces
# From a dict of the data set to a sample, or to None for an image to skip.
Mapper = Callable[[dict], dict | None]
_TRIES = 10  # After as many unreadable images in a row, the disk is the likely cause.


class NamingDatasetMapper(DatasetMapper):
    """detectron2's DatasetMapper with this project's reader of images, whose errors name the image.

    Raises (when called):
        UnreadableImage: it is damaged, has more than 8 bits a channel (detectron2 would clip), or a
            size of which a crop or a resize would leave nothing.
        FileNotFoundError: the image does not exist.
    """

    def __init__(self, cfg: CfgNode, is_train: bool):
        super().__init__(cfg, is_train)
        self.most_pixels = cfg.INPUT.MAX_IMAGE_PIXELS
        self.size_problem = detection_size_problem(cfg, is_train)

    def __call__(self, dataset_dict: dict) -> dict:
        dataset_dict = copy.deepcopy(dataset_dict)
        dataset_dict.update(whole_sizes(dataset_dict))  # of which detectron2 makes masks
        if self.use_instance_mask:  # sets of Python's may be checked by nobody else
            refuse_masks(dataset_dict)
        inputs = self._read(dataset_dict)
        transforms = self.augmentations(inputs)
        size = inputs.image.shape[:2]
        pixels = np.ascontiguousarray(inputs.image.transpose(2, 0, 1))
        dataset_dict["image"] = torch.as_tensor(pixels)
        if inputs.sem_seg is not None:
            dataset_dict["sem_seg"] = torch.as_tensor(inputs.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            transform_proposals(dataset_dict, size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            dataset_dict.pop("annotations", None)
        elif "annotations" in dataset_dict:
            self._transform_annotations(dataset_dict, transforms, size)
        return dataset_dict

    def _read(self, dataset_dict: dict) -> AugInput:
        """The pixels, and the semantic labels of a set that has them."""
        path, labels = dataset_dict["file_name"], dataset_dict.pop("sem_seg_file_name", None)
        image = read_upright(path, self.image_format, self.most_pixels)
        check_image_size(dataset_dict, image)
        height, width = image.shape[:2]
        if reason := self.size_problem(width, height):
            raise unreadable(path, reason, SIZE_REMEDY)
        return AugInput(image, sem_seg=labels and read_upright(labels, "L").squeeze(2))


class ReplacingMapper:
    """A mapper that replaces an unreadable image by another one of the data set.

    The file's name decides which one, so that a repeated training is the same. The sample carries
    the messages of the images that it replaces, by file name, for `CountingLoader`.

    Args:
        mapper: raises UnreadableImage or FileNotFoundError for an unreadable image.
        dicts: the data set.
    """

    def __init__(self, mapper: Mapper, dicts: Sequence[dict]):
        self.mapper = mapper
        self.dicts = dicts

    def __call__(self, dataset_dict: dict) -> dict | None:
        messages: dict[str, str] = {}
        for attempt in range(1, _TRIES + 1):
            path = dataset_dict["file_name"]
            try:
                sample = self.mapper(dataset_dict)
                return {**sample, _KEY: messages} if sample and messages else sample
            except (UnreadableImage, FileNotFoundError) as error:
                messages[path], cause = str(error), error
                number = zlib.crc32(f"{path} {attempt}".encode())
                dataset_dict = self.dicts[number % len(self.dicts)]
        raise UnreadableImage(
            f"{_TRIES} images in a row cannot be read, the last one: {cause}"
        ) from cause


class CountingLoader:
    """A loader that counts and logs the replaced images; in all other respects it is `loader`.

    It puts the number of these files as scalar "unreadable_images" into the event storage.

    Args:
        loader: yields batches, which are lists of samples.
        number: of images in the data set.
        max_share: the share of them that may be unreadable.

    Raises (when iterated):
        UnreadableImage: more than `max_share` of the images are unreadable.
    """

    def __init__(self, loader: Iterable[list[dict]], number: int, max_share: float):
        self.loader = loader
        self.number = number
        self.max_share = max_share
        self.files: set[str] = set()

    def __getattr__(self, name: str):
        if name == "loader":  # while this object is unpickled, the attribute does not exist yet
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in self.loader:
            for sample in batch:
                self._count(sample.pop(_KEY, {}))
            get_event_storage().put_scalar(_KEY, len(self.files), smoothing_hint=False)
            yield batch

    def _count(self, messages: dict[str, str]) -> None:
        for path in messages.keys() - self.files:
            self.files.add(path)
            logger.warning(f"{messages[path]}. Another one is taken ({len(self.files)} so far)")
        if len(self.files) > self.max_share * self.number:
            raise UnreadableImage(
                f"{len(self.files)} of {self.number} training images cannot be read, more than "
                f"DATALOADER.MAX_UNREADABLE {self.max_share:g} allows; the last one: "
                f"{next(reversed(messages.values()))}"
            )
