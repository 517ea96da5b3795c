#!/usr/bin/env python
"""Reproduces tables of the papers; see reproduction/command.py and `--help`."""

import sys

from reproduction.command import main

if __name__ == "__main__":
    sys.exit(main())
