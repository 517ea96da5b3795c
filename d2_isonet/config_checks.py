"""What a config asks for that this machine, or any, cannot do; nothing is built for it."""

import math

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

from d2_isonet.utils.messages import nearest


def check_device(cfg: CfgNode) -> None:
    """Raise ValueError where MODEL.DEVICE is no device, or a GPU that is not there."""
    name = cfg.MODEL.DEVICE
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"MODEL.DEVICE is {name!r}; it must be 'cpu', 'cuda' or 'cuda:N'"
        ) from error
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ValueError(f"MODEL.DEVICE is {name!r}; this machine has {gpus} GPUs, from 0")


def check_names(cfg: CfgNode) -> None:
    """Raise ValueError for a part of the model that nobody registered."""
    asked = {
        "MODEL.META_ARCHITECTURE": (cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        "MODEL.BACKBONE.NAME": (cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        "MODEL.ROI_HEADS.NAME": (cfg.MODEL.ROI_HEADS.NAME, ROI_HEADS_REGISTRY),
    }
    for key, (name, registry) in asked.items():
        if name not in registry:
            known = [registered for registered, _ in registry]
            hint = nearest(name, known, "; import the package that defines it")
            raise ValueError(f"{key} is {name!r}, which nobody registered{hint}")


def check_pixels(cfg: CfgNode) -> None:
    """Raise ValueError where images cannot be normalized by MODEL.PIXEL_MEAN and PIXEL_STD."""
    mean, std, order = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT
    channels = 1 if order == "L" else 3  # or more than 3, of a mapper of one's own
    are_numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in [*mean, *std])
    fit = len(mean) == len(std) and (len(mean) == channels or len(mean) > 3)
    if not fit or not are_numbers or min(std) <= 0:
        raise ValueError(
            f"MODEL.PIXEL_MEAN is {mean} and MODEL.PIXEL_STD {std} with INPUT.FORMAT {order!r}; "
            f"each must have {channels} numbers, the deviations above 0"
        )


def check_detector(cfg: CfgNode) -> None:
    """Raise ValueError where cfg asks a detector for what an ImageClassifier alone does."""
    asked = {
        "INPUT.CLASSIFICATION.MIXUP_ALPHA": (cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA, 0.0),
        "SOLVER.ADVERSARIAL.ATTACK": (cfg.SOLVER.ADVERSARIAL.ATTACK, ""),
        "MODEL.CLASSIFIER.DROPOUT": (cfg.MODEL.CLASSIFIER.DROPOUT, 0.0),
        "MODEL.CLASSIFIER.LABEL_SMOOTHING": (cfg.MODEL.CLASSIFIER.LABEL_SMOOTHING, 0.0),
    }
    for key, (value, none) in asked.items():
        if value != none:
            raise ValueError(
                f"{key} is {value!r} with MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r}; "
                f"only ImageClassifier has it (tools/pretrain_imagenet.py): set it to {none!r}"
            )
