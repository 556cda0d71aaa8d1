"""What the core's threads cost, and whether there are any."""

from __future__ import annotations

from gatewise import _core
from gatewise.errors import ArgumentError


def fork_join(threads: int, repeats: int = 1000) -> float:
    """Time an empty parallel region: what a call that is shared among threads costs at least.

    Parameters
    ----------
    threads
        How many threads begin and end together.
    repeats
        How often.

    Returns
    -------
    float
        Seconds of one, on average.

    Examples
    --------
    >>> 0 < fork_join(2) < 1
    True
    """
    if threads < 1 or repeats < 1:
        raise ArgumentError(f"threads is {threads} and repeats {repeats}, needed at least 1 of each")
    return _core.fork_join(threads, repeats)


def forked() -> bool:
    """Whether this process is the child of a fork, where every call runs on one thread.

    Such a child has none of its parent's threads, and OpenMP would wait for them for ever. The results are the same.

    Examples
    --------
    >>> forked()
    False
    """
    return _core.forked()
