"""The learning rate at each step: a function of the step alone, so that nothing of it needs to be kept."""

import math
from collections.abc import Callable
from typing import Literal

ScheduleName = Literal["constant", "cosine", "one-cycle"]

WARM_UP = 0.3
"""The share of all steps in which one-cycle rises."""

FIRST, LAST = 1 / 25, 1e-4 / 25
"""Where one-cycle begins and ends, as shares of the learning rate."""


def constant(step: int, steps: int) -> float:
    """Stay."""
    return 1.0


def cosine(step: float, steps: float) -> float:
    """Fall to 0 along half a cosine (Loshchilov and Hutter 2017, equation 5, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def one_cycle(step: int, steps: int) -> float:
    """Rise from a 25th to 1, then fall to a 250,000th, each along half a cosine (after Smith and Topin 2018).

    The shape is that of torch's OneCycleLR as it comes, whose momentum stays here as it is: the last step has the
    lowest rate, and of very few steps none rises.
    """
    highest, last = WARM_UP * steps - 1, steps - 1
    if step <= highest:
        return FIRST + (1 - FIRST) * (1 - cosine(step, highest))
    return LAST + (1 - LAST) * cosine(step - highest, last - highest)


SHAPES: dict[ScheduleName, Callable[[int, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
}


def learning_rate(schedule: ScheduleName, highest: float, step: int, steps: int) -> float:
    """The learning rate of a step.

    Parameters
    ----------
    schedule : {"constant", "cosine", "one-cycle"}
        Its shape.
    highest : float
        Where the shape is 1.
    step : int
        Steps done before, from 0.
    steps : int
        All that there will be.

    Returns
    -------
    float
        At least 0.

    Examples
    --------
    >>> [learning_rate("cosine", 0.1, step, 4) for step in (0, 2, 4)]
    [0.1, 0.05, 0.0]
    """
    return highest * SHAPES[schedule](step, steps)
