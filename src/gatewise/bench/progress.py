"""What is said while something is measured: what it is, and what the libraries warn of."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def hearing(say: Callable[[str], None]) -> Iterator[None]:
    """Say in a line what the peers warn of, such as a slower path of theirs."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(str(warning.message) for warning in heard):
        say(f"warning  {' '.join(message.split('(Triggered')[0].split())}")


@contextmanager
def showing(text: str) -> Iterator[None]:
    """Show what is being measured where a terminal can take it back: nothing moves while the clock runs."""
    clear = "\r\x1b[2K" if sys.stderr.isatty() else ""
    if clear:
        print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(clear, end="", file=sys.stderr, flush=True)
