#!/usr/bin/env python
"""Launcher of prepare_cutouts in datasets/command.py."""

import sys

if __name__ == "__main__":
    try:
        from datasets.command import prepare_cutouts

        sys.exit(prepare_cutouts())
    except KeyboardInterrupt:
        print(
            "prepare_cutouts: interrupted; the same command starts again from the beginning",
            file=sys.stderr,
        )
        sys.exit(130)
