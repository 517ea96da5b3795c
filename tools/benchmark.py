#!/usr/bin/env python
"""Launcher of benchmarks/command.py."""

from launcher import launch

if __name__ == "__main__":
    launch("benchmarks.command")
