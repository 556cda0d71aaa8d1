"""What the figures of insight share: lines that differ in grey too, axes of steps, words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gatewise.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


SMALL = 8
"""Points of the smaller text."""


# Of the lines that have no colour of their own. Each has its line style and marker as well: a figure may be printed in
# grey.
LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": BLACK, "linestyle": ":", "marker": "D"},
    {"color": ORANGE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": PURPLE, "linestyle": (0, (8, 2)), "marker": "P"},
    {"color": SKY, "linestyle": (0, (2, 1)), "marker": "X"},
)


def as_array(tensor: Tensor) -> NDArray[np.float64]:
    """The numbers, as float64."""
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array


def plain(text: str) -> str:
    """A text that matplotlib takes neither for a formula nor, as it begins with _, for a line without a label."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.3g} %"


def steps(count: float) -> str:
    """A number of steps in words."""
    return "1 step" if count == 1 else f"{count:,.0f} steps"


def whole_numbers(axes: Axes) -> None:
    """Have whole numbers alone below the axes."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def span(axes: Axes, count: int) -> None:
    """Show steps 0 to count - 1, also where lines end before."""
    margin = max(0.5, 0.02 * count)
    axes.set_xlim(-margin, count - 1 + margin)
    whole_numbers(axes)


def draw_line(axes: Axes, values: NDArray[np.float64], place: int, **style: Any) -> Line2D:
    """A line over 0, 1, …, with about eight markers, not at the same steps as those of the lines at other places."""
    every = max(1, len(values) // 8)
    offset = place * every // len(LINES)
    looks: dict[str, Any] = {
        "linewidth": 1.4 if len(values) <= 200 else 1.0,
        "markersize": 4,
        "markevery": (offset, every),
    } | style
    (line,) = axes.plot(np.arange(len(values)), values, **looks)
    return line
