"""How the study notes time their own operator beside the built-in one."""

import statistics
import time
from collections.abc import Callable

CALLS, DROPPED = 100, 10


def mean_of_hundred(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Give the mean milliseconds of 100 calls one after another, of which the first 10 do not count.

    Parameters
    ----------
    call : callable
        What to time.
    clock : callable
        Tells the time in seconds.

    Examples
    --------
    >>> mean_of_hundred(lambda: None, clock=iter(range(200)).__next__)
    1000.0
    """
    times = []
    for _ in range(CALLS):
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.mean(times[DROPPED:]) * 1e3
