#!/usr/bin/env python
"""Writes the tables of MODEL_ZOO.md; see reproduction/documents.py and `--help`."""

import sys

from reproduction.documents import main

if __name__ == "__main__":
    sys.exit(main())
