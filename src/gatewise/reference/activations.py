"""What a pre-activation goes through, each with its slope, which follows from the value alone.

The numbers in the comments are the equations of docs/equations.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gatewise.reference.step import Array, sigmoid


class Activation(NamedTuple):
    """A function entry by entry.

    Attributes
    ----------
    value : callable
        Of the pre-activation.
    slope : callable
        The factor between the gradients of the pre-activation and of the value, from the value.
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def _hard_sigmoid(a: Array) -> Array:
    return np.clip(a / 6 + 0.5, 0, 1)  # (7.1)


def _hard_sigmoid_slope(s: Array) -> Array:
    return np.where((s > 0) & (s < 1), 1 / 6, 0)  # (7.1)


GATES = {
    "sigmoid": Activation(sigmoid, lambda s: s * (1 - s)),
    "hardsigmoid": Activation(_hard_sigmoid, _hard_sigmoid_slope),
    "step": Activation(lambda a: np.where(a > 0, 1.0, 0.0), np.ones_like),  # (7.2), (7.3)
}
"""What gates may go through, by name."""

SQUASHES = {
    "tanh": Activation(np.tanh, lambda y: 1 - y**2),
    "linear": Activation(np.copy, np.ones_like),  # (7.4)
}
"""What the candidate and the cell state may go through, by name."""
