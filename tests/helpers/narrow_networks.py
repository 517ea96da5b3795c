"""Networks of a few channels whose every part has a say."""

from torch import nn

from d2_isonet import SReLU

NARROW = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8",
          "MODEL.RESNETS.RES2_OUT_CHANNELS", "32", "MODEL.RESNETS.WIDTH_PER_GROUP", "8",
          "MODEL.FPN.OUT_CHANNELS", "16"]  # fmt: skip
BASIC = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "8"]


def away_from_init(module: nn.Module) -> nn.Module:
    """Shifts of both signs and scales that let the branches through."""
    for part in module.modules():
        if isinstance(part, SReLU):
            nn.init.normal_(part.shift)
        if getattr(part, "residual_scale", None) is not None:
            nn.init.constant_(part.residual_scale, 0.3)
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=0.5 / part.weight[0].numel() ** 0.5)
    return module.eval()


# Basic blocks, small heads, few proposals: a detector of R18 that takes milliseconds an image.
SMALL_DETECTOR = [
    *NARROW, *BASIC, "MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.ROI_BOX_HEAD.FC_DIM", "32",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.RPN.POST_NMS_TOPK_TEST", "40",
    "MODEL.RPN.PRE_NMS_TOPK_TEST", "80", "INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "160",
]  # fmt: skip


def decided(detector: nn.Module) -> nn.Module:
    """A detector of random weights whose scores, boxes and masks depend on what it sees."""
    away_from_init(detector)
    for name, part in detector.named_modules():
        if isinstance(part, SReLU):
            part.shift.data.mul_(0.1)
        elif isinstance(part, nn.Conv2d) and ("backbone" in name or "res5" in name):
            part.weight.data.mul_(2)
    for name, parameter in detector.named_parameters():
        if name.endswith(("cls_score.weight", "mask_head.predictor.weight")):
            nn.init.normal_(parameter)
        elif name.endswith("bbox_pred.weight"):
            nn.init.normal_(parameter, std=0.02)
    return detector
