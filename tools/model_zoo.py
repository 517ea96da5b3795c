#!/usr/bin/env python
"""Writes the tables of MODEL_ZOO.md; see reproduction/documents.py and `--help`."""

from launcher import launch

if __name__ == "__main__":
    launch("reproduction.documents")
