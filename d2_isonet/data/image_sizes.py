"""Which sizes of images a crop or a resize would leave without a pixel, or make far too large."""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge

# From width and height of an upright image to what is wrong with them, or to "".
SizeProblem = Callable[[int, int], str]
SIZE_REMEDY = "cut it into shorter pieces, or take it out of the data set"


def detection_size_problem(cfg: CfgNode, is_train: bool) -> SizeProblem:
    """What is wrong with sizes for the mapper of a detector, in training or evaluation."""
    return lambda width, height: _detection_problem(cfg, is_train, width, height)


def classification_size_problem(cfg: CfgNode, is_train: bool) -> SizeProblem:
    """What is wrong with sizes for the mapper of a classifier, in training or evaluation."""
    options, most_pixels = cfg.INPUT.CLASSIFICATION, cfg.INPUT.MAX_IMAGE_PIXELS
    if is_train and not options.PADDING:  # a random crop of any image can be resized
        return lambda width, height: ""
    return lambda width, height: resized_problem(width, height, options.RESIZE, most_pixels)


def resized_problem(width: int, height: int, shorter: int, most_pixels: int) -> str:
    """Why an image must not be resized to that shorter side; "" if it may be."""
    pixels = shorter * shorter * max(width, height) // min(width, height)
    what = f"resized to a shorter side of {shorter} it has {pixels / 1e6:,.0f} million pixels"
    return f"it is {width} x {height}, and {what}" if pixels > most_pixels else ""


def _detection_problem(cfg: CfgNode, is_train: bool, width: int, height: int) -> str:
    inputs, split = cfg.INPUT, "TRAIN" if is_train else "TEST"
    sizes, longest = inputs[f"MIN_SIZE_{split}"], inputs[f"MAX_SIZE_{split}"]
    sizes = [size for size in ([sizes] if isinstance(sizes, int) else sizes) if size > 0]
    what = f"it is {width} x {height}, "
    if is_train and inputs.CROP.ENABLED:
        width, height = _thinnest_crop(inputs.CROP, width, height)
        if not width * height:
            return f"{what}of which INPUT.CROP.SIZE {inputs.CROP.SIZE} can leave nothing"
    if not sizes:
        return ""
    if is_too_thin(width, height, min(sizes), longest):
        return f"{what}and thinner than a pixel if it fits INPUT.MAX_SIZE_{split} {longest}"
    rows, columns = ResizeShortestEdge.get_output_shape(height, width, max(sizes), longest)
    if rows * columns > inputs.MAX_IMAGE_PIXELS:
        return f"{what}and resized (INPUT.MAX_SIZE_{split} {longest}) {columns} x {rows}"
    return ""


def is_too_thin(width: int, height: int, shortest: int, longest: int) -> bool:
    """Whether detectron2's resize to these sides, which rounds, leaves no row or no column."""
    return 0 in ResizeShortestEdge.get_output_shape(height, width, shortest, longest)


def _thinnest_crop(crop: CfgNode, width: int, height: int) -> tuple[int, int]:
    """Width and height of the thinnest crop that detectron2's RandomCrop may take."""
    first, second = crop.SIZE
    if crop.TYPE == "absolute":
        return min(width, int(second)), min(height, int(first))
    if crop.TYPE == "absolute_range":  # each side from `first` to `second` pixels
        least, most = min(width, height, int(first)), min(max(width, height), int(second))
        return (least, most) if width < height else (most, least)
    cropped = int(width * second + 0.5), int(height * first + 0.5)
    if crop.TYPE == "relative":
        return cropped
    return (cropped[0], height) if width < height else (width, cropped[1])
