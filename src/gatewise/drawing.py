"""What all figures share: the canvas, the axes' manner, and colours that are apart for the colour-blind."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from gatewise.errors import ArgumentError
from gatewise.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito (2008), "Color Universal Design". A figure has a second way to tell its lines apart
# (marker or line style), as it may be printed in grey.
BLACK, BLUE, VERMILION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)

ENDINGS = (".png", ".pdf", ".svg")
"""Of the files that a figure can be written to."""


def check_ending(path: Path) -> None:
    """Refuse a figure's name whose ending says no kind that can be drawn.

    Raises
    ------
    ArgumentError
        It ends otherwise.

    Examples
    --------
    >>> check_ending(Path("figure.jpg"))
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: figure is figure.jpg, needed is a name that ends in .png, .pdf, .svg: change it
    """
    if path.suffix.lower() not in ENDINGS:
        raise ArgumentError(f"figure is {path}, needed is a name that ends in {', '.join(ENDINGS)}: change it")


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, of so many inches, that no window and no pyplot knows of.

    Examples
    --------
    >>> new_figure(4, 3).get_size_inches().tolist()
    [4.0, 3.0]
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: "Axes") -> None:
    """A faint grid behind the lines, and no frame above and at the right.

    Examples
    --------
    >>> axes = new_figure(4, 3).subplots()
    >>> tidy(axes)
    >>> axes.spines["top"].get_visible()
    False
    """
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def as_png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG file.

    Examples
    --------
    >>> as_png(new_figure(2, 1))[1:4]
    b'PNG'
    """
    return _drawn(figure, "png")


def save(figure: "Figure", path: str | Path) -> None:
    """Write a figure to a file, whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What is drawn.
    path : path
        Its ending says which kind: .png, .pdf or .svg. A file that exists is replaced.

    Raises
    ------
    ArgumentError
        It ends otherwise.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "empty.svg"
    >>> save(new_figure(2, 1), path)
    >>> path.is_file()
    True
    """
    path = Path(path)
    check_ending(path)
    write_whole(path, _drawn(figure, path.suffix.lower().removeprefix(".")))


def _drawn(figure: "Figure", kind: str) -> bytes:
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name may be in a script that the font lacks: boxes
        figure.savefig(drawn, format=kind)
    return drawn.getvalue()
