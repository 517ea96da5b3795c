"""Weights in either format, torch.save's or safetensors: written, and turned into the other."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from .checkpoint_files import write_checkpoint
from .safetensors_file import SUFFIX, write_safetensors
from .weights_file import WeightsError, read_tensors

_KEPT = ("model", "matching_heuristics", "meta")
_SUFFIXES = (".pth", ".pt", SUFFIX)


def write_weights(path: str | os.PathLike, content: Mapping) -> None:
    """Write a checkpoint in the format of the file's name: .safetensors, else torch.save's."""
    write = write_safetensors if os.fspath(path).endswith(SUFFIX) else write_checkpoint
    write(path, content)


def change_format(source: str, target: str) -> tuple[int, list[str]]:
    """Write the weights of the file `source`, and the record of their network, to `target`.

    Returns:
        How many tensors, and what else `source` has, an optimizer for one, which is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: two names that tell of no format, or of one and the same.
        WeightsError: `source` is no weights file.
    """
    for path in (source, target):
        if not path.endswith(_SUFFIXES):
            raise ValueError(f"{path}: its name must end in one of {', '.join(_SUFFIXES)}")
    if source.endswith(SUFFIX) == target.endswith(SUFFIX):
        raise ValueError(f"{source} and {target} are of one format; end one of them in {SUFFIX}")
    if not os.path.isfile(source):
        raise FileNotFoundError(f"there is no file {os.path.abspath(source)}; name the weights")
    content = read_tensors(source)
    if not isinstance(content, Mapping) or not isinstance(content.get("model", {}), Mapping):
        raise WeightsError(f"{source} holds a {type(content).__name__}, no state_dict")
    if "model" not in content:
        content = {"model": content}
    others = [str(k) for k, x in content["model"].items() if not isinstance(x, torch.Tensor)]
    if others:
        raise WeightsError(f"{source} has entries that are no tensors: {', '.join(others[:5])}")
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write_weights(target, {key: content[key] for key in _KEPT if key in content})
    return len(content["model"]), sorted(set(map(str, content)) - set(_KEPT))
