"""What a classifier takes samples for: the confusion matrix, and the worst mistakes, of images as pictures."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gatewise.drawing import BLUE, VERMILION, new_figure, save
from gatewise.train.progress import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Okabe and Ito's blue and vermilion, apart for the colour-blind.
RIGHT, WRONG = BLUE, VERMILION
SHOWN = 12
"""Mistakes that are listed, if there are as many."""

ACROSS = 3
"""Pictures in a row of the figure."""

NAME_WIDTH = 16
"""Characters of a class's name that a figure shows."""

ROOMY = 12
"""Classes up to which a cell has room for large numbers."""

NUMBERS_FIT = 40
"""Classes up to which a cell has room for any."""


@dataclass(frozen=True)
class Mistake:
    """A sample that was taken for another class than its own.

    Parameters
    ----------
    place : int
        Of the sample among those tested, from 0.
    truth, taken_for : str
        The name of its class, and of the one of the highest score.
    probability : float
        Of the class that it was taken for.
    loss : float
        The cross-entropy in nats: how little was left for its own class.
    file : str
        Where it has one of its own; or another name.
    """

    place: int
    truth: str
    taken_for: str
    probability: float
    loss: float
    file: str = ""

    def __str__(self) -> str:
        """A line for whoever looks for it."""
        which = self.file or f"test image {self.place}"
        return f"{which} is {self.truth}, taken for {self.taken_for} ({self.probability:.2%}), loss {self.loss:.4f}"


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What each sample of a set was taken for.

    Parameters
    ----------
    score : Score
        Of the whole set.
    truth : integer array, shape (N,)
        The class of each.
    log_scores : float32 array, shape (N, classes)
        The logarithm of the probability of each class.
    names : sequence of str
        What each class is called.
    pixels : float32 array, shape (N, rows, columns) or (N, rows, columns, 3), or None
        From 0 to 1, of images.
    files : sequence of str
        The file of each image, or another name; none where they have none of their own.
    kind : str, default "image"
        What a sample is.

    Examples
    --------
    >>> log_scores = np.log(np.array([[0.9, 0.1], [0.75, 0.25], [0.5, 0.5]], dtype=np.float32))
    >>> pixels = np.zeros((3, 8, 8), dtype=np.float32)
    >>> verdicts = Verdicts(Score(0.7, {}, 3, 0.1), np.array([0, 1, 0]), log_scores, ("cat", "dog"), pixels)
    >>> verdicts.confusion.tolist()
    [[2, 0], [1, 0]]
    >>> [(mistake.place, mistake.truth, mistake.taken_for, mistake.probability) for mistake in verdicts.worst(5)]
    [(1, 'dog', 'cat', 0.75)]
    """

    score: Score
    truth: NDArray[np.intp]
    log_scores: NDArray[np.float32]
    names: Sequence[str]
    pixels: NDArray[np.float32] | None
    files: Sequence[str] = ()
    kind: str = "image"

    @cached_property
    def taken_for(self) -> NDArray[np.intp]:
        """The class of the highest score of each sample, the first of equals."""
        taken_for: NDArray[np.intp] = self.log_scores.argmax(axis=1)
        return taken_for

    @property
    def confusion(self) -> NDArray[np.intp]:
        """How many samples of each class (rows) were taken for each class (columns)."""
        matrix = np.zeros((len(self.names), len(self.names)), dtype=np.intp)
        np.add.at(matrix, (self.truth, self.taken_for), 1)
        return matrix

    def worst(self, most: int) -> list[Mistake]:
        """The mistakes of the highest loss, the first of equals first."""
        losses = -self.log_scores[np.arange(len(self.truth)), self.truth]
        order = np.argsort(-losses, kind="stable")
        places = [int(place) for place in order if self.taken_for[place] != self.truth[place]][:most]
        return [
            Mistake(
                place,
                self.names[self.truth[place]],
                self.names[self.taken_for[place]],
                round(math.exp(self.log_scores[place].max()), 6),
                round(float(losses[place]), 6),
                self.files[place] if self.files else "",
            )
            for place in places
        ]

    def to_json(self) -> dict[str, Any]:
        """The names of the classes, the confusion matrix (rows are true classes), the worst mistakes."""
        return {
            "classes": list(self.names),
            "confusion": self.confusion.tolist(),
            "mistakes": [dataclasses.asdict(mistake) for mistake in self.worst(SHOWN)],
        }


def draw_mistakes(path: Path, verdicts: Verdicts, title: str) -> None:
    """Draw the confusion matrix and, of images, the worst mistakes.

    Parameters
    ----------
    path : path
        The file; its ending says which kind: .png, .pdf or .svg.
    verdicts : Verdicts
        What is drawn.
    title : str
        Above the figure.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mistakes.png"
    >>> log_scores = np.log(np.array([[0.9, 0.1], [0.75, 0.25]], dtype=np.float32))
    >>> pixels = np.zeros((2, 8, 8), dtype=np.float32)
    >>> verdicts = Verdicts(Score(0.7, {}, 2, 0.1), np.array([0, 1]), log_scores, ("cat", "dog"), pixels)
    >>> draw_mistakes(path, verdicts, title="cats and dogs")
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    classes = len(verdicts.names)
    side = min(15.0, max(5.5, 1.6 + (0.55 if classes <= ROOMY else 0.42) * classes))
    if verdicts.pixels is None:
        figure = new_figure(side, side + 0.6)
        figure.suptitle(title, fontsize=11)
        _draw_confusion(figure.subplots(), verdicts)
        save(figure, path)
        return
    figure = new_figure(side + 5.4, side + 0.6)
    figure.suptitle(title, fontsize=11)
    halves = figure.subfigures(1, 2, squeeze=False, width_ratios=(side, 5.4))
    _draw_confusion(halves[0, 0].subplots(), verdicts)
    _draw_worst(halves[0, 1], verdicts, verdicts.pixels, down=int(side / 1.75) + 1)
    save(figure, path)


def _draw_confusion(axes: "Axes", verdicts: Verdicts) -> None:
    matrix = verdicts.confusion
    classes = len(matrix)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    colours = _tints(shares)
    axes.imshow(colours, aspect="equal")
    size = 8 if classes <= ROOMY else 5.5
    for row, column in zip(*np.nonzero(matrix), strict=True) if classes <= NUMBERS_FIT else ():
        share = _percent(shares[row, column], roomy=classes <= ROOMY)
        dark = colours[row, column] @ (0.299, 0.587, 0.114) < 0.55
        text = f"{matrix[row, column]:,}\n{share}"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")
    names = [shortened(name) for name in verdicts.names]
    slanted = max(map(len, names)) > 3
    axes.set_xticks(range(classes), names, rotation=90 if slanted else 0, fontsize=size + 1)
    axes.set_yticks(range(classes), names, fontsize=size + 1)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="taken for", ylabel="true class")
    cells = "count and share of the true class: " if classes <= NUMBERS_FIT else ""
    axes.set_title(f"{cells}blue right, orange wrong, darker for a larger share", fontsize=8)


def _percent(share: float, roomy: bool) -> str:
    if roomy:
        return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.3g} %"
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _tints(shares: NDArray[Any]) -> NDArray[Any]:
    """White for none, the full colour for all of a class, shape (classes, classes, 3).

    The scale is the root of the share: a few mistakes among many samples are what is looked for.
    """
    from matplotlib.colors import to_rgb

    right = np.eye(len(shares), dtype=bool)[..., None]
    full = np.where(right, to_rgb(RIGHT), to_rgb(WRONG))
    tints: NDArray[Any] = 1 - np.sqrt(shares)[..., None] * (1 - full)
    return tints


def _draw_worst(figure: "SubFigure", verdicts: Verdicts, pixels: NDArray[np.float32], down: int) -> None:
    mistakes = verdicts.worst(down * ACROSS)
    wrong = int((verdicts.taken_for != verdicts.truth).sum())
    total = f"{wrong:,} of {len(verdicts.truth):,} images wrong"
    figure.suptitle(f"{total}; those of the highest loss" if mistakes else total, fontsize=8)
    if not mistakes:
        return
    grid = figure.subplots(down, ACROSS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, mistake in zip(grid.flat, mistakes, strict=False):
        axes.imshow(pixels[mistake.place], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        lines = f"is {shortened(mistake.truth)}", f"taken for {shortened(mistake.taken_for)}"
        axes.set_title("\n".join([*lines, f"with {100 * mistake.probability:.3g} %"]), fontsize=7, linespacing=1.15)


def shortened(name: str) -> str:
    """A class's name as far as there is room, with no character that a figure takes for a formula.

    The beginning and the end stay: it is there that the names of a set differ.

    Examples
    --------
    >>> shortened("class number 012"), shortened("great crested grebe"), shortened("cat")
    ('class number 012', 'great c…ed grebe', 'cat')
    """
    half = NAME_WIDTH // 2
    short = name if len(name) <= NAME_WIDTH else f"{name[: half - 1]}…{name[-half:]}"
    return short.replace("$", r"\$")
