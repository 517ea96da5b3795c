#!/usr/bin/env python
"""Launcher of benchmarks/scaling_plan.py."""

import sys

if __name__ == "__main__":
    try:
        from benchmarks.scaling_plan import main

        sys.exit(main())
    except KeyboardInterrupt:
        print("scaling_plan: interrupted", file=sys.stderr)
        sys.exit(130)
