"""Translates tensor names of the ISONet authors, torchvision and timm."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from d2_isonet.utils.messages import shortened

from .reading import WeightsError


@dataclass(frozen=True)
class _Naming:
    """How another code base names the modules of this network.

    Args:
        block: pattern of a module inside a block: stage (1 is res2), block, and module.
        first_block: the number of the first block of a stage.
        outside, inside: their module to ours, outside the blocks and inside a block.
        leaves: their parameter to ours, if it differs.
    """

    source: str
    block: str
    first_block: int
    outside: Mapping[str, str]
    inside: Mapping[str, str]
    leaves: Mapping[str, str]

    def rename(self, name: str) -> str | None:
        """Our name of their tensor, None if it has no place in this network."""
        modules, leaf = name.rpartition(".")[::2]
        leaf = self.leaves.get(leaf, leaf)
        if modules in self.outside:
            return f"{self.outside[modules]}.{leaf}"
        found = re.fullmatch(self.block, modules)
        if not found or found[3] not in self.inside:
            return None
        ours = f"res{int(found[1]) + 1}.{int(found[2]) - self.first_block}"
        return ".".join(filter(None, (ours, self.inside[found[3]], leaf)))


_NAMINGS = {  # by the name of the stem's convolution
    "stem.conv.weight": _Naming(
        source="the authors' ISONet code",
        block=r"s(\d+)\.b(\d+)\.(.+)",
        first_block=1,
        outside={
            "stem.conv": "stem.conv1",
            "stem.bn": "stem.conv1.norm",
            "stem.relu": "stem.conv1.activation",
            "head.fc": "linear",
        },
        inside={
            **{f"f.{letter}": f"conv{i}" for i, letter in enumerate("abc", 1)},
            **{f"f.{letter}_bn": f"conv{i}.norm" for i, letter in enumerate("abc", 1)},
            **{f"f.{letter}_relu": f"conv{i}.activation" for i, letter in enumerate("ab", 1)},
            "f.shared_scalar": "",
            "proj": "shortcut",
            "bn": "shortcut.norm",
            "relu": "activation",
        },
        leaves={"srelu_bias": "shift", "scale": "residual_scale"},
    ),
    "conv1.weight": _Naming(
        source="torchvision or timm",
        block=r"layer(\d+)\.(\d+)\.(.+)",
        first_block=0,
        outside={"conv1": "stem.conv1", "bn1": "stem.conv1.norm", "fc": "linear"},
        inside={
            **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
            **{f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)},
            "downsample.0": "shortcut",
            "downsample.1": "shortcut.norm",
        },
        leaves={},
    ),
}
FOREIGN_STEMS = frozenset(_NAMINGS)  # a state dict with one of these names is of another project


def rename_tensors(path: str, state_dict: Mapping) -> tuple[dict[str, torch.Tensor], str]:
    """Every tensor under our name, and the source that the names indicate.

    Raises WeightsError if the names are unknown, or a tensor has no place in our network.
    """
    if "stem.conv1.weight" in state_dict:
        what = f"{path} already has this project's names"
        raise WeightsError(what, "give it as MODEL.WEIGHTS as it is")
    naming = next((n for stem, n in _NAMINGS.items() if stem in state_dict), None)
    if naming is None:
        raise WeightsError(
            f"{path} is no network of the ISONet authors, torchvision or timm that this converter "
            f"knows: it has neither {' nor '.join(_NAMINGS)}, but {shortened(list(state_dict))}"
        )
    names = {name: naming.rename(name) for name in state_dict}
    unknown = [name for name, ours in names.items() if ours is None]
    if unknown:
        raise WeightsError(
            f"{path} has {len(unknown)} tensors without a place in an ISONet or a plain ResNet: "
            f"{shortened(unknown)}",
            "variants with other stems, blocks or attention cannot be converted",
        )
    return {str(ours): state_dict[name] for name, ours in names.items()}, naming.source
