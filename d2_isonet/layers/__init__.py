"""Activations, convolutions, initialization, with explicit arguments. May import config, utils."""
