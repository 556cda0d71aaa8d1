"""What the figures of the bench have in common: panels side by side with a row for each name, and whiskers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from gatewise.drawing import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_panels(
    names: Collection[str], count: int, *, width: float, height: float, title: str
) -> tuple[Figure, Sequence[Axes]]:
    """Begin a figure of panels side by side.

    Parameters
    ----------
    names : collection of str
        Of the rows, which all panels share, at 0, 1, 2 …; they stand beside the first panel.
    count : int
        How many panels.
    width : float
        Inches of the figure.
    height : float
        Inches of a row; title and labels have room besides.
    title : str
        Above the figure.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure.
    panels : sequence of matplotlib.axes.Axes
        From left to right.

    Examples
    --------
    >>> figure, panels = new_panels(["peephole", "coupled"], 3, width=6, height=0.3, title="a machine")
    >>> [label.get_text() for label in panels[0].get_yticklabels()]
    ['peephole', 'coupled']
    """
    figure = new_figure(width, 2.2 + height * len(names))
    figure.suptitle(title, fontsize=10)
    panels: Sequence[Axes] = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    return figure, panels


def whiskers(values: Sequence[float], quartiles: Sequence[tuple[float, float]]) -> list[list[float]]:
    """Give the lengths of whiskers from values to their quartiles, as matplotlib's ``xerr`` takes them.

    Examples
    --------
    A value beyond a quartile has no whisker on that side:

    >>> whiskers([2.0, 3.0], [(1.5, 4.0), (3.25, 5.0)])
    [[0.5, 0.0], [2.0, 2.0]]
    """
    return [
        [max(0.0, value - low) for value, (low, _) in zip(values, quartiles, strict=True)],
        [max(0.0, high - value) for value, (_, high) in zip(values, quartiles, strict=True)],
    ]
