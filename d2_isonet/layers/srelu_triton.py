"""SReLU's backward on a GPU in one pass: reads output and gradient, writes the input's gradient.

Each block writes its sums for the shift; they are added afterwards, always in the same order.
"""

import torch
import triton
import triton.language as tl

_TILE = 2048  # entries per program


def srelu_backward(
    grad: torch.Tensor, y: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of max(x, b) for x, (N, C, H, W) like y, and for b, (C,) in float32.

    Args:
        grad: of the output, (N, C, H, W).
        y: the output, contiguous or channels_last.
        shift: b, C entries, in y's dtype.
    """
    channels_last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    y, grad = y.contiguous(memory_format=layout), grad.contiguous(memory_format=layout)
    grad_x = torch.empty_like(y)
    launch = _launch_channels_last if channels_last else _launch
    partial = launch(grad, y, shift.flatten(), grad_x)
    return grad_x, partial.sum(0)


def _launch(grad, y, shift, grad_x) -> torch.Tensor:
    images, channels = y.shape[:2]
    pixels = y[0, 0].numel()
    block = min(triton.next_power_of_2(pixels), _TILE)
    rows = min(_TILE // block, triton.next_power_of_2(images))
    grid = (channels, triton.cdiv(images, rows), triton.cdiv(pixels, block))
    partial = torch.empty(grid[1] * grid[2], channels, device=y.device)
    _backward[grid](grad, y, shift, grad_x, partial, images, channels, pixels, rows, block)
    return partial


def _launch_channels_last(grad, y, shift, grad_x) -> torch.Tensor:
    channels = y.shape[1]
    positions = y.numel() // channels
    width = min(triton.next_power_of_2(channels), 64)
    rows = _TILE // width
    grid = (triton.cdiv(positions, rows), triton.cdiv(channels, width))
    partial = torch.empty(grid[0], channels, device=y.device)
    _backward_channels_last[grid](grad, y, shift, grad_x, partial, positions, channels, rows, width)
    return partial


@triton.jit
def _backward(
    grad_pointer,
    y_pointer,
    shift_pointer,
    grad_x_pointer,
    partial_pointer,
    images,
    channels,
    pixels,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ROWS images x BLOCK pixels of one channel of (N, C, H W)."""
    channel = tl.program_id(0)
    image = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    pixel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = (image < images)[:, None] & (pixel < pixels)[None, :]
    row = (image.to(tl.int64) * channels + channel) * pixels
    place = row[:, None] + pixel[None, :]
    shift = tl.load(shift_pointer + channel).to(tl.float32)
    grad = tl.load(grad_pointer + place, mask=inside, other=0.0).to(tl.float32)
    clipped = tl.load(y_pointer + place, mask=inside, other=0.0).to(tl.float32) <= shift
    tl.store(grad_x_pointer + place, tl.where(clipped, 0.0, grad), mask=inside)
    rest = tl.where(clipped, grad, 0.0)
    block = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    tl.store(partial_pointer + block * channels + channel, tl.sum(tl.sum(rest, 1), 0))


@triton.jit
def _backward_channels_last(
    grad_pointer,
    y_pointer,
    shift_pointer,
    grad_x_pointer,
    partial_pointer,
    positions,
    channels,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """ROWS positions x WIDTH channels of (N H W, C)."""
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    within = channel < channels
    inside = (position < positions)[:, None] & within[None, :]
    place = position.to(tl.int64)[:, None] * channels + channel[None, :]
    shift = tl.load(shift_pointer + channel, mask=within, other=0.0).to(tl.float32)
    grad = tl.load(grad_pointer + place, mask=inside, other=0.0).to(tl.float32)
    clipped = tl.load(y_pointer + place, mask=inside, other=0.0).to(tl.float32) <= shift[None, :]
    tl.store(grad_x_pointer + place, tl.where(clipped, 0.0, grad), mask=inside)
    rest = tl.where(clipped, grad, 0.0)
    sums = partial_pointer + tl.program_id(0).to(tl.int64) * channels + channel
    tl.store(sums, tl.sum(rest, 0), mask=within)
