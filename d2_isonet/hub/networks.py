"""Networks for plain PyTorch: from a tensor of images to a list of feature maps, or to logits."""

import logging

import torch
from detectron2.modeling.backbone import Backbone
from torch import nn

from d2_isonet.data.pixels import Pixels
from d2_isonet.modeling.classifier import PooledClassifier
from d2_isonet.modeling.execution import recompute_blocks
from d2_isonet.modeling.stages import STAGES, stage_of
from d2_isonet.utils.messages import UserError

logger = logging.getLogger(__name__)
_PREFIX = "backbone."
_HEAD = "linear."


class _Network(nn.Module):
    """What both networks have beside their layers."""

    backbone: Backbone

    def _describe(self, pixels: Pixels) -> None:
        """Set `pixels` and timm's `feature_info`: one dict per map, finest first."""
        self.pixels = pixels
        shapes = sorted(self.backbone.output_shape().items(), key=lambda x: STAGES.index(x[0]))
        self.feature_info = [
            {"num_chs": shape.channels, "reduction": shape.stride, "module": _PREFIX + name}
            for name, shape in shapes
        ]
        self.register_load_state_dict_pre_hook(_accept_tensors_of_a_backbone)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of each block in backward instead of keeping them."""
        recompute_blocks(self.backbone, enable)


class FeatureMaps(_Network):
    """The feature maps of a backbone, finest first.

    Args:
        backbone: of this project or of detectron2.
        pixels: the format and statistics of the images that it was trained on.

    `names`, `channels` and `strides` have one entry per map.
    """

    def __init__(self, backbone: Backbone, pixels: Pixels):
        super().__init__()
        self.backbone = backbone
        self._describe(pixels)
        self.names = [x["module"].removeprefix(_PREFIX) for x in self.feature_info]
        self.channels = [x["num_chs"] for x in self.feature_info]
        self.strides = [x["reduction"] for x in self.feature_info]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps (N, C, H / stride, W / stride) of normalized images (N, 3, H, W)."""
        maps = self.backbone(images)
        return [maps[name] for name in self.names]


class Classifier(PooledClassifier, _Network):
    """PooledClassifier of normalized images, (N, 3, H, W) -> logits (N, num_classes).

    It has the methods that timm's scripts call, with timm's names, but does not need timm.

    Args:
        backbone, num_classes, dropout, zero_init: as in PooledClassifier.
        pixels: the format and statistics of the images that the backbone was trained on.
    """

    def __init__(
        self,
        backbone: Backbone,
        pixels: Pixels,
        num_classes: int = 1000,
        dropout: float = 0.0,
        zero_init: bool = False,
    ):
        super().__init__(backbone, num_classes, dropout, zero_init)
        self._describe(pixels)
        self.num_classes = num_classes
        self.head_hidden_size = self.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of normalized images (N, 3, H, W)."""
        return self.logits(images)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """The last map (N, C, H / 32, W / 32) of normalized images (N, 3, H, W)."""
        return self.backbone(images)[self.feature]

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(N, num_classes), or (N, C) with `pre_logits`, from the map of `forward_features`."""
        pooled = self.pool(features)
        return pooled if pre_logits else self.linear(pooled)

    def forward_intermediates(
        self, images: torch.Tensor, indices: int | list[int] | None = None, **options
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """(last map, maps of `feature_info`), or the maps alone with `intermediates_only`.

        Args:
            indices: as in timm: a list of indices, the number of last maps, or None for all.

        Raises:
            UserError: the option output_fmt is not "NCHW".
        """
        if options.get("output_fmt", "NCHW") != "NCHW":
            raise UserError(f"output_fmt is {options['output_fmt']!r}", "the maps are 'NCHW'")
        maps = self.backbone(images)
        chosen = [maps[x["module"].removeprefix(_PREFIX)] for x in self.feature_info]
        if isinstance(indices, int):
            chosen = chosen[-indices:]
        elif indices is not None:
            chosen = [chosen[i] for i in indices]
        return chosen if options.get("intermediates_only") else (maps[self.feature], chosen)

    def get_classifier(self) -> nn.Module:
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by a new one for `num_classes`; 0 removes it."""
        check_pooling(global_pool)
        self.num_classes = num_classes
        self.reset_linear(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's patterns that group parameters by depth: stem, then stages or (finer) blocks."""
        block = r"^backbone\.res(\d+)" if coarse else r"^backbone\.res(\d+)\.(\d+)"
        return {"stem": r"^backbone\.stem", "blocks": block}


def check_pooling(global_pool: str | None) -> None:
    """Raise a UserError unless the pooling before the linear layer is the mean."""
    if global_pool not in (None, "avg"):
        raise UserError(f"global_pool is {global_pool!r}", "these networks have 'avg' alone")


def _accept_tensors_of_a_backbone(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """Let `load_state_dict` read a backbone.pth: `stem.`, `res2.`, ... without `backbone.`.

    A linear layer that only the module or only the file has is no error.
    """
    names = [name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)]
    for name in names:
        if name.split(".")[0] in STAGES:
            state_dict[f"{prefix}{_PREFIX}{name}"] = state_dict.pop(prefix + name)
    ours = {name: x for name, x in module.state_dict().items() if name.startswith(_HEAD)}
    theirs = [name for name in names if name.startswith(_HEAD)]
    if not ours:
        for name in theirs:
            del state_dict[prefix + name]
    elif not theirs and any(stage_of(name) in STAGES for name in names):
        state_dict.update({prefix + name: x for name, x in ours.items()})
        logger.warning("The weights are of a backbone alone: the linear layer stays as it was")
