"""Tensor operations with explicit arguments: activations, convolutions, initialization.

May import config.options and utils.
"""
