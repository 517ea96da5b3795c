"""The ImageNet networks of this project in timm; importing this module registers them.

`timm.create_model("risonet50", num_classes=10, checkpoint_path="backbone.pth")`. Names of timm
itself (resnet18, resnet50, ...) remain timm's networks.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from d2_isonet.modeling.stages import STAGES
from d2_isonet.utils.messages import UserError

from .backbone import backbone, backbone_names
from .networks import Classifier, FeatureMaps, check_pooling

try:
    from timm.models import FeatureInfo, is_model, model_entrypoint, register_model
except ImportError as error:
    raise ImportError(
        "d2_isonet.hub.timm_models needs timm: pip install timm", name="timm"
    ) from error
_MAPS = STAGES[1:]  # timm's out_indices are 0 to 3


def timm_names() -> list[str]:
    """The networks that this module registers with timm."""
    names = [name for name in backbone_names() if "/" not in name]
    return [x for x in names if not is_model(x) or model_entrypoint(x).__module__ == __name__]


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """The function that timm.create_model calls for the network `name`."""

    def create(
        pretrained: bool = False,
        pretrained_cfg: str | Mapping | None = None,
        pretrained_cfg_overlay: Mapping | None = None,
        cache_dir: str | os.PathLike | None = None,
        *,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float | None = None,
        out_indices: Sequence[int] | int | None = None,
        **options,
    ) -> nn.Module:
        if in_chans != 3:
            raise UserError(f"in_chans is {in_chans}", f"{name} sees 3 channels")
        check_pooling(global_pool)
        if pretrained:
            options["pretrained"] = _file(name, pretrained_cfg, pretrained_cfg_overlay)
        if options.get("features_only"):
            options.pop("num_classes", None)
            options["out_features"] = _features(out_indices)
        model = backbone(name, **options)
        as_timms: Any = model  # gets attributes that only timm's models have
        as_timms.pretrained_cfg = as_timms.default_cfg = _description(name, model)
        if isinstance(model, FeatureMaps):
            as_timms.feature_info = FeatureInfo(model.feature_info, (*range(len(model.names)),))
        elif drop_rate is not None:
            model.dropout.p = drop_rate
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"configs/imagenet/{name}.yaml of d2_isonet, see `d2_isonet.backbone`."
    return create


def _file(name: str, pretrained_cfg: object, overlay: Mapping | None) -> str:
    """The weights file that pretrained=True loads."""
    given = pretrained_cfg if isinstance(pretrained_cfg, Mapping) else {}
    file = {**given, **(overlay or {})}.get("file")
    if not file:
        raise UserError(
            f"no weights of {name} are released, so pretrained=True has nothing to load",
            "give your own by checkpoint_path=FILE, or by pretrained_cfg_overlay={'file': FILE}",
        )
    return file


def _features(out_indices: Sequence[int] | int | None) -> list[str] | None:
    if out_indices is None:
        return None
    if isinstance(out_indices, int):  # the number of last maps, as in timm
        out_indices = range(-out_indices, 0)
    try:
        return [_MAPS[i] for i in out_indices]
    except IndexError as error:
        maps = f"the maps are 0 to {len(_MAPS) - 1}, {', '.join(_MAPS)}"
        raise UserError(f"out_indices is {list(out_indices)}", maps) from error


def _description(name: str, model: FeatureMaps | Classifier) -> dict:
    """timm's pretrained_cfg: preprocessing of images, and names of the first and last layer.

    Raises:
        UserError: the weights were trained on BGR images, which timm does not read.
    """
    pixels = model.pixels
    if pixels.format != "RGB":
        what = f"the weights of {name} see {pixels.format} images, timm reads RGB ones"
        raise UserError(what, "use d2_isonet.backbone and its pixels")
    is_classifier = isinstance(model, Classifier)
    head = {"num_classes": model.num_classes, "classifier": "linear"} if is_classifier else {}
    return {
        "architecture": name,
        "input_size": (3, pixels.crop_size, pixels.crop_size),
        "crop_pct": pixels.crop_size / pixels.resize,
        "interpolation": "bilinear",
        "mean": tuple(x / 255 for x in pixels.mean),
        "std": tuple(x / 255 for x in pixels.std),
        "first_conv": "backbone.stem.conv1",
        **head,
    }


for _name in timm_names():
    globals()[_name] = register_model(_entrypoint(_name))
