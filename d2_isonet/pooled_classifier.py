"""A backbone with a linear layer on its last feature map: what every classifier here is."""

import torch
from detectron2.modeling.backbone import Backbone
from torch import nn


class PooledClassifier(nn.Module):
    """logits = linear(dropout(average_pool(backbone(images)))), for a subclass to give forward.

    Args:
        backbone: its output feature of the largest stride is classified, the last of several.
        num_classes: length of the logits; 0 for none: they are then the pooled features.
        dropout: probability, before the linear layer only (ISONet section 3.3).
        zero_init: the linear layer starts at zero (Zhang et al. 2019, Fixup).
    """

    linear: nn.Module

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        dropout: float = 0.0,
        zero_init: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.feature = deepest_feature(backbone)
        self.num_features = int(backbone.output_shape()[self.feature].channels)
        self.dropout = nn.Dropout(dropout)
        self.zero_init = zero_init
        self.reset_linear(num_classes)

    def reset_linear(self, num_classes: int) -> None:
        """A linear layer as initialized for so many classes; none for 0."""
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


def deepest_feature(backbone: Backbone) -> str:
    """The output of the largest stride, the last of several."""
    strides = {name: shape.stride for name, shape in backbone.output_shape().items()}
    return [name for name, stride in strides.items() if stride == max(strides.values())][-1]
