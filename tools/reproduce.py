#!/usr/bin/env python
"""Reproduces tables of the papers; see reproduction/command.py and `--help`."""

from launcher import launch

if __name__ == "__main__":
    launch("reproduction.command")
