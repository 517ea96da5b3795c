#!/usr/bin/env python
"""Launcher of prepare_fashion_mnist in datasets/command.py."""

from launcher import RESTARTS, launch

if __name__ == "__main__":
    launch("datasets.command", "prepare_fashion_mnist", RESTARTS)
