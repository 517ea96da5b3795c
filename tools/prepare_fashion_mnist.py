#!/usr/bin/env python
"""Launcher of datasets/fashion_mnist.py."""

import sys

if __name__ == "__main__":
    try:
        from datasets.fashion_mnist import main

        sys.exit(main())
    except KeyboardInterrupt:
        print(
            "prepare_fashion_mnist: interrupted; the same command starts again from the beginning",
            file=sys.stderr,
        )
        sys.exit(130)
