#!/usr/bin/env python
"""Launcher of benchmarks/scaling_plan.py."""

from launcher import launch

if __name__ == "__main__":
    launch("benchmarks.scaling_plan")
