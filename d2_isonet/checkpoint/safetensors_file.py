"""Weights in the safetensors format, with their network's record in the file's metadata."""

import json
import os
from collections.abc import Mapping

import torch

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.files import parse_json, write_complete
from d2_isonet.utils.messages import UserError

SUFFIX = ".safetensors"
_KEY = "d2_isonet"  # of the metadata; the value is json with _RECORDED
_RECORDED = ("matching_heuristics", "meta")
_LONGEST_HEADER = 10_000_000  # bytes, for a hundred thousand tensors
_AGAIN = "copy or download it again"


def is_safetensors(path: str | os.PathLike) -> bool:
    """Whether the file has that format, or the name of one."""
    if os.fspath(path).endswith(SUFFIX):
        return True
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def safetensors_problem(path: str | os.PathLike) -> str | None:
    """Why the file cannot be read, such as "is truncated or damaged (...)"; None if it can."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        needed = "is in the safetensors format, and that package is not installed"
        return f"{needed}: pip install safetensors"
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEADER:
        return f"is truncated or damaged (its header would have {length / 1e6:.3g} MB): {_AGAIN}"
    try:
        with safe_open(path, framework="pt") as file:
            _record_in(file.metadata())
    except (SafetensorError, ValueError) as error:
        return f"is truncated or damaged ({error}): {_AGAIN}"
    return None


def _record_in(metadata: Mapping[str, str] | None) -> dict:
    """The metadata that `write_safetensors` has written; {} in another program's file."""
    record = parse_json((metadata or {}).get(_KEY, "{}"))
    if not isinstance(record, dict):
        raise UserError(f"its metadata {_KEY} is no record")
    return {key: record[key] for key in _RECORDED if key in record}


def read_safetensors(path: str | os.PathLike, device: str = "cpu") -> dict:
    """{"model": tensors by name}, and the record if `write_safetensors` has written the file.

    The device "meta" reads names and shapes alone.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        return {**_record_in(file.metadata()), "model": tensors}


def write_safetensors(path: str | os.PathLike, content: Mapping) -> None:
    """Write a checkpoint's "model" (tensors by name), "matching_heuristics" and "meta" alone.

    The file appears complete or not at all, see `write_complete`. Raises UserError if the package
    safetensors is not installed, and SaveError if there is no room or the file cannot be written.
    """
    require_packages("safetensors", needed_by=f"{path}: the format")
    from safetensors.torch import save

    record = {key: content[key] for key in _RECORDED if key in content}
    metadata = {"format": "pt", _KEY: json.dumps(record)}
    # contiguous copies that share no memory, as the format requires
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in content["model"].items()
    }
    write_complete(
        path, lambda file: file.write(save(tensors, metadata)), safetensors_problem, tensors
    )
