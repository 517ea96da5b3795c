#!/usr/bin/env python
"""The same as `d2-isonet train-lazy`."""

from d2_isonet.__main__ import run_script

if __name__ == "__main__":
    run_script("train-lazy")
