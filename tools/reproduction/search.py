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


def tried(attempts: list[dict], rates: tuple[Rate, ...], seed: int) -> list[dict]:
    """The attempts with the first, second, ... of `rates`, up to one that was not tried or to the
    end of the search: what an earlier, other search has tried beyond does not count.
    """
    by_rate = {attempt["learning_rate"]: attempt for attempt in attempts}
    done: list[dict] = []
    for rate in itertools.takewhile(by_rate.__contains__, rates):
        if is_over(done, seed):
            break
        done.append(by_rate[rate])
    return done


def is_over(tried_ones: list[dict], seed: int) -> bool:
    """Seed 1 searches until a learning rate gives less than a larger one, others until one
    converges.
    """
    found = [accuracy(attempt) for attempt in tried_ones if attempt["converged"]]
    if seed > 1:
        return bool(found)
    return len(found) > 1 and found[-1] < max(found)


def left_to_try(attempts: list[dict], rates: tuple[Rate, ...], seed: int) -> tuple[Rate, ...]:
    """The rates that follow, the next first; none where the search has ended."""
    done = tried(attempts, rates, seed)
    return () if is_over(done, seed) else rates[len(done) :]


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
    """Whether the stored result has nothing left to try, and is that of the attempt that counts."""
    result = read_result(folders, cell, seed)
    if result is None:
        return False
    if lacks_weights(cell, seed, folders):
        return True
    rates = rates_of(cell, seed, folders)
    counting = best(tried(result["attempts"], rates, seed)).get("learning_rate")
    return result["learning_rate"] == counting and not left_to_try(result["attempts"], rates, seed)
