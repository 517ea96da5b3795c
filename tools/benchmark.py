#!/usr/bin/env python
"""Launcher of benchmarks/command.py."""

import sys

if __name__ == "__main__":
    try:
        from benchmarks.command import main

        sys.exit(main())
    except KeyboardInterrupt:
        print("benchmark: interrupted", file=sys.stderr)
        sys.exit(130)
