"""`d2_isonet.backbone`: the networks of this project by name, for plain PyTorch."""

import os
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.checkpoint.matching import record_of
from d2_isonet.checkpoint.reading import read_tensors
from d2_isonet.config.model_zoo import config_names, get_config
from d2_isonet.data.pixels import pixels_of, use_recorded_pixels
from d2_isonet.modeling.stages import STAGES
from d2_isonet.utils.messages import MissingFileError, UserError, nearest

from .networks import Classifier, FeatureMaps

_SHORT = "imagenet/"  # prefix of a config's name that the network's name lacks


def backbone_names() -> list[str]:
    """The names that `backbone` accepts: "risonet50", ..., and "cifar/risonet20", ..."""
    names = [name for name in config_names() if name.startswith((_SHORT, "cifar/"))]
    return sorted(name.removeprefix(_SHORT) for name in names)


def backbone(
    name: str,
    pretrained: str | os.PathLike = "",
    *,
    features_only: bool = False,
    num_classes: int | None = None,
    out_features: Sequence[str] | None = None,
    output_stride: int | None = None,
    norm: str | None = None,
    freeze_at: int = 0,
) -> FeatureMaps | Classifier:
    """The network of a pretraining config.

    Args:
        name: one of `backbone_names()`.
        pretrained: a file with weights of this network: backbone.pth, model_final.pth of a
            pretraining, a converted file or a .safetensors file. It also sets the `pixels` of the
            network.
        features_only: return feature maps instead of logits.
        num_classes: number of logits; None means that of `pretrained`, or 1000. If it differs from
            that of the file, or the file has no linear layer, the linear layer is initialized.
        out_features: with `features_only`, some of "stem", "res2", ... "res5"; None means all
            stages.
        output_stride: of the last stage, 32 or 16 (res5 is dilated); None means the config's.
        norm: "BN", "FrozenBN", "SyncBN" or "GN" instead of the config's. The first three load each
            other's weights.
        freeze_at: detectron2's FREEZE_AT: 1 freezes the stem, 2 also res2, and so on.

    Raises:
        UserError: the name is unknown, the network does not have an option, or the weights do not
            match it.
        FileNotFoundError: the file `pretrained` does not exist.
    """
    cfg = _config(name)
    record, classes = _read_record(pretrained) if pretrained else (None, None)
    use_recorded_pixels(cfg, record)
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    if norm is not None:
        cfg.MODEL.RESNETS.NORM = norm
    _set_output_stride(cfg, name, output_stride)
    _set_out_features(cfg, out_features, features_only)
    network, pixels, options = build_backbone(cfg), pixels_of(cfg), cfg.MODEL.CLASSIFIER
    model: FeatureMaps | Classifier
    if features_only:
        model = FeatureMaps(network, pixels)
    else:
        number = next(x for x in (num_classes, classes, 1000) if x is not None)
        model = Classifier(network, pixels, number, options.DROPOUT, options.ZERO_INIT)
    if pretrained:
        build_checkpointer(cfg, model).load(os.fspath(pretrained), [])
    return model


def _config(name: str) -> CfgNode:
    known = config_names()
    config = next((x for x in (_SHORT + name, name) if x in known), None)
    cfg = get_config(config) if config else None
    if cfg is None or cfg.MODEL.META_ARCHITECTURE != "ImageClassifier":
        what = "is a detector, no network alone" if cfg else "is no network"
        listed = "; d2_isonet.hub.backbone.backbone_names() lists them"
        raise UserError(f"{name!r} {what}{nearest(name, backbone_names(), listed)}")
    return cfg


def _read_record(pretrained: str | os.PathLike) -> tuple[Mapping | None, int | None]:
    """The record in a weights file, and its number of classes if the file has it."""
    path = os.path.abspath(pretrained)
    if not os.path.isfile(path):
        raise MissingFileError(f"pretrained: there is no file {path}")
    content = read_tensors(path, device="meta")
    if not isinstance(content, Mapping):
        return None, None
    record, model = record_of(content), content.get("model", content)
    linear = model.get("linear.weight") if isinstance(model, Mapping) else None
    if isinstance(linear, torch.Tensor) and linear.dim() == 2:
        return record, len(linear)
    classes = (record or {}).get("num_classes")
    return record, classes if isinstance(classes, int) and classes > 0 else None


def _set_output_stride(cfg: CfgNode, name: str, output_stride: int | None) -> None:
    if output_stride is None:
        return
    is_resnet = cfg.MODEL.BACKBONE.NAME == "build_isonet_backbone"
    can_dilate = is_resnet and not cfg.MODEL.ISONET.SMALL_IMAGES
    if output_stride not in (16, 32) or not can_dilate:
        legal = "32 or 16" if can_dilate else "left out"
        raise UserError(f"output_stride is {output_stride}", f"for {name} it must be {legal}")
    cfg.MODEL.RESNETS.RES5_DILATION = 32 // output_stride


def _set_out_features(
    cfg: CfgNode, out_features: Sequence[str] | None, features_only: bool
) -> None:
    if out_features is not None and not features_only:
        raise UserError(f"out_features is {list(out_features)}", "it needs features_only=True")
    if out_features is None:
        last = cfg.MODEL.RESNETS.OUT_FEATURES[-1]
        out_features = STAGES[1 : STAGES.index(last) + 1]
    cfg.MODEL.RESNETS.OUT_FEATURES = list(out_features)
