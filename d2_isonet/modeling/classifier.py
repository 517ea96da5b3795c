"""Image classification as a detectron2 meta-architecture: the pretraining task."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone import Backbone
from torch import nn
from torchvision.transforms import v2

from d2_isonet.config.options import check_range, illegal

from .attacks import build_attack, evaluation_mode
from .stages import deepest_feature


class PooledClassifier(nn.Module):
    """logits = linear(dropout(average_pool(backbone(images)))); a subclass defines forward.

    Args:
        backbone: the classifier uses its output feature of the largest stride, the last of several.
        num_classes: length of the logits; if 0, they are the pooled features.
        dropout: probability, before the linear layer only (ISONet section 3.3).
        zero_init: the linear layer starts at zero (Zhang et al. 2019, Fixup).
    """

    linear: nn.Module

    def __init__(
        self, backbone: Backbone, num_classes: int, dropout: float = 0.0, zero_init: bool = False
    ):
        super().__init__()
        self.backbone = backbone
        self.feature = deepest_feature(backbone)
        self.num_features = int(backbone.output_shape()[self.feature].channels)
        self.dropout = nn.Dropout(dropout)
        self.zero_init = zero_init
        self.reset_linear(num_classes)

    def reset_linear(self, num_classes: int) -> None:
        """Make a new linear layer for this number of classes; none for 0."""
        if num_classes == 0:
            self.linear = nn.Identity()
            return
        weight = next(self.backbone.parameters())
        self.linear = nn.Linear(self.num_features, num_classes).to(weight)
        if self.zero_init:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C), with dropout, from the deepest feature map (N, C, H, W)."""
        return self.dropout(features.mean(dim=(2, 3)))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(N, num_classes) from normalized images (N, 3, H, W)."""
        return self.linear(self.pool(self.backbone(images)[self.feature]))


@META_ARCH_REGISTRY.register()
class ImageClassifier(PooledClassifier):
    """logits = linear(dropout(average_pool(res5(normalize(image))))).

    It normalizes with the same keys (INPUT.FORMAT, MODEL.PIXEL_MEAN, MODEL.PIXEL_STD) as
    GeneralizedRCNN, so that pretraining and detection cannot disagree about pixels.

    Args:
        backbone, num_classes, dropout, zero_init: see `PooledClassifier`.
        pixel_mean, pixel_std: per channel, in the channel order of the image, range 0-255.
        label_smoothing: share of the target that all classes get equally.
        mixup_alpha: alpha of mixup in training (Zhang et al. 2018, "mixup"); 0 for no mixup.
        attack: (logits, images, labels) -> images that replace the batch in training; see
            `build_attack`.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        dropout: float = 0.0,
        zero_init: bool = False,
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        attack: Callable | None = None,
    ):
        super().__init__(backbone, num_classes, dropout, zero_init)
        self.label_smoothing = label_smoothing
        self.mixup_alpha = mixup_alpha
        self.attack = attack
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        classifier, adversarial = cfg.MODEL.CLASSIFIER, cfg.SOLVER.ADVERSARIAL
        if classifier.NUM_CLASSES < 1:
            remedy = (
                "set it to the number of classes (d2-isonet pretrain takes it from the data set)"
            )
            raise illegal(cfg, "MODEL.CLASSIFIER.NUM_CLASSES", remedy)
        mixup_alpha = cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA
        check_range("MODEL.CLASSIFIER.DROPOUT", classifier.DROPOUT, below=1)
        check_range("MODEL.CLASSIFIER.LABEL_SMOOTHING", classifier.LABEL_SMOOTHING, below=1)
        check_range("INPUT.CLASSIFICATION.MIXUP_ALPHA", mixup_alpha)
        return {
            "backbone": build_backbone(cfg),
            "num_classes": classifier.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "dropout": classifier.DROPOUT,
            "zero_init": classifier.ZERO_INIT,
            "label_smoothing": classifier.LABEL_SMOOTHING,
            "mixup_alpha": mixup_alpha,
            "attack": build_attack(**{key.lower(): x for key, x in adversarial.items()}),
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def stack_images(self, batched_inputs: list[dict]) -> torch.Tensor:
        """(N, C, H, W) on the device, from N images (C, H, W) of one size; copied as uint8."""
        images = torch.stack([x["image"] for x in batched_inputs])
        return images.to(self.device, non_blocking=True)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) of mean 0 and deviation 1 from images (N, C, H, W) of range 0-255."""
        return (images - self.pixel_mean) / self.pixel_std

    def pixel_logits(self, images: torch.Tensor) -> torch.Tensor:
        """(N, num_classes) from images (N, C, H, W) of range 0-255, for attacks."""
        return self.logits(self.normalize(images))

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict per image: "image", a tensor (C, H, W) of range 0-255, all of
                one size, in the channel order of pixel_mean; in training also "label", an int.

        Returns:
            In training {"loss_cls": scalar}, the mean cross-entropy; in evaluation one dict per
            image, {"logits": (num_classes,)}.
        """
        images = self.stack_images(batched_inputs)
        if not self.training:
            return [{"logits": x} for x in self.pixel_logits(images)]
        labels = torch.tensor([x["label"] for x in batched_inputs], device=self.device)
        if self.attack is not None:
            # In eval mode: a batch norm's statistics see only the images of the training step, and
            # dropout does not disturb the gradient (better clean accuracy, equal robustness: Pang
            # et al. 2021, "Bag of tricks for adversarial training"). In float32: float16 loses the
            # small gradients of confident images.
            with evaluation_mode(self), torch.autocast(self.device.type, enabled=False):
                images = self.attack(self.pixel_logits, images, labels)
        return {"loss_cls": self._loss(self.normalize(images), labels)}

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of normalized images, mixed with their neighbours by mixup."""
        if self.mixup_alpha > 0:
            mixup = v2.MixUp(alpha=self.mixup_alpha, num_classes=self.linear.out_features)
            images, labels = mixup(images, labels)  # labels: (N, num_classes), rows sum to 1
        return F.cross_entropy(self.logits(images), labels, label_smoothing=self.label_smoothing)
