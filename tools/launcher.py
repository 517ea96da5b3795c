"""Runs a function of a package in this folder; Ctrl-C, also in its imports, ends in one line."""

import importlib
import sys
from pathlib import Path

RESTARTS = "; the same command starts again from the beginning"


def launch(module: str, function: str = "main", if_interrupted: str = "") -> None:
    """Call the function and exit with its code. Nothing slow is imported before."""
    try:
        sys.exit(getattr(importlib.import_module(module), function)())
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).stem}: interrupted{if_interrupted}", file=sys.stderr)
        sys.exit(130)
