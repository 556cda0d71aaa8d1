"""What the reports of all kinds of tasks share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gatewise.insight.gradient_flow import GradientFlow
from gatewise.insight.report.page import Section

SEQUENCES = 8
"""Sequences whose gates are shown, at most."""

LONGEST = 40
"""Characters of the name of what is given, in a list to choose from."""

TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""The characters that turn writing round: with them a name reads as another."""

FLOW_BATCH = 64
"""Test samples on which the gradient is followed, at most."""

FLOW_NUMBERS = 2_000_000
"""Steps times units times samples of a layer, at most: the gradient's paths take about 80 bytes for each."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What a kind of task has to show of a run.

    Parameters
    ----------
    result : str
        In a sentence.
    unit : str
        What the loss is measured in.
    score, samples, sequences, mistakes, verdicts
        As of `gatewise.experiments.inspection.report.Inspection`.
    sections : sequence of Section
        Between the curves and the gradient.
    flow : GradientFlow
        Of the task's loss on some test samples.
    followed : str
        Which those are.
    """

    result: str
    unit: str
    score: Mapping[str, float]
    samples: int
    sequences: Sequence[Mapping[str, Any]]
    mistakes: Sequence[Mapping[str, Any]]
    verdicts: Sequence[str]
    sections: Sequence[Section]
    flow: GradientFlow
    followed: str


def most_followed(model: nn.Module, steps: int, samples: int) -> int:
    """On how many of some samples of so many steps the gradient is followed."""
    widest = max(module.hidden_size for module in model.modules() if isinstance(module, nn.RNNBase))
    return min(FLOW_BATCH, samples, max(1, FLOW_NUMBERS // (steps * widest)))


def visible(name: str) -> str:
    r"""A name in which the characters that turn the direction of writing round stand as what they are.

    Examples
    --------
    >>> print(visible("cat\u202egnp.jpg"))
    cat\u202egnp.jpg
    """
    return name.translate({place: f"\\u{place:04x}" for place in TURNING})


def short(name: str) -> str:
    """A name as it stands in a list to choose from; below the list it is whole.

    Examples
    --------
    >>> len(short(50 * "a"))
    40
    """
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
