"""The page of a report: what it may consist of, and how it becomes one HTML file.

Whatever comes from data, file names or settings is text and stays text: the template escapes all it is given, the
charts' numbers stand as JSON in which no character can end the script element, and the page's Content-Security-Policy
lets run only the scripts that are named there by their hash, and fetch nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).parent

# What could end a script element or begin a tag in it, and what older JavaScript takes for the end of a line.
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Parameters
    ----------
    text : str
        What it says.
    """

    kind: ClassVar = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A table.

    Parameters
    ----------
    caption : str
        What it shows.
    columns : sequence of str
        Their heads. The first column names the row.
    rows : sequence of sequences of str
        As many each as there are columns.
    numbers : collection of str, default: none
        The columns that are set to the right.
    """

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()


@dataclass(frozen=True)
class Card:
    """A sample to look at: a picture, or what stands for one.

    Parameters
    ----------
    lines : sequence of str
        What is said of it; the first is its name.
    picture : bytes, default: none
        A PNG file.
    alt : str, default: none
        What the picture shows, for whoever does not see it.
    text : str, default: none
        In place of a picture.
    """

    kind: ClassVar = "card"
    lines: Sequence[str]
    picture: bytes = b""
    alt: str = ""
    text: str = ""

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.picture).decode()}"


@dataclass(frozen=True)
class Cards:
    """Samples side by side.

    Parameters
    ----------
    cards : sequence of Card
        In this order.
    """

    kind: ClassVar = "cards"
    cards: Sequence[Card]


@dataclass(frozen=True, eq=False)
class Rows:
    """Numbers that charts draw; charts that draw the same share them.

    Parameters
    ----------
    name : str
        Of its own in the page.
    rows : list of dict
        Of JSON's types.
    """

    name: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart.

    Parameters
    ----------
    title : str
        Above it.
    caption : str
        Below it: how to read it.
    spec : dict
        Of Vega-Lite, with the data named "rows", and parameters for what can be chosen.
    data : sequence of Rows
        What the data are, one after the other.
    dense : bool, default False
        Whether it has so many marks that it is drawn as a bitmap; others can be enlarged and printed without blur.
    picks : (str, str) or None, default None
        A parameter, and the field of what is clicked at that it is set to.
    """

    kind: ClassVar = "chart"
    title: str
    caption: str
    spec: dict[str, Any]
    data: Sequence[Rows]
    dense: bool = False
    picks: tuple[str, str] | None = None


@dataclass(frozen=True)
class Charts:
    """Charts side by side, as far as there is room.

    Parameters
    ----------
    charts : sequence of Chart
        In this order.
    """

    kind: ClassVar = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Choice:
    """A list to choose from.

    Parameters
    ----------
    parameter : str
        Of the charts, is set to the number of what is chosen.
    label : str
        What is chosen.
    options : sequence of (int, str)
        The numbers, and what they are called.
    """

    parameter: str
    label: str
    options: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class When:
    """A block that is seen only while something is chosen.

    Parameters
    ----------
    parameter, value : str, int
        What.
    block
        Seen then.
    """

    kind: ClassVar = "when"
    parameter: str
    value: int
    block: Any


@dataclass(frozen=True)
class Chosen:
    """Lists to choose from, and blocks that they change.

    Parameters
    ----------
    choices : sequence of Choice
        Above the blocks.
    blocks : sequence
        Of any kind but this one.
    """

    kind: ClassVar = "chosen"
    choices: Sequence[Choice]
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Folded:
    """Blocks without charts that are opened by a click.

    Parameters
    ----------
    summary : str
        What is within.
    blocks : sequence
        Of any kind but those with charts, which would not know their width.
    """

    kind: ClassVar = "folded"
    summary: str
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    title : str
        Its heading.
    blocks : sequence
        Of any kind.
    """

    title: str
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Parameters
    ----------
    title : str
        Its heading.
    lead : sequence of str
        The paragraphs below that.
    sections : sequence of Section
        In this order.

    Examples
    --------
    >>> page = Page("runs/<one>", ["It is right."], [Section("Settings", [Text("a & b")])])
    >>> content = render(page).decode()
    >>> "<h1>runs/&lt;one&gt;</h1>" in content, "a &amp; b" in content
    (True, True)
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]


def render(page: Page) -> bytes:
    """Make the HTML file of a page, with all scripts, styles, pictures and numbers in it.

    Parameters
    ----------
    page : Page
        What it shows.

    Returns
    -------
    bytes
        UTF-8.
    """
    import jinja2
    from markupsafe import Markup

    charts = list(_charts_in([block for section in page.sections for block in section.blocks]))
    numbers = {
        "charts": [
            {
                "spec": chart.spec,
                "data": [rows.name for rows in chart.data],
                "renderer": "canvas" if chart.dense else "svg",
                "picks": chart.picks,
            }
            for chart in charts
        ],
        "data": {rows.name: rows.rows for chart in charts for rows in chart.data},
    }
    scripts = [_script(text) for text in (_vega(), _read("page.js"))] if charts else []
    style = _read("page.css")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    content = environment.from_string(_read("page.html")).render(
        page=page,
        number_of={id(chart): number for number, chart in enumerate(charts)},
        identity=id,
        policy=_policy(scripts, style),
        style=Markup(style),
        numbers=Markup(as_json(numbers)),
        scripts=[Markup(script) for script in scripts],
    )
    return content.encode()


def as_json(content: Mapping[str, Any]) -> str:
    r"""JSON that can stand in a script element, whatever texts are in it.

    Raises
    ------
    ValueError
        A number is not finite.

    Examples
    --------
    >>> as_json({"name": "</script>"})
    '{"name":"\\u003c/script\\u003e"}'
    """
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(ESCAPES)


def _charts_in(blocks: Sequence[Any]) -> Iterator[Chart]:
    for block in blocks:
        if isinstance(block, Chart):
            yield block
        elif isinstance(block, Charts):
            yield from block.charts
        elif isinstance(block, (Chosen, Folded)):
            yield from _charts_in(block.blocks)
        elif isinstance(block, When):
            yield from _charts_in([block.block])


def _policy(scripts: Sequence[str], style: str) -> str:
    """Nothing is fetched, and nothing runs but the page's own scripts.

    Vega's expressions are interpreted (page.js asks for that), so that no text is ever made into code.
    """
    allowed = " ".join(_hash(script) for script in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _script(text: str) -> str:
    """A script as it can stand in its element: in strings, where alone these occur, the backslash changes nothing."""
    return text.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed in one script, of the version that the charts are written for."""
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    return script
