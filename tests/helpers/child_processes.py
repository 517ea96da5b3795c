"""Runs in forks of this process, which start at once, and how they end."""

import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def fork(action: Callable[[], None], log: Path) -> int:
    """The id of a child of its own process group that does `action`, its output in a file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        logging.basicConfig(filename=log, force=True)  # under pytest handlers are elsewhere
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(child: int, status: int) -> int:
    """The exit code (negative for a signal), after the loading processes are gone too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def wait(child: int) -> int:
    return ended(child, os.waitpid(child, 0)[1])
