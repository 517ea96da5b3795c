"""Weights as the authors' code saves them, random, made from no code of ours."""

import torch

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def random_weights(kind: str, depth: int, num_classes: int = 10) -> dict:
    """A state dict with the names and shapes of the authors' code; `kind`: risonet or isonet."""
    weights = {}

    def conv(name, c_out, c_in, k):
        weights[f"{name}.weight"] = torch.randn(c_out, c_in, k, k) / (c_in * k * k) ** 0.5

    def srelu(name, channels):
        weights[f"{name}.srelu_bias"] = torch.randn(1, channels, 1, 1) * 0.3 - 1

    def block(name, c_in, width, c_out, projects):
        if projects:
            conv(f"{name}.proj", c_out, c_in, 1)
        sizes = [(1, width, c_in), (3, width, width), (1, c_out, width)]
        sizes = sizes if depth >= 50 else [(3, c_out, c_in), (3, c_out, c_out)]
        for letter, (k, to, of) in zip("abc", sizes, strict=False):
            conv(f"{name}.f.{letter}", to, of, k)
            if letter != "abc"[len(sizes) - 1]:
                srelu(f"{name}.f.{letter}_relu", to)
        if kind == "risonet":
            weights[f"{name}.f.shared_scalar.scale"] = torch.rand(1, 1, 1, 1) * 0.4 - 0.2
        srelu(f"{name}.relu", c_out)

    conv("stem.conv", 64, 3, 7)
    srelu("stem.relu", 64)
    c_in = 64
    for stage, number in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        c_out = width * 4 if depth >= 50 else width
        for index in range(1, number + 1):
            projects = kind == "risonet" and index == 1 and (c_in != c_out or stage > 0)
            block(f"s{stage + 1}.b{index}", c_in, width, c_out, projects)
            c_in = c_out
    weights["head.fc.weight"] = torch.randn(num_classes, c_in) / c_in**0.5
    weights["head.fc.bias"] = torch.randn(num_classes)
    return weights
