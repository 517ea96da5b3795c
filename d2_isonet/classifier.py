"""Image classification as a detectron2 meta-architecture: the pretraining task."""

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone import Backbone
from torch import nn


@META_ARCH_REGISTRY.register()
class ImageClassifier(nn.Module):
    """logits = linear(dropout(average_pool(res5(normalize(image))))).

    It normalizes with the same keys (INPUT.FORMAT, MODEL.PIXEL_MEAN, MODEL.PIXEL_STD) as
    GeneralizedRCNN, so that pretraining and detection cannot disagree about pixels.

    Args:
        backbone: its last output feature is classified.
        num_classes: length of the logits.
        pixel_mean, pixel_std: per channel, in the channel order of the image, range 0-255.
        dropout: probability, before the linear layer only (ISONet section 3.3).
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        dropout: float = 0.0,
    ):
        super().__init__()
        self.backbone = backbone
        self.feature = list(backbone.output_shape())[-1]
        channels = backbone.output_shape()[self.feature].channels
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, num_classes)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        if cfg.MODEL.CLASSIFIER.NUM_CLASSES < 1:
            raise ValueError(
                f"MODEL.CLASSIFIER.NUM_CLASSES is {cfg.MODEL.CLASSIFIER.NUM_CLASSES}; set it to "
                "the number of classes (tools/pretrain_imagenet.py takes it from the data set)"
            )
        return {
            "backbone": build_backbone(cfg),
            "num_classes": cfg.MODEL.CLASSIFIER.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "dropout": cfg.MODEL.CLASSIFIER.DROPOUT,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def preprocess_images(self, batched_inputs: list[dict]) -> torch.Tensor:
        """(N, C, H, W), normalized, from N images (C, H, W) of one size and range 0-255.

        They travel to the device as they are (uint8) and become floats there.
        """
        images = torch.stack([x["image"] for x in batched_inputs])
        images = images.to(self.device, non_blocking=True)
        return (images - self.pixel_mean) / self.pixel_std

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(N, num_classes) from normalized images (N, C, H, W)."""
        features = self.backbone(images)[self.feature].mean(dim=(2, 3))
        return self.linear(self.dropout(features))

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict an image: "image", a tensor (C, H, W) of range 0-255, all of
                one size, in the channel order of pixel_mean; in training also "label", an int.

        Returns:
            In training {"loss_cls": scalar}, the mean cross-entropy; in evaluation one dict an
            image, {"logits": (num_classes,)}.
        """
        logits = self.logits(self.preprocess_images(batched_inputs))
        if not self.training:
            return [{"logits": x} for x in logits]
        labels = torch.tensor([x["label"] for x in batched_inputs], device=self.device)
        return {"loss_cls": F.cross_entropy(logits, labels)}
