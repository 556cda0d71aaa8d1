"""Compare before timing: what a peer gives must be what torch.nn.LSTM gives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gatewise.errors import GatewiseError


class PeerError(GatewiseError, ArithmeticError):
    """A peer computed something else than torch.nn.LSTM, and was not timed."""


def tolerance(dtype: torch.dtype) -> float:
    """Give the largest difference that rounding excuses, as a share of a tensor's largest number: 2√ε, half the digits.

    Swapped gates, a lost bias or an output of the wrong step are off by far more in float32. In bfloat16, where
    torch.nn.LSTM itself is off by 0.08 after training over 1,000 steps, a lost bias of a wide layer can hide in it: it
    is the plain form, in float32, that shows one.

    Examples
    --------
    >>> tolerance(torch.float32) < 7e-4, tolerance(torch.bfloat16) < 0.18
    (True, True)
    """
    return 2 * math.sqrt(torch.finfo(dtype).eps)


def difference(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[str, float]:
    """Find the result that differs most, and by how much.

    Parameters
    ----------
    expected, given : mapping of str to Tensor
        The results by name.

    Returns
    -------
    name : str
        Of the result.
    error : float
        The largest difference as a share of the largest number expected; infinite where a result is missing, has
        another shape or holds what is no number.

    Examples
    --------
    >>> difference({"output": torch.tensor([1.0, 4.0])}, {"output": torch.tensor([1.0, 5.0])})
    ('output', 0.25)
    """
    errors = dict.fromkeys(expected.keys() ^ given.keys(), math.inf)
    for name in expected.keys() & given.keys():
        a, b = expected[name].detach().double(), given[name].detach().double()
        if a.shape != b.shape:
            errors[name] = math.inf
            continue
        scale = a.abs().max().clamp_min(1e-30)
        error = float((a - b).abs().max() / scale)
        errors[name] = error if math.isfinite(error) else math.inf
    return max(errors.items(), key=lambda item: item[1])


def disagreement(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[str, float]:
    """Say where results differ by more than rounding excuses.

    Parameters
    ----------
    expected, given : mapping of str to Tensor
        The results by name.
    dtype : torch.dtype
        What was computed in.

    Returns
    -------
    what : str
        Which result is off and by how much; empty if none is.
    error : float
        The largest difference as a share of the largest number expected.

    Examples
    --------
    >>> disagreement({"h_n": torch.ones(2)}, {"h_n": torch.tensor([1.0, 1.5])}, torch.float32)
    ('h_n is off by 5.0e-01 of its largest number, 6.9e-04 is allowed', 0.5)
    """
    name, error = difference(expected, given)
    allowed = tolerance(dtype)
    if error <= allowed:
        return "", error
    return f"{name} is off by {error:.1e} of its largest number, {allowed:.1e} is allowed", error
