"""The messages that every command shares, and what it costs to import them."""

import subprocess
import sys

from scripts import ENVIRONMENT

INTERRUPTED_IMPORT = """
import os, signal, sys
from d2_isonet.utils.messages import quiet_interrupt
assert "torch" not in sys.modules and "detectron2" not in sys.modules
with quiet_interrupt():
    os.kill(os.getpid(), signal.SIGINT)  # as while torch is imported
    import torch
"""


def test_ctrl_c_during_the_imports_of_a_command_ends_in_one_line():
    command = [sys.executable, "-c", INTERRUPTED_IMPORT]
    end = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert (end.returncode, end.stderr) == (130, "interrupted\n")
