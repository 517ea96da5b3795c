"""Convolutions as dense matrices on circular images."""

import math

import torch
import torch.nn.functional as F


def pair(value):
    return (value, value) if isinstance(value, int) else value


def operator_matrix(weight, stride, dilation, groups):
    """The dense matrix of the layer on a circular image, and (H / Sh) (W / Sw)."""
    kernel, stride, dilation = weight.shape[2:], pair(stride), pair(dilation)
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    # Two filters overlap within one reach of each other: more than two reaches do not wrap.
    size = [s * math.ceil((2 * r + 1) / s) for r, s in zip(reach, stride, strict=True)]
    inputs = weight.shape[1] * groups * math.prod(size)
    images = torch.eye(inputs, dtype=weight.dtype).reshape(inputs, -1, *size)
    images = torch.cat([images, images[:, :, : reach[0]]], 2)
    images = torch.cat([images, images[:, :, :, : reach[1]]], 3)
    outputs = F.conv2d(images, weight, stride=stride, dilation=dilation, groups=groups)
    return outputs.flatten(1).T, math.prod(outputs.shape[2:])
