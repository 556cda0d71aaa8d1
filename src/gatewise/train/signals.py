"""Ctrl-C and SIGTERM: what is under way ends in its own time."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def heard(stop: Callable[[int], None]) -> Iterator[Callable[[], int]]:
    """Have Ctrl-C and SIGTERM call a function instead of ending the process; a second Ctrl-C interrupts at once.

    Parameters
    ----------
    stop : callable
        Takes the number of each signal.

    Yields
    ------
    callable
        Tells which signal came first; 0 if none did. Outside of the main thread, the only one that Python lets hear
        signals, none ever does.

    Examples
    --------
    >>> came = []
    >>> with heard(came.append) as first:
    ...     signal.raise_signal(signal.SIGTERM)
    >>> came == [signal.SIGTERM], first() == signal.SIGTERM
    (True, True)
    """
    came: list[int] = []

    def hear(number: int, frame: object) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)
        stop(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
