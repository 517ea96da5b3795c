"""Finds the networks in a checkpoint of another program, whatever they are wrapped in."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from d2_isonet.utils.messages import shortened

from .reading import WeightsError

Tensors = Mapping[str, torch.Tensor]
_SEQUENTIAL = {
    "0": "conv1",
    "1": "bn1",
    "9": "fc",
    **{str(i + 3): f"layer{i}" for i in (1, 2, 3, 4)},
}
# The stem's convolution, how the first stage begins, and what the parts of nn.Sequential are.
_MARKS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("conv1.weight", "layer1.", {}),
    ("stem.conv.weight", "s1.", {}),
    ("0.weight", "4.0.", _SEQUENTIAL),
)
# What marks one of several networks as the one meant for evaluation, or as another one.
_EVALUATED = r"(?<![a-z])(ema|averaged?|avg|swa|teacher)(?![a-z])"
_NOT_EVALUATED = r"(?<![a-z])(momentum|target|encoder_k|key|student|current_model)(?![a-z])"
_CONTRASTIVE = r"(?<![a-z])(encoder_[qk]|base_encoder|momentum|online|target)(?![a-z])"
_CLASSIFIERS = ("fc", "head.fc", "head", "classifier", "linear", "cls_head.fc")
_BESIDE = re.compile(  # tensors that a backbone does without
    r"(fc|heads?|cls_head|classifier|linear|proj\w*|pred\w*|prototypes?|queue\w*|mlp|neck|center|"
    r"contrast\w*|criterion|loss\w*|memory\w*|n_averaged)(\.|$)"
)


class Network(NamedTuple):
    """A network in a file: how its tensors' names begin there ("." for nothing), and its tensors.

    Args:
        left_out: the names of tensors beside it, such as a projection.
        others: the places of the file's other networks.
    """

    place: str
    tensors: dict[str, torch.Tensor]
    left_out: list[str]
    others: list[str]


def flattened(content: object, place: str = "") -> dict[str, torch.Tensor]:
    """Every tensor in nested mappings and modules, by the keys and names on the way to it."""
    content = content.state_dict() if hasattr(content, "state_dict") else content
    if type(content).__module__ == "numpy" and hasattr(content, "dtype"):
        content = torch.as_tensor(content)
    if isinstance(content, torch.Tensor):
        return {place[:-1]: content}
    items = content.items() if isinstance(content, Mapping) else ()
    parts = [flattened(x, f"{place}{key}.") for key, x in items if isinstance(key, str)]
    return {name: tensor for part in parts for name, tensor in part.items()}


def network_prefixes(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """How the names of each network begin, and what the parts of its nn.Sequential are."""
    found = {}
    for name in (names := list(names)):
        for stem, stage, parts in _MARKS:
            prefix = name[: -len(stem)]
            if name == prefix + stem and prefix[-1:] in ("", "."):
                if any(other.startswith(prefix + stage) for other in names):
                    found[prefix] = parts
    return found


def find_network(path: str, content: object, asked: str | None = None) -> Network:
    """The network of `content` that is meant for evaluation, or the one at the place `asked`.

    Without a known network, it has all tensors.

    Raises WeightsError if it holds several networks and nothing says which one is meant.
    """
    tensors = flattened(content)
    prefixes = network_prefixes(tensors) or {"": {}}
    places = {prefix.removesuffix(".") or ".": prefix for prefix in prefixes}
    place = asked or _meant(path, tensors, places)
    if place not in places:
        remedy = f"give one of {', '.join(places)}"
        raise WeightsError(f"--network {place}: {path} has no such network", remedy)
    prefix = places[place]
    inner = tuple(x for x in prefixes if x != prefix and x.startswith(prefix))
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not (inner and name.startswith(inner))
    }
    for part, name in prefixes[prefix].items():
        own = {re.sub(rf"^{part}\.", f"{name}.", k): x for k, x in own.items()}
    own |= _classifier(own, tensors, prefix)
    if re.search(_CONTRASTIVE, place):  # its fc is a projection
        own = {f"projection.{k}" if k.startswith("fc.") else k: x for k, x in own.items()}
    kept = {"fc.weight", "fc.bias", "head.fc.weight", "head.fc.bias"}
    beside = [name for name in own if _BESIDE.match(name) and name not in kept]
    others = [x for x in places if x != place]
    return Network(place, {k: x for k, x in own.items() if k not in beside}, beside, others)


def _meant(path: str, tensors: Tensors, places: Mapping[str, str]) -> str:
    marks = {x: bool(re.search(_EVALUATED, x)) - bool(re.search(_NOT_EVALUATED, x)) for x in places}
    best = [x for x in places if marks[x] == max(marks.values())]
    if len(best) > 1 and not _are_equal(tensors, [places[x] for x in best]):
        what = f"{path} holds {len(best)} networks: {shortened(best, most=20)}"
        raise WeightsError(what, f"add --network {best[0]}, or another of them")
    return best[0]


def _are_equal(tensors: Tensors, prefixes: Iterable[str]) -> bool:
    first, *others = (
        {k.removeprefix(p): x for k, x in tensors.items() if k.startswith(p)} for p in prefixes
    )
    return all(
        first.keys() == other.keys() and all(torch.equal(x, other[k]) for k, x in first.items())
        for other in others
    )


def _classifier(own: Tensors, tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """The classifier under the name that goes with the backbone's; {} if it has it, or none."""
    name = "head.fc" if "stem.conv.weight" in own else "fc"
    width = max((len(x) for x in own.values() if x.dim() == 4), default=0)
    above = prefix.removesuffix(".").rpartition(".")[0]
    bases = dict.fromkeys([prefix, f"{above}." if above else ""])
    for head in (f"{base}{x}" for base in bases for x in _CLASSIFIERS):
        weight, bias = (tensors.get(f"{head}.{part}") for part in ("weight", "bias"))
        if f"{name}.weight" in own or f"{name}.bias" in own:
            break
        if weight is not None and bias is not None and weight.shape[1:] == (width,):
            return {f"{name}.weight": weight, f"{name}.bias": bias}
    return {}
