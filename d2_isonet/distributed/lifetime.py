"""How long processes live: loading ones outlive signals, the others end with their parent."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from .preemption import SIGNALS


def outlive_signals(_worker: int = 0) -> None:
    """Let a loading process (its worker_init_fn) be ended by its own training process alone.

    Schedulers and terminals signal all processes of a training. Without its loading processes it
    could not finish the step and save it.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS: at least what is sent to the process group
        os.setpgid(0, 0)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != parent:
        pass
    os._exit(0)


def with_loaders_that_outlive_signals(loader: Any) -> Any:
    """`loader`, whose loading processes `outlive_signals`; it may wrap a DataLoader."""
    inner = loader
    while not isinstance(inner, DataLoader) and hasattr(inner, "dataset"):
        inner = inner.dataset
    if isinstance(inner, DataLoader) and inner.worker_init_fn is not outlive_signals:
        inner.worker_init_fn = functools.partial(_prepare_worker, inner.worker_init_fn)
    return loader


def _prepare_worker(prepare: Callable[[int], None] | None, number: int) -> None:
    outlive_signals()
    if prepare is not None:
        prepare(number)


_SECONDS_TO_SAVE = 60.0  # that a process has if the one that started it has died


def end_with_parent() -> None:
    """Save and end this process if the one that started it dies, however that happens."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_SAVE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
