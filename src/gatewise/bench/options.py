"""What the command lines of benchmarks/ have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """Make a type for argparse: whole numbers from `least` on.

    Parameters
    ----------
    least : int
        The smallest that is taken.

    Returns
    -------
    callable
        Makes a number of a word; argparse turns what it raises into a line.

    Examples
    --------
    >>> at_least(1)("12")
    12
    >>> at_least(1)("0")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: given is '0', needed is a whole number from 1 on
    """

    def number(word: str) -> int:
        if word.isdecimal() and int(word) >= least:
            return int(word)
        raise argparse.ArgumentTypeError(f"given is {word!r}, needed is a whole number from {least} on")

    return number
