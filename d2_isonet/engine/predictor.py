"""detectron2's DefaultPredictor, on weights that must fit and images that must be images."""

from collections import defaultdict
from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.config.loading import fall_back_to_cpu
from d2_isonet.data.categories import categories_of
from d2_isonet.preflight.network import check_names
from d2_isonet.utils.messages import UserError


class Predictor(DefaultPredictor):
    """Detections in one image, predictor(image)["instances"], or in several, `predict`.

    `categories` says what classes the detector tells apart.

    Args:
        cfg: of a trained detector; MODEL.WEIGHTS is its checkpoint. Without a GPU the CPU is used.
        trust_pickle: read a .pkl file, which can run any code its author put in.

    Raises:
        UserError: there are no weights, they are none, or not all of this detector's.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, cfg: CfgNode, trust_pickle: bool = False):
        cfg = cfg.clone()
        cfg.defrost()
        fall_back_to_cpu(cfg)
        check_names(cfg)
        if not cfg.MODEL.WEIGHTS:
            raise UserError("MODEL.WEIGHTS is ''", "a predictor needs a trained detector's file")
        self.cfg = cfg
        self.model = build_model(cfg).eval()
        checkpointer = build_checkpointer(cfg, self.model, strict=True, trust_pickle=trust_pickle)
        checkpointer.load(cfg.MODEL.WEIGHTS, [])
        self.categories = categories_of(cfg, checkpointer.record, cfg.MODEL.WEIGHTS)
        if cfg.DATASETS.TEST:
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        sizes = [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST]
        self.aug = T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = cfg.INPUT.FORMAT

    def __call__(self, original_image: np.ndarray) -> dict:
        """The model's output for one image (H, W, 3), BGR, of range 0-255.

        Raises:
            UserError: it is no such image; the message says what it is and how to make one.
        """
        return self.predict([original_image])[0]

    def predict(self, images: Sequence[np.ndarray]) -> list[dict]:
        """The model's outputs for several images; each as if it came alone.

        Those of one size, once resized for the model, go through it together. Others do not: they
        would be padded to the largest, and a network sees padding.

        Args, Raises: see `__call__`.
        """
        samples = [self._sample(image) for image in images]
        same_size = defaultdict(list)
        for index, sample in enumerate(samples):
            same_size[sample["image"].shape].append(index)
        outputs: list[dict] = [{}] * len(samples)
        with torch.no_grad():
            for indices in same_size.values():
                batch = self.model([samples[i] for i in indices])
                for i, output in zip(indices, batch, strict=True):
                    outputs[i] = output
        return outputs

    def _sample(self, image: np.ndarray) -> dict:
        """What the model takes for an image: resized, its channels in the model's order."""
        check_image(image)
        height, width = image.shape[:2]
        if self.cfg.INPUT.MIN_SIZE_TEST:  # otherwise images are not resized
            _check_proportions(height, width, self.cfg.INPUT.MAX_SIZE_TEST)
        pixels = image[:, :, ::-1] if self.input_format == "RGB" else image
        pixels = self.aug.get_transform(pixels).apply_image(pixels)
        tensor = torch.as_tensor(pixels.astype("float32").transpose(2, 0, 1))
        return {"image": tensor, "height": height, "width": width}


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is (H, W, 3), uint8 or float, of range 0-255."""
    if image is None:
        raise UserError(
            "the image is None, which cv2.imread returns where it cannot read a file: check the "
            "path, or use detectron2.data.detection_utils.read_image(path, 'BGR')"
        )
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"the image is a {type(image).__module__}.{type(image).__name__}",
            "give a numpy array "
            "(H, W, 3) in BGR, e.g. np.asarray(pil_image.convert('RGB'))[:, :, ::-1]",
        )
    _check_shape(image.shape)
    _check_values(image)


def _check_shape(shape: tuple[int, ...]) -> None:
    remedy = "give (H, W, 3), BGR"
    if 0 in shape:
        remedy = "there are no pixels: check how it was read or cropped"
    elif len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        remedy = "that is grayscale: give np.dstack([image] * 3)"
    elif len(shape) == 3 and shape[2] == 3:
        return
    elif len(shape) == 3 and shape[2] == 4:
        remedy = "the fourth channel is no colour: give image[:, :, :3]"
    elif len(shape) == 3 and shape[0] in (1, 3):
        remedy = "the channels come first: give image.transpose(1, 2, 0)"
    elif len(shape) == 4:
        remedy = "give one image at a time, without a batch dimension"
    raise UserError(f"the image has the shape {shape}, not (H, W, 3)", f"{remedy}")


def _check_proportions(height: int, width: int, longest: int) -> None:
    """Raise ValueError for a strip of which no row would be left once it is resized."""
    if 2 * min(height, width) * longest < max(height, width):  # detectron2 rounds
        raise UserError(
            f"the image is {width} x {height}",
            f"made to fit INPUT.MAX_SIZE_TEST {longest} it would "
            "be thinner than a pixel: cut it into shorter pieces",
        )


def _check_values(image: np.ndarray) -> None:
    if image.dtype == np.uint8:
        return
    if image.dtype == np.uint16:
        raise UserError(
            "the image is uint16, of range 0-65535",
            "give (image / 257).astype('uint8'), or scale it by its own range",
        )
    if image.dtype not in (np.float32, np.float64):
        raise UserError(f"the image is {image.dtype}", "give uint8, of range 0-255")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255):  # also NaN
        raise UserError(
            f"the image has values from {low:g} to {high:g}",
            "give pixels of range 0-255, the model subtracts their mean itself",
        )
    if 0 < high <= 1:
        raise UserError(
            f"the image is {image.dtype} and nowhere above {high:g}, as if of range 0-1",
            "give image * 255",
        )
