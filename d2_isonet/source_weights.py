"""Checkpoints others wrote: recognized by their first bytes, read without running their code."""

import os
import pickle
import re
import zipfile
from collections.abc import Mapping

import torch

from .checkpoint import WeightsError, what_is_wrong

# Under which key training programs keep the weights: the authors' (net), timm's and PyTorch's
# examples (state_dict), torchvision's and detectron2's (model).
_WRAPPERS = ("net", "state_dict", "model")
# What DataParallel / DistributedDataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")
# The pickled number that torch before 1.6, which the authors used, begins a file with.
_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def _container_problem(path: str) -> str | None:
    """Why the file is not in one of torch.save's two formats; None if it is."""
    with open(path, "rb") as file:
        head = file.read(32)
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            return "is truncated (its archive has no end): copy or download it again"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return "is a TorchScript program; save the state_dict() of torch.jit.load(IN) instead"
        if not any(name.endswith("/data.pkl") for name in names):
            return f"is an archive of other files ({names[0]}, ...); unpack it, name the .pt within"
        return None
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(path):
        return (
            "is in the safetensors format; rewrite it with torch.save("
            "safetensors.torch.load_file('IN.safetensors'), 'IN.pt')"
        )
    if head.startswith(b"\x80") and _LEGACY_MAGIC not in head:
        return (
            "is a bare pickle, which would run code while it loads; it was not opened. Where you "
            "trust its source, load it yourself and save its tensors with torch.save"
        )
    if not head.startswith(b"\x80"):
        return (
            f"is not a checkpoint of torch.save (it begins with {head[:16]!r}); name the .pt file"
        )
    return None


def _load(path: str) -> object:
    """The content of a torch.save file, of tensors and plain types only; nothing else is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+\w) w", str(error))
        if found is None:
            raise WeightsError(
                f"{path} is truncated or damaged: copy or download it again"
            ) from error
        raise WeightsError(
            f"{path} holds Python objects ({found[1]}), which would run code while they load; it "
            "was not opened. Where you trust its source, save its tensors alone: "
            "torch.save(torch.load(IN, weights_only=False)['state_dict'], NEW)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path} is truncated or damaged ({reason}): copy or download it again"
        ) from error


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
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
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
    # trust_pickle: a pickle's name decides nothing here, since _load never runs one
    problem = what_is_wrong(path, trust_pickle=True) or _container_problem(path)
    if problem:
        raise WeightsError(f"{path} {problem}")
    state_dict = _unwrap(path, _load(path))
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state_dict):
            state_dict = {name.removeprefix(prefix): x for name, x in state_dict.items()}
    return state_dict
