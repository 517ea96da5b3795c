"""The state dict in a checkpoint that another program wrote."""

import os
from collections.abc import Mapping

import torch

from .weights_file import WeightsError, read_tensors

# Under which key training programs keep the weights: the authors' (net), timm's and PyTorch's
# examples (state_dict), torchvision's and detectron2's (model).
_WRAPPERS = ("net", "state_dict", "model")
# What DataParallel / DistributedDataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")


def _unwrap(path: str, content: object) -> dict[str, torch.Tensor]:
    """The one mapping of names to tensors in `content`, bare or under a usual key."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{path} holds a {type(content).__name__} without tensors; give a state_dict, bare or "
            f"under one of the keys {', '.join(_WRAPPERS)}"
        )
    others = [
        str(name)
        for name, value in content.items()
        if not isinstance(name, str) or not isinstance(value, torch.Tensor)
    ]
    if others:
        raise WeightsError(
            f"{path} has entries that are no tensors: {', '.join(others[:5])}; give a state_dict, "
            f"bare or under one of the keys {', '.join(_WRAPPERS)}"
        )
    return dict(content)


def read_state_dict(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint: {"net": ...}, {"state_dict": ...}, {"model": ...} or bare.

    The prefixes of DataParallel and torch.compile are taken off. No code in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: empty, truncated, an HTML page, a git-lfs pointer, another format, or a file
            of more than tensors and plain types.
    """
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        problem = "is a folder" if os.path.isdir(path) else "does not exist"
        raise FileNotFoundError(f"{path} {problem}; name the checkpoint to convert")
    state_dict = _unwrap(path, read_tensors(path))
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state_dict):
            state_dict = {name.removeprefix(prefix): x for name, x in state_dict.items()}
    return state_dict
