#!/usr/bin/env python
"""Launcher of prepare_cutouts in datasets/command.py."""

from launcher import RESTARTS, launch

if __name__ == "__main__":
    launch("datasets.command", "prepare_cutouts", RESTARTS)
