"""detectron2's DefaultPredictor with validated weights and images."""

from collections import defaultdict
from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.config.loading import fall_back_to_cpu
from d2_isonet.data.categories import categories_of
from d2_isonet.data.datasets import register_own_data
from d2_isonet.preflight.network import check_names
from d2_isonet.utils.messages import UserError


class Predictor(DefaultPredictor):
    """Detects objects in one image, predictor(image)["instances"], or in several, `predict`.

    `categories` names the classes of the detector as its weights do, and so does `metadata`.

    Args:
        cfg: config of a trained detector; MODEL.WEIGHTS is its checkpoint. Without a GPU, the
            detector runs on the CPU.
        trust_pickle: read a .pkl file, which can run any code that its author put in.

    Raises UserError if MODEL.WEIGHTS is '', no file of weights, or does not fill this detector, and
    FileNotFoundError if there is no such file.
    """

    def __init__(self, cfg: CfgNode, trust_pickle: bool = False):
        cfg = cfg.clone()
        cfg.defrost()
        fall_back_to_cpu(cfg)
        check_names(cfg)
        if not cfg.MODEL.WEIGHTS:
            raise UserError("MODEL.WEIGHTS is ''", "set it to the checkpoint of a trained detector")
        self.cfg = cfg
        self.model = build_model(cfg).eval()
        checkpointer = build_checkpointer(cfg, self.model, strict=True, trust_pickle=trust_pickle)
        checkpointer.load(cfg.MODEL.WEIGHTS, [])
        if not (checkpointer.record and "categories" in checkpointer.record):
            register_own_data(cfg)
        self.categories = categories_of(cfg, checkpointer.record, cfg.MODEL.WEIGHTS)
        if cfg.DATASETS.TEST:
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        if self.categories.source == cfg.MODEL.WEIGHTS:
            known = vars(getattr(self, "metadata", Metadata(name=cfg.MODEL.WEIGHTS)))
            self.metadata = Metadata(**{**known, "thing_classes": self.categories.names})
        sizes = [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST]
        self.aug = T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = cfg.INPUT.FORMAT

    def __call__(self, original_image: np.ndarray) -> dict:
        """The model's output for one image (H, W, 3), BGR, of range 0-255.

        Raises UserError if the image has another form, and says how to convert it.
        """
        return self.predict([original_image])[0]

    def predict(self, images: Sequence[np.ndarray]) -> list[dict]:
        """The model's outputs for several images; each is the same as for the image alone.

        Images that have one size after resizing form a batch. Images of different sizes do not: a
        batch would pad them to the largest, and padding changes the output.
        """
        samples = [self._sample(image) for image in images]
        by_size = defaultdict(list)
        for index, sample in enumerate(samples):
            by_size[sample["image"].shape].append(index)
        outputs: dict[int, dict] = {}
        with torch.no_grad():
            for indices in by_size.values():
                found = self.model([samples[i] for i in indices])
                outputs.update(zip(indices, found, strict=True))
        return [outputs[index] for index in range(len(samples))]

    def _sample(self, image: np.ndarray) -> dict:
        """The model's input for an image: resized, channels in the model's order."""
        check_image(image)
        height, width = image.shape[:2]
        longest = self.cfg.INPUT.MAX_SIZE_TEST
        resizes = self.cfg.INPUT.MIN_SIZE_TEST > 0
        if resizes and 2 * min(height, width) * longest < max(height, width):  # detectron2 rounds
            raise UserError(
                f"the image is {width} x {height}",
                f"made to fit INPUT.MAX_SIZE_TEST {longest}, it would be thinner than a pixel: "
                "cut it into shorter pieces",
            )
        pixels = image[:, :, ::-1] if self.input_format == "RGB" else image
        pixels = self.aug.get_transform(pixels).apply_image(pixels)
        tensor = torch.as_tensor(pixels.astype("float32").transpose(2, 0, 1))
        return {"image": tensor, "height": height, "width": width}


def check_image(image: np.ndarray) -> None:
    """Raise UserError unless `image` is (H, W, 3), uint8 or float, of range 0-255."""
    if image is None:
        raise UserError(
            "the image is None, which cv2.imread returns if it cannot read a file",
            "check the path, or use detectron2.data.detection_utils.read_image(path, 'BGR')",
        )
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"the image is a {type(image).__module__}.{type(image).__name__}",
            "give a numpy array (H, W, 3) in BGR, "
            "e.g. np.asarray(pil_image.convert('RGB'))[:, :, ::-1]",
        )
    if image.shape[2:] != (3,) or not image.size:
        what = f"the image has the shape {image.shape}, not (H, W, 3)"
        raise UserError(what, _shape_remedy(image.shape))
    if image.dtype == np.uint16:
        raise UserError(
            "the image is uint16, of range 0-65535",
            "give (image / 257).astype('uint8'), or scale it by its own range",
        )
    if image.dtype not in (np.uint8, np.float32, np.float64):
        raise UserError(f"the image is {image.dtype}", "give uint8, of range 0-255")
    if image.dtype != np.uint8:
        _check_range(image)


def _shape_remedy(shape: tuple[int, ...]) -> str:
    if 0 in shape:
        return "there are no pixels: check how it was read or cropped"
    if len(shape) == 2 or shape[2:] == (1,):
        return "that is grayscale: give np.dstack([image] * 3)"
    if shape[2:] == (4,):
        return "the fourth channel is no colour: give image[:, :, :3]"
    if len(shape) == 3 and shape[0] in (1, 3):
        return "the channels come first: give image.transpose(1, 2, 0)"
    if len(shape) == 4:
        return "give one image at a time, without a batch dimension"
    return "give (H, W, 3), BGR"


def _check_range(image: np.ndarray) -> None:
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255):  # also NaN
        raise UserError(
            f"the image has values from {low:g} to {high:g}",
            "give pixels of range 0-255; the model itself subtracts their mean",
        )
    if 0 < high <= 1:
        raise UserError(
            f"the image is {image.dtype} and nowhere above {high:g}, as if of range 0-1",
            "give image * 255",
        )
