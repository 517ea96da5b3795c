#!/usr/bin/env python
"""Launcher of datasets/cutouts/command.py."""

import sys

if __name__ == "__main__":
    try:
        from datasets.cutouts.command import main

        sys.exit(main())
    except KeyboardInterrupt:
        print(
            "prepare_cutouts: interrupted; the same command starts again from the beginning",
            file=sys.stderr,
        )
        sys.exit(130)
