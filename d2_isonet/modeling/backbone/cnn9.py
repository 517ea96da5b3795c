"""CNN-9, the plain network of Decoupled Networks and SphereNet for images of about 32 pixels."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone

from d2_isonet.layers.convolution import Activation, make_convolution
from d2_isonet.layers.weight_init import get_fill
from d2_isonet.utils.messages import UserError

from .build import activation_option, apply_execution_options, conv_option, norm_option
from .checks import check_architecture

STAGES = ("res2", "res3", "res4")


class CNN9Stage(CNNBlockBase):
    """y = max_pool2x2(layer(layer(layer(x)))), layer(x) = activation(norm(conv3x3(x)))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        activation: Activation = "ReLU",
        init: str = "msra",
        **options,
    ):
        super().__init__(in_channels, out_channels, 2)
        layers = [
            make_convolution(channels, out_channels, 3, activation=activation, **options)
            for channels in (in_channels, out_channels, out_channels)
        ]
        get_fill(init)(*layers)
        self.conv1, self.conv2, self.conv3 = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        return torch.max_pool2d(x, kernel_size=2)


class CNN9(Backbone):
    """Three stages of three 3x3 convolutions and a pooling: res2, res3, res4 at strides 2, 4, 8.

    Deviations: the released classifier is a 4x4 convolution to 256 numbers (decoupled too) and a
    linear layer. Here ImageClassifier averages res4 and has the linear layer only, so that images
    may have any size. The widths are probably the papers' 64, 128, 256; the released SphereNet
    code has 128, 192, 256.

    Args:
        channels: width of res2; res3 and res4 are two and four times as wide.
        out_features: some of "res2", "res3", "res4"; (N, channels, H / 2, W / 2) and so on. Stages
            after the last of them are not built.
        freeze_at: as in detectron2's ResNet: 2 freezes res2, 3 also res3, 4 all; there is no stem.
        options: conv, norm, activation ("Identity" for none) and init of `CNN9Stage`. No
            convolution has a bias, as in the authors' code.

    Raises:
        UserError: an out_feature is no stage, or there is none.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: int = 64,
        *,
        out_features: Sequence[str] = ("res4",),
        freeze_at: int = 0,
        **options,
    ):
        super().__init__()
        if not out_features or not set(out_features) <= set(STAGES):
            what = f"MODEL.RESNETS.OUT_FEATURES is {list(out_features)}"
            raise UserError(what, f"a CNN-9 has {list(STAGES)}")
        self._out_features = list(out_features)
        self._stages = STAGES[: 1 + max(STAGES.index(name) for name in out_features)]
        self._out_feature_channels, self._out_feature_strides = {}, {}
        for index, name in enumerate(self._stages):
            width = channels * 2**index
            stage = CNN9Stage(in_channels, width, **options)
            if freeze_at >= index + 2:
                stage.freeze()
            self.add_module(name, stage)
            self._out_feature_channels[name] = in_channels = width
            self._out_feature_strides[name] = 2 ** (index + 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = {}
        for name in self._stages:
            features[name] = x = getattr(self, name)(x)
        return {name: features[name] for name in self._out_features}


@BACKBONE_REGISTRY.register()
def build_cnn9_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> CNN9:
    """CNN-9 of width MODEL.RESNETS.STEM_OUT_CHANNELS, with MODEL.RESNETS.NORM and MODEL.ISONET's
    CONV, ACTIVATION and INIT.

    Raises:
        UserError: cfg describes no possible network, or sets an option that CNN-9 does not have.
    """
    check_architecture(cfg)
    resnets, isonet = cfg.MODEL.RESNETS, cfg.MODEL.ISONET
    backbone = CNN9(
        input_shape.channels,
        resnets.STEM_OUT_CHANNELS,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        conv=conv_option(cfg),
        norm=norm_option(cfg),
        activation=activation_option(cfg),
        init=isonet.INIT,
    )
    return apply_execution_options(cfg, backbone)
