"""Unreadable images met in training: others are taken for them, each is named, and not too many."""

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from detectron2.data import DatasetMapper
from detectron2.utils.events import get_event_storage
from PIL import Image

from .image_folder import PILLOW_ERRORS, UnreadableImage, errors_naming, refuse_deep_pixels

logger = logging.getLogger(__name__)
_KEY = "unreadable_images"  # of a sample: {file name: message} of those it stands for
# a dict of the data set -> a sample, or None for an image to skip
Mapper = Callable[[dict], dict | None]
_TRIES = 10  # unreadable images in a row, after which the disk is to blame rather than they


class NamingDatasetMapper(DatasetMapper):
    """detectron2's DatasetMapper whose errors name the image that cannot be used.

    Raises (when called):
        UnreadableImage: it is damaged, or has more than 8 bits a channel (detectron2 would clip).
        FileNotFoundError: it is not there.
    """

    def __call__(self, dataset_dict: dict) -> dict:
        path = dataset_dict["file_name"]
        with errors_naming(path, PILLOW_ERRORS):
            if "://" not in path:
                with Image.open(path) as image:
                    refuse_deep_pixels(path, image.mode)
            return super().__call__(dataset_dict)


class ReplacingMapper:
    """A mapper that maps another image of the set where one cannot be read, and says so.

    Which one follows from the name of the file, so that a training that is repeated is the same.
    The sample that stands for others has their messages by file name, for `CountingLoader`.

    Args:
        mapper: raises UnreadableImage or FileNotFoundError for what cannot be read.
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
            except (UnreadableImage, FileNotFoundError) as error:
                messages[path] = str(error)
                if attempt == _TRIES:
                    raise UnreadableImage(
                        f"{_TRIES} images in a row cannot be read, the last one: {error}"
                    ) from error
                number = zlib.crc32(f"{path} {attempt}".encode())
                dataset_dict = self.dicts[number % len(self.dicts)]
            else:
                return {**sample, _KEY: messages} if sample and messages else sample
        raise AssertionError("a try returns or raises")


class CountingLoader:
    """The batches of a loader; counts and names the images that others were taken for.

    Puts the scalar "unreadable_images", the files so far, into the training's event storage. It is
    the loader in all other respects.

    Args:
        loader: of batches that are lists of samples.
        number: images of the data set.
        max_share: of them, that may be unreadable.

    Raises (when iterated):
        UnreadableImage: more than that are.
    """

    def __init__(self, loader: Iterable[list[dict]], number: int, max_share: float):
        self.loader = loader
        self.number = number
        self.max_share = max_share
        self.files: set[str] = set()

    def __getattr__(self, name: str):
        if name == "loader":  # not there yet: this object is being unpickled
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
                f"DATALOADER.MAX_UNREADABLE {self.max_share:g} allows",
                f"the last one: {next(reversed(messages.values()))}",
            )


def build_tolerant_loader(
    build: Callable[[Mapper], Iterable[list[dict]]],
    mapper: Mapper,
    dicts: Sequence[dict],
    max_share: float,
) -> Iterable[list[dict]]:
    """`build(mapper)`, whose loader goes on where at most that share of `dicts` is unreadable.

    0 leaves loader and mapper as they are: the first unreadable image is an error.
    """
    if not max_share:
        return build(mapper)
    return CountingLoader(build(ReplacingMapper(mapper, dicts)), len(dicts), max_share)
