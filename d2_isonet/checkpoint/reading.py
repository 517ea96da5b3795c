"""Reads checkpoints that other programs wrote, without running code in them."""

import os
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence

import torch

from d2_isonet.utils.files import why_not_regular
from d2_isonet.utils.messages import MissingFileError, UserError, shortened

from .safetensors_file import is_safetensors, read_safetensors, safetensors_problem

# The pickled number that torch before 1.6, which ISONet's authors used, begins a file with.
_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_PICKLES = (".pkl", ".pickle")
_MOST_BYTES = 1 << 37
_AGAIN = "copy or download it again"


class WeightsError(UserError):
    """Weights cannot be read, or do not fit the model that loads them."""


def is_read_by_detectron2(path: str) -> bool:
    """Whether detectron2's own reader is needed: for its model zoo's pickles and pycls's .pyth."""
    return path.endswith((*_PICKLES, ".pyth"))


def what_is_wrong(path: str, trust_pickle: bool = False) -> str | None:
    """Why the file cannot be a checkpoint, found without loading its content; None if it may be.

    A .pkl file may be one only with `trust_pickle`.
    """
    is_pickle = path.endswith(_PICKLES)
    problem = _content_problem(path, is_pickle)
    if problem or not is_pickle or trust_pickle:
        return problem
    return (
        "is a pickle, which can run any code its author put in; give --trust-pickle if you trust "
        "its source, or convert it to .pth"
    )


def _content_problem(path: str, is_pickle: bool = False) -> str | None:
    """Why the file cannot be a checkpoint; with `is_pickle`, its format is not checked."""
    try:
        problem = why_not_regular(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    if problem:
        return f"cannot be read: {problem}"
    with open(path, "rb") as file:
        head = file.read(200)
    if not head:
        return "is empty (0 bytes): the copy or the download broke off"
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights: run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is an HTML page, not weights: the download needs a login or another address"
    if is_pickle:
        return None
    if is_safetensors(path):
        return safetensors_problem(path)
    if head.startswith(b"PK\x03\x04"):
        return _archive_problem(path)
    if not head.startswith(b"\x80"):
        return (
            f"is not a checkpoint of torch.save (it begins with {head[:16]!r}); name a .pth or "
            ".safetensors file"
        )
    return None if _LEGACY_MAGIC in head[:32] else (
        "is a bare pickle, which would run code while it loads; it was not opened. If you "
        "trust its source, load it yourself and save its tensors with torch.save"
    )  # fmt: skip


def _archive_problem(path: str) -> str | None:
    """Why a zip file is not what torch.save writes."""
    try:
        if not zipfile.is_zipfile(path):
            return f"is truncated (its archive has no end): {_AGAIN}"
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return f"is damaged ({error}): {_AGAIN}"
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript program; save the state_dict() of torch.jit.load(IN) instead"
    if not any(name.endswith("/data.pkl") for name in names):
        first = names[0] if names else "nothing"
        return f"is an archive of other files ({first}, ...); unpack it and name the .pt within it"
    declared, there = sum(entry.file_size for entry in entries), os.path.getsize(path)
    if declared > there:  # torch.save does not compress
        return (
            f"declares {declared / 1e6:.3g} MB in a file of {there / 1e6:.3g} MB (a zip bomb, or "
            f"damaged); it was not unpacked: {_AGAIN} from a source you trust"
        )
    return None


def unreadable(path: str, error: Exception) -> WeightsError:
    """The error for a file that `torch.load(weights_only=True)` refused with `error`."""
    is_refusal = isinstance(error, pickle.UnpicklingError)
    found = re.search(r"GLOBAL ([\w.]+)|(?:class|function) ([\w.]+\.\w+)", str(error))
    if not (is_refusal and found):
        reason = type(error).__name__ if is_refusal else str(error).partition("\n")[0]
        what = f"{path} is truncated or damaged ({reason or type(error).__name__})"
        return WeightsError(what, _AGAIN)
    name = (found[1] or found[2]).rstrip(".")
    if name.startswith("numpy."):
        return WeightsError(
            f"{path} holds numpy values ({name}), which are not read without running code",
            "save plain ones: tensors by torch.from_numpy(x), numbers by float(x)",
        )
    return WeightsError(
        f"{path} holds Python objects ({name}), which would run code while they load; it was not "
        "opened",
        "if you trust its source, save its tensors alone: "
        "torch.save(torch.load(IN, weights_only=False)['state_dict'], NEW)",
    )


def read_tensors(path: str, device: str = "cpu") -> object:
    """The content of a checkpoint file, of tensors and plain types only; no code in it is run.

    It is what torch.save was given; for a safetensors file see `read_safetensors`. The device
    "meta" reads names and shapes alone.

    Raises:
        WeightsError: empty, truncated, an HTML page, a git-lfs pointer, another format, or a file
            of more than tensors and plain types.
    """
    # a pickle's name decides nothing here, since no pickle is run
    problem = _content_problem(path)
    if problem:
        raise WeightsError(f"{path} {problem}")
    if is_safetensors(path):
        return read_safetensors(path, device)
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # unpickling broken bytes can raise nearly anything
        raise unreadable(path, error) from error
    problem = _why_too_large(content, os.path.getsize(path))
    if problem:
        raise WeightsError(f"{path} {problem}; it was not used", f"{_AGAIN} from its source")
    return content


_MOST_VALUES = 1_000_000  # beside the tensors
_DEEPEST = 100  # mappings and lists in each other


def _why_too_large(content: object, file_bytes: int) -> str:
    """Why the values of a checkpoint are more than its file can mean; "" if they are not.

    A pickle can name a list twice in each of thirty lists, and a tensor can repeat one number.
    """
    level, number, tensor_bytes = [content], 0, 0
    for _ in range(_DEEPEST):
        below: list = []
        for value in level:
            if isinstance(value, torch.Tensor):
                tensor_bytes += value.numel() * value.element_size()
            elif isinstance(value, int) and value.bit_length() > 64:
                return "holds a number that does not fit 64 bits"
            elif isinstance(value, Mapping | list | tuple | set):
                below += [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
            if number + len(below) > _MOST_VALUES:
                return f"stands for more than {_MOST_VALUES:,} values"
        level, number = below, number + len(below)
    if tensor_bytes > 8 * file_bytes + (1 << 20):
        gigabytes = tensor_bytes / 1e9
        return f"has tensors of {gigabytes:.3g} GB in a file of {file_bytes / 1e6:.3g} MB"
    return f"nests values more than {_DEEPEST} times" if level else ""


def tensors_of(
    path: str, content: object, remedy: str = "", keys: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """The mapping of names to tensors in `content`, bare or under one of `keys`; not a copy.

    Raises WeightsError if there is no such mapping, or it holds more than tensors.
    """
    key = next((k for k in keys if isinstance(content, dict) and k in content), None)
    tensors = content if key is None else content[key]  # type: ignore[index]
    if not isinstance(tensors, dict):
        raise WeightsError(f"{path} holds a {type(tensors).__name__}, no state_dict", remedy)
    others = [str(n) for n, x in tensors.items() if not hasattr(x, "shape") or n != str(n)]
    if others:
        raise WeightsError(f"{path} has entries that are no tensors: {shortened(others)}", remedy)
    return tensors


# Keys under which training programs save the weights: the authors' (net), timm's and PyTorch's
# examples (state_dict), torchvision's and detectron2's (model).
_WRAPPERS = ("net", "state_dict", "model")
# What DataParallel / DistributedDataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint: {"net": ...}, {"state_dict": ...}, {"model": ...} or bare.

    The prefixes of DataParallel and torch.compile are removed. No code in the file is run.
    Raises FileNotFoundError if there is no such file, and the errors of `read_tensors`.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path) or not os.path.exists(path):
        problem = "is a folder" if os.path.isdir(path) else "does not exist"
        raise MissingFileError(f"{path} {problem}; name the checkpoint to convert")
    remedy = f"give a state_dict, bare or under one of the keys {', '.join(_WRAPPERS)}"
    state_dict = tensors_of(path, read_tensors(path), remedy, _WRAPPERS)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state_dict):
            state_dict = {name.removeprefix(prefix): x for name, x in state_dict.items()}
    return state_dict
