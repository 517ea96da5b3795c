"""Matrix products on a GPU as exact as the convolutions of the same training."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def products_as_exact_as_convolutions(device: torch.device) -> Iterator[None]:
    """Within: float32 products on a CUDA `device` in TF32 where cuDNN convolves in it.

    PyTorch lets convolutions use TF32 unless told otherwise, and products only when told to. On
    a CPU, and where TF32 is refused to convolutions too, nothing is changed.
    """
    matmul = torch.backends.cuda.matmul
    if device.type != "cuda" or _tf32(matmul) or not _tf32(torch.backends.cudnn):
        yield
        return
    before = getattr(matmul, "fp32_precision", None)  # unknown to torch 2.8 and older
    matmul.allow_tf32 = True  # the older switch: it keeps what both of them say alike
    try:
        yield
    finally:
        matmul.allow_tf32 = False
        if before is not None:
            matmul.fp32_precision = before


def _tf32(backend) -> bool:
    """Whether products (torch.backends.cuda.matmul) or convolutions (cudnn) may use it."""
    settings = getattr(backend, "conv", backend)
    if hasattr(settings, "fp32_precision"):
        return settings.fp32_precision == "tf32"
    return backend.allow_tf32
