#!/usr/bin/env python
"""Launcher of prepare_fashion_mnist in datasets/command.py."""

import sys

if __name__ == "__main__":
    try:
        from datasets.command import prepare_fashion_mnist

        sys.exit(prepare_fashion_mnist())
    except KeyboardInterrupt:
        print(
            "prepare_fashion_mnist: interrupted; the same command starts again from the beginning",
            file=sys.stderr,
        )
        sys.exit(130)
