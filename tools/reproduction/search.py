"""The search for a learning rate: which ones a seed tries, which counts, when all is tried."""

import itertools

from .cells import Cell, Folders, read_result

Rate = float | None  # None: the config's own


def rates_of(cell: Cell, seed: int, folders: Folders) -> tuple[Rate, ...]:
    """What may be tried, descending: all for seed 1 (and where it was not run).

    For other seeds seed 1's best and, should they diverge, the smaller ones; the smallest alone
    where seed 1 found none.
    """
    rates: tuple[Rate, ...] = cell.learning_rates or (None,)
    first = read_result(folders, cell, 1) if seed > 1 else None
    if not first or rates == (None,):
        return rates
    best = first["learning_rate"] if first["measures"] else rates[-1]
    return tuple(rate for rate in rates if rate <= best)


def tried(attempts: list[dict], rates: tuple[Rate, ...]) -> list[dict]:
    """The attempts with the first, second, ... of `rates`, up to one that was not tried."""
    by_rate = {attempt["learning_rate"]: attempt for attempt in attempts}
    return [by_rate[rate] for rate in itertools.takewhile(by_rate.__contains__, rates)]


def is_over(tried_ones: list[dict], seed: int) -> bool:
    """Seed 1 searches until a learning rate gives less than a larger one, others until one
    converges.
    """
    found = [accuracy(attempt) for attempt in tried_ones if attempt["converged"]]
    if seed > 1:
        return bool(found)
    return len(found) > 1 and found[-1] < max(found)


def best(tried_ones: list[dict]) -> dict:
    """The attempt that counts; {} where none converged."""
    converged = (attempt for attempt in tried_ones if attempt["converged"])
    return max(converged, key=accuracy, default={})


def accuracy(attempt: dict) -> float:
    return attempt["measures"].get("top-1", 0.0)


def lacks_weights(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the training that it would start from has failed: there is nothing to try."""
    before = read_result(folders, cell.weights, seed) if cell.weights else None
    return before is not None and not before["measures"]


def is_complete(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the stored result has nothing left to try."""
    result = read_result(folders, cell, seed)
    if result is None:
        return False
    rates = rates_of(cell, seed, folders)
    done = tried(result["attempts"], rates)
    return lacks_weights(cell, seed, folders) or is_over(done, seed) or len(done) == len(rates)
