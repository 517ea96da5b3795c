"""Finds the first layer whose output or gradient is not finite for a batch."""

import contextlib
import functools
import re
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch import nn
from torch.utils._pytree import keystr, tree_flatten_with_path

from d2_isonet.engine.train_loop import AccumulatingTrainer, parts_of, total
from d2_isonet.modeling.stages import unwrapped


class _FirstFinding(Exception):
    """Ends the watched pass."""


def find_non_finite_layer(step: AccumulatingTrainer, batch: list) -> dict:
    """Repeat forward and backward of `batch` and return where they first go wrong.

    Weights, statistics and random numbers stay as they are. Dropout, mixup and region sampling draw
    new numbers, so a failure that depends on them may not occur again. There is no search if a
    forward waits for other processes (synchronized BN), which may end at other layers.

    Returns:
        "layer": its name in the model, "" for the model itself (its loss); "type": its class;
        "tensor": "output" or "gradient of the output", with its key if there are several;
        "last_finite": the previous layer with a finite output or gradient;
        "images": the files of the part with the failure. If the model raised an error, "raised" has
        its message instead of a layer. If all is finite, there is neither.
    """
    waits = any("SyncBatchNorm" in type(module).__name__ for module in step.model.modules())
    if waits and comm.get_world_size() > 1:
        return {"tensor": "not searched for (synchronized norms)", "images": image_files(batch)}
    for part in parts_of(batch, step.accumulate_steps):
        files = image_files(part)
        pixels = [x.get("image") if isinstance(x, dict) else x for x in part]
        spoilt = [file for file, x in zip(files, pixels, strict=True) if not _is_finite(x)]
        if spoilt:
            return {"layer": "input", "type": "image", "tensor": "pixels", "images": spoilt}
        found = _watched_pass(step, part)
        if found:
            return {**found, "images": files}
    return {"images": image_files(batch)}


def image_files(images: list) -> list[str]:
    """The file names of a batch; "" for an image without one."""
    return [str(x.get("file_name", "")) if isinstance(x, dict) else "" for x in images]


def _is_finite(x: object) -> bool:
    return not isinstance(x, torch.Tensor) or bool(torch.isfinite(x).all())


def _watched_pass(step: AccumulatingTrainer, part: list) -> dict:
    model = unwrapped(step.model)
    trained = [p for p in model.parameters() if p.requires_grad]
    devices = [p.device for p in trained[:1] if p.is_cuda]
    found: dict = {}
    with _kept_buffers(model), torch.random.fork_rng(devices), _watch(model, found):
        try:
            loss = step.scaled(total(step.losses(model, part)))
            torch.autograd.grad(loss, trained, allow_unused=True)
        except (FloatingPointError, AssertionError) as error:
            # detectron2 checks between layers; other assertions are reported as well
            return {"raised": str(error)}
    return found


@contextlib.contextmanager
def _watch(model: nn.Module, found: dict) -> Iterator[None]:
    """Describe the first tensor that is not finite in `found`, and end the pass there."""
    names = {module: name for name, module in model.named_modules()}
    last_finite = ""

    def look_at(x: torch.Tensor, module: nn.Module, kind: str, place: str) -> None:
        nonlocal last_finite
        if _is_finite(x):
            last_finite = names[module]
            return
        where = {"tensor": f"{kind} {place}".strip(), "last_finite": last_finite}
        found.update(layer=names[module], type=type(module).__name__, **where)
        raise _FirstFinding

    def after_forward(module: nn.Module, args: tuple, output) -> None:
        # detectron2's Conv2d convolves and then calls its norm and activation: a bad input of
        # theirs is the output of the module that contains them
        given = all(_is_finite(x) for _, x in _tensors(args))
        source = module if given else model.get_submodule(names[module].rpartition(".")[0])
        for place, x in _tensors(output):
            look_at(x, source, "output", place)
            if x.requires_grad:
                look = functools.partial(look_at, module=module, place=place)
                x.register_hook(functools.partial(look, kind="gradient of the output"))

    handles = [module.register_forward_hook(after_forward) for module in names]
    try:
        with torch.compiler.set_stance("force_eager"), contextlib.suppress(_FirstFinding):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output) -> Iterator[tuple[str, torch.Tensor]]:
    """Every floating tensor in nested dicts, lists and tuples, with its dotted keys."""
    for path, x in tree_flatten_with_path(output)[0]:
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            yield re.sub(r"\W+", ".", keystr(path)).strip("."), x


@contextlib.contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    """Restore all buffers, such as BN statistics, at the end."""
    kept = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), kept, strict=True):
                buffer.copy_(value)
