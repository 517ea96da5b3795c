"""The meta record of a weights file: the network it belongs to, compared with a config."""

from collections.abc import Mapping

from detectron2.config import CfgNode

from d2_isonet.config.options import CNN9_BACKBONE
from d2_isonet.layers.decoupled_conv import WITH_BETA, WITH_RADIUS
from d2_isonet.modeling.backbone.checks import res2_out_channels

# Norms with the same tensors: pretrained BN is frozen or synchronized in detection.
_BATCH_NORMS = ("BN", "SyncBN", "FrozenBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
# The meaning of older records, which lack these keys.
_BEFORE = {"block": "residual", "small_images": False, "conv": "Conv2d", "norm_groups": 32}
_FROM_CONV2D = " (a training can start from it with MODEL.DECOUPLED.FROM_CONV2D True)"


def record_of(checkpoint: Mapping) -> Mapping | None:
    """The record in a checkpoint; None if there is none, or a "meta" of another program."""
    meta = checkpoint.get("meta")
    if not isinstance(meta, Mapping):
        return None
    sections = (meta.get(name) or {} for name in ("architecture", "input"))
    return meta if all(isinstance(section, Mapping) for section in sections) else None


def meta_differences(meta: Mapping, expected: Mapping, from_conv2d: bool = False) -> list[str]:
    """One line for every entry in which the file's `meta` differs from the config's record.

    A section that the file lacks, or a key that old files leave to the tensors, is no difference.

    Args:
        from_conv2d: accept ordinary convolutions in the file for decoupled ones.
    """
    lines = []
    for section in ("architecture", "input"):
        record = meta.get(section)
        if not record:
            continue
        for key, asked in expected[section].items():
            found = record.get(key, _BEFORE.get(key, asked))
            if key == "conv" and from_conv2d and found == "Conv2d":
                continue
            if _same(key, found, asked) or _unused(key, expected[section]):
                continue
            hint = _FROM_CONV2D if (found, asked) == ("Conv2d", "Decoupled") else ""
            lines.append(f"{section} {key}: {found!r} in the file, {asked!r} in the config{hint}")
    return lines


def _same(key: str, found, asked) -> bool:
    if key == "norm" and found in _BATCH_NORMS and asked in _BATCH_NORMS:
        return True
    if isinstance(asked, list):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(asked)
            and all(
                isinstance(a, int | float) and abs(a - b) < 1e-3
                for a, b in zip(found, asked, strict=True)
            )
        )
    return found == asked


def _unused(key: str, architecture: Mapping) -> bool:
    """Whether `key` changes nothing in this architecture."""
    if key == "residual_scale_shape":
        return not architecture["residual_scale"]
    is_basic = architecture.get("depth", 0) < 50 or architecture.get("small_images", False)
    return key in ("width_per_group", "stride_in_1x1") and is_basic


def convolutions_of(meta: Mapping | None) -> str:
    """MODEL.ISONET.CONV of the network that a record describes; "Conv2d" if there is no record."""
    return ((meta or {}).get("architecture") or {}).get("conv", _BEFORE["conv"])


def architecture(cfg: CfgNode) -> dict:
    """The entries of a record in which a weights file must agree with cfg, as plain types."""
    resnets, isonet = cfg.MODEL.RESNETS, cfg.MODEL.ISONET
    is_cnn9 = cfg.MODEL.BACKBONE.NAME == CNN9_BACKBONE
    return {
        "backbone": "cnn9" if is_cnn9 else "resnet",
        "norm": resnets.NORM,
        "activation": isonet.ACTIVATION,
        "stem_out_channels": resnets.STEM_OUT_CHANNELS,
        "conv": isonet.CONV,
        **({"norm_groups": isonet.NORM_GROUPS} if resnets.NORM == "GN" else {}),
        **(_decoupled_architecture(cfg) if isonet.CONV == "Decoupled" else {}),
        **({} if is_cnn9 else _resnet_architecture(cfg)),
    }


def _resnet_architecture(cfg: CfgNode) -> dict:
    """The entries that a CNN-9 lacks."""
    resnets, isonet = cfg.MODEL.RESNETS, cfg.MODEL.ISONET
    return {
        "depth": resnets.DEPTH,
        "shortcut": isonet.SHORTCUT,
        "residual_scale": isonet.RESIDUAL_SCALE is not None,
        "residual_scale_shape": isonet.RESIDUAL_SCALE_SHAPE,
        "res2_out_channels": res2_out_channels(cfg),
        "num_groups": resnets.NUM_GROUPS,
        "width_per_group": resnets.WIDTH_PER_GROUP,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
        "block": isonet.BLOCK,
        "small_images": isonet.SMALL_IMAGES,
    }


def _decoupled_architecture(cfg: CfgNode) -> dict:
    """Options that change the function or the tensor names; radii and a learned k are tensors."""
    decoupled = cfg.MODEL.DECOUPLED
    record = {
        "magnitude": decoupled.MAGNITUDE,
        "angular": decoupled.ANGULAR,
        "alpha": decoupled.ALPHA,
    }
    if decoupled.MAGNITUDE in WITH_BETA:
        record["beta"] = decoupled.BETA
    if decoupled.MAGNITUDE in WITH_RADIUS:
        record["radius_scaled"] = decoupled.RADIUS_SCALE != "none"
    if decoupled.ANGULAR == "sigmoid":
        learned = decoupled.SIGMOID_K_LEARNED
        record["sigmoid_k"] = "learned" if learned else decoupled.SIGMOID_K
    return record
