#!/usr/bin/env python
"""Launcher of documents/command.py."""

from launcher import launch

if __name__ == "__main__":
    launch("documents.command")
