"""Where a module stands in a network: its stage, the trunk, C4's res5, the chain of blocks."""

from collections.abc import Iterator

from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone import Backbone
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STAGES = ("stem", "res2", "res3", "res4", "res5")
RES5 = "roi_heads.res5."  # the last stage of a C4 detector, before the names of its tensors
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_LISTS = (nn.Sequential, nn.ModuleList)


def unwrapped(model: nn.Module) -> nn.Module:
    """`model` without DistributedDataParallel or DataParallel around it."""
    wrappers = DistributedDataParallel | nn.DataParallel
    return model.module if isinstance(model, wrappers) else model


def trunk_of(model: nn.Module) -> tuple[str, nn.Module]:
    """(prefix of its names, module): model.backbone.bottom_up, model.backbone, or model itself."""
    prefix, trunk = "", model
    for part in ("backbone", "bottom_up"):
        if hasattr(trunk, part):
            prefix, trunk = f"{prefix}{part}.", getattr(trunk, part)
    return prefix, trunk


def res5_of(model: nn.Module) -> nn.Module | None:
    """model.roi_heads.res5, the last stage of a C4 detector; None in other models."""
    return getattr(getattr(model, "roi_heads", None), "res5", None)


def chain_of(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of the trunk and then those of roi_heads.res5, by their names in `model`."""
    prefix, trunk = trunk_of(model)
    blocks = {f"{prefix}{name}": block for name, block in blocks_of(trunk).items()}
    res5 = res5_of(model)
    if res5 is not None:
        blocks |= {f"{RES5}{name}": block for name, block in blocks_of(res5).items()}
    return blocks


def blocks_of(network: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a network by name: detectron2's or, if it has none, the items of its lists.

    In the second case a block is the largest module with parameters that holds no list
    (Sequential, ModuleList) of modules of several layers each.
    """
    blocks = {n: m for n, m in network.named_modules() if isinstance(m, CNNBlockBase)}
    return blocks or dict(_outermost_blocks(network, ""))


def _outermost_blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, _LISTS) or _holds_a_list_of_blocks(child):
            yield from _outermost_blocks(child, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()):
            yield f"{prefix}{name}", child


def _holds_a_list_of_blocks(module: nn.Module) -> bool:
    children = (x for part in module.modules() if isinstance(part, _LISTS) for x in part)
    return any(sum(isinstance(layer, _LAYERS) for layer in x.modules()) > 1 for x in children)


def deepest_feature(backbone: Backbone) -> str:
    """The output feature of the largest stride, the last of several."""
    strides = {name: shape.stride for name, shape in backbone.output_shape().items()}
    return [name for name, stride in strides.items() if stride == max(strides.values())][-1]


def stage_of(name: str) -> str:
    """The stage in a dotted name, or the name's first component if it contains no stage.

    "roi_heads.res5.0.conv1.weight" belongs to "res5", "roi_heads.box_head.fc1" to "roi_heads".
    """
    components = name.split(".")
    return next((part for part in components if part in STAGES), components[0])


def label_of(name: str) -> str:
    """A dotted name from its stage on: "res4.2" of "backbone.bottom_up.res4.2"."""
    stage = stage_of(name)
    return stage + name.partition(stage)[2] if stage in STAGES else name


def default_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Every nn.Conv2d of the trunk except `stem`, and of roi_heads.res5, by name in the model.

    The authors' code leaves the 7x7 stem out. An FPN contributes its bottom_up only: the lateral
    and output convolutions end in the detector's heads, not in a further layer of an isometric
    chain, and a lateral 2048 -> 256 has to drop most of its input.
    """
    model = unwrapped(model)
    prefix, _ = trunk_of(model)
    convs = {name: x for name, x in model.named_modules() if isinstance(x, nn.Conv2d)}
    stem = f"{prefix}stem."
    inside = (x for x in convs if x.startswith((prefix, RES5)) and not f"{x}.".startswith(stem))
    return {name: convs[name] for name in inside}
