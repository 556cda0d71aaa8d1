"""The charts of a report, as Vega-Lite: curves, scores of classes, gates over time, gradients over lag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gatewise.drawing import BLACK, BLUE, COLOURS, VERMILION
from gatewise.insight.report.page import Chart, Rows

if TYPE_CHECKING:
    import altair

DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [1, 3], [10, 4], [6, 2, 1, 2, 1, 2])
"""Each line's own, as a page may be printed in grey; of eight lines the last has the first one's colour."""

FAINTEST = 1e-12
"""The smallest share of a gradient that is drawn: what is less is noise of rounding."""

DOTTED = 60
"""Points of a line up to which each has a dot."""

POINTS = 2000
"""Of a curve that are drawn at most."""

NUMBERED = 16
"""Classes up to which the cells of a confusion matrix have room for their counts."""

THEME: dict[str, Any] = {
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "#8a919a",
        "gridColor": "#e6e8eb",
        "labelColor": "#1c1f23",
        "labelFontSize": 12,
        "tickColor": "#8a919a",
        "titleColor": "#1c1f23",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "#1c1f23",
        "labelFontSize": 12,
        "titleColor": "#1c1f23",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}


def curve(quantity: str, unit: str, lines: Mapping[str, Sequence[tuple[float, float]]], best: float | None) -> Chart:
    """A quantity over epochs, a line for each split.

    Parameters
    ----------
    quantity : str
        Such as "loss", which has a logarithmic axis where it is above 0.
    unit : str
        What it is measured in.
    lines : mapping of str to sequence of (float, float)
        The epochs and values of each split.
    best : float or None
        The epoch of the best weights, which is marked.

    Examples
    --------
    >>> curve("loss", "nats", {"train": [(1, 2.0), (2, 1.0)]}, best=2).data[0].rows[1]
    {'split': 'train', 'epoch': 2, 'value': 1.0}
    """
    import altair as alt

    every = max(1, *(-(-len(points) // POINTS) for points in lines.values()))
    rows: list[dict[str, Any]] = [
        {"split": split, "epoch": epoch, "value": value}
        for split, points in lines.items()
        for epoch, value in [*points[:-1][::every], *points[-1:]]
    ]
    positive = quantity == "loss" and all(row["value"] > 0 for row in rows)
    splits = list(lines)
    last = max(row["epoch"] for row in rows)
    scale, axis = alt.Scale(type="log") if positive else alt.Scale(zero=False), alt.Axis()
    values = {row["value"] for row in rows}
    if len(values) == 1:  # an axis without a length has no ticks of its own
        (value,) = values
        room = abs(value) / 10 or 1.0
        scale = alt.Scale(domain=[value - room, value + room], nice=False)
        axis = alt.Axis(values=[value], format=".4~g")
    drawn = (
        alt.Chart(alt.NamedData("rows"))
        .mark_line(point=dots(max(map(len, lines.values()))), strokeWidth=1.8)
        .encode(
            x=alt.X(
                "epoch:Q",
                title="epoch",
                scale=alt.Scale(domain=[0, last], nice=False, padding=6),
                axis=alt.Axis(tickMinStep=1),
            ),
            y=alt.Y("value:Q", title=unit, scale=scale, axis=axis),
            tooltip=["split:N", "epoch:Q", alt.Tooltip("value:Q", format=".5~g", title=quantity)],
            **told_apart("split", splits),
        )
    )
    layers = [drawn]
    marked = ""
    if best is not None:
        rule = alt.Chart().mark_rule(color="#8a919a", strokeWidth=3, opacity=0.5).encode(x=alt.datum(best))
        layers = [rule, drawn]
        marked = f" The grey bar marks the best epoch, {best:g}."
    thinned = f" Every {nth(every)} point is drawn." if every > 1 else ""
    return Chart(
        f"{quantity.capitalize()} over epochs",
        f"{unit.capitalize()}; {', '.join(splits)}.{marked}{thinned}",
        finished(alt.layer(*layers), f"{quantity} of {', '.join(splits)} over epochs", height=240),
        [Rows(f"curve {quantity}", rows)],
    )


def class_bars(title: str, axis: str, names: Sequence[str], right: Sequence[int], count: Sequence[int]) -> Chart:
    """The share that is right of each class.

    Parameters
    ----------
    title : str
        Above it.
    axis : str
        What a class is.
    names : sequence of str
        Of the classes.
    right, count : sequence of int
        Samples of each class that are right, and all of them.

    Examples
    --------
    >>> class_bars("By class", "class", ["cat", "dog"], [3, 0], [4, 0]).data[0].rows
    [{'class': 'cat', 'share': 0.75, 'right': 3, 'samples': 4}]
    """
    import altair as alt

    rows = [
        {"class": name, "share": good / all_of, "right": good, "samples": all_of}
        for name, good, all_of in zip(names, right, count, strict=True)
        if all_of
    ]
    base = alt.Chart(alt.NamedData("rows")).encode(
        y=alt.Y(
            "class:N",
            title=axis,
            scale=alt.Scale(domain=list(names)),
            axis=alt.Axis(labelLimit=130, labelOverlap=len(names) > 45),
        ),
        x=alt.X("share:Q", title="share right", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
        tooltip=[
            alt.Tooltip("class:N", title=axis),
            alt.Tooltip("share:Q", title="right", format=".2%"),
            alt.Tooltip("right:Q", title="right, count"),
            alt.Tooltip("samples:Q"),
        ],
    )
    return Chart(
        title,
        "The share of the test samples of each class that were taken for their own.",
        finished(base.mark_bar(color=BLUE), f"{title}: bars of the share right", height=_tall(len(names))),
        [Rows("classes", rows)],
    )


def confusion(axis: str, names: Sequence[str], matrix: NDArray[np.intp]) -> Chart:
    """How many of each class were taken for each.

    Parameters
    ----------
    axis : str
        What a class is.
    names : sequence of str
        Of the classes.
    matrix : integer array, shape (classes, classes)
        Rows are true classes.

    Examples
    --------
    >>> confusion("class", ["cat", "dog"], np.array([[3, 1], [0, 0]])).data[0].rows[1]
    {'truth': 'cat', 'taken_for': 'dog', 'samples': 1, 'share': 0.25, 'verdict': 'wrong'}
    """
    import altair as alt

    of_class = matrix.sum(axis=1)
    rows = [
        {
            "truth": names[row],
            "taken_for": names[column],
            "samples": int(matrix[row, column]),
            "share": round(float(matrix[row, column] / of_class[row]), 6),
            "verdict": "right" if row == column else "wrong",
        }
        for row, column in zip(*np.nonzero(matrix), strict=True)
    ]
    labels: dict[str, Any] = {"labelLimit": 130, "labelOverlap": len(names) > NUMBERED}
    angle = -90 if max(map(len, names)) > 2 else 0
    domain = alt.Scale(domain=list(names))
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("taken_for:N", title="taken for", scale=domain, axis=alt.Axis(**labels, labelAngle=angle)),
        y=alt.Y("truth:N", title=f"true {axis}", scale=domain, axis=alt.Axis(**labels)),
        tooltip=[
            alt.Tooltip("truth:N", title=f"true {axis}"),
            alt.Tooltip("taken_for:N", title="taken for"),
            alt.Tooltip("samples:Q"),
            alt.Tooltip("share:Q", title=f"share of the {axis}", format=".2%"),
        ],
    )
    cells = base.mark_rect(stroke="#fff", strokeWidth=0.5).encode(
        color=alt.Color(
            "verdict:N", title=None, scale=alt.Scale(domain=["right", "wrong"], range=[BLUE, VERMILION]), legend=None
        ),
        opacity=alt.Opacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0.08, 1]), legend=None),
    )
    counts = base.mark_text(fontSize=11).encode(
        text="samples:Q", color=alt.condition("datum.share > 0.45", alt.value("#fff"), alt.value(BLACK))
    )
    return Chart(
        "Confusion matrix",
        "Blue on the diagonal: right. Orange beside it: wrong. The fuller the colour, the larger the share of the true "
        f"{axis}. Empty: none.",
        finished(
            cells + counts if len(names) <= NUMBERED else cells,
            f"Confusion matrix: how many of each {axis} were taken for each",
            height=_tall(len(names)),
        ),
        [Rows("confusion", rows)],
        dense=len(rows) > NUMBERED**2,
    )


def heat_map(title: str, caption: str, rows: Rows, domain: tuple[float, float], reads: Sequence[str]) -> Chart:
    """Values over time and units, of the sample and the layer that are chosen.

    Parameters
    ----------
    title, caption : str
        Above and below it.
    rows : Rows
        Each with sample and layer, the values, row by row of units, the units, and how many steps there are from one
        row to the next; see `gatewise.insight.report.gates`.
    domain : (float, float)
        The values of the ends of the colours; below 0 there are two colours.
    reads : sequence of str
        What each step reads, in a word; empty where it has none.
    """
    import altair as alt

    low, _ = domain
    sparse: dict[str, Any] = {"labelOverlap": "parity", "labelSeparation": 6, "ticks": False}
    scale = (
        alt.Scale(domain=list(domain), scheme="blueorange", domainMid=0, clamp=True)
        if low < 0
        else alt.Scale(domain=list(domain), scheme="blues", clamp=True)
    )
    drawn = (
        _of_chosen(alt.Chart(alt.NamedData("rows")))
        .transform_calculate(place="sequence(length(datum.values))")
        .transform_flatten(["values", "place"], as_=["value", "place"])
        .transform_calculate(
            row="floor(datum.place / length(datum.units))", unit="datum.units[datum.place % length(datum.units)]"
        )
        .transform_calculate(step="datum.row * datum.every", read="datum.reads[datum.row]")
        .mark_rect(invalid=None)
        .encode(
            x=alt.X("step:O", title="step", axis=alt.Axis(labelAngle=0, **sparse)),
            y=alt.Y("unit:O", title="unit", axis=alt.Axis(**sparse)),
            color=alt.Color("value:Q", title=None, scale=scale, legend=alt.Legend(gradientThickness=10)),
            tooltip=_tooltip(reads),
        )
    )
    return Chart(
        title,
        caption,
        finished(drawn, f"{title}: heat map over steps and units", height=230),
        [rows],
        dense=True,
        picks=("chosen_unit", "unit"),
    )


def unit_lines(
    title: str,
    caption: str,
    rows: Sequence[Rows],
    names: Sequence[str],
    domain: tuple[float, float] | None,
    reads: Sequence[str],
) -> Chart:
    """What the chosen unit does over time, a line for each of some names.

    Parameters
    ----------
    title, caption : str
        Above and below it.
    rows : sequence of Rows
        Those of the heat maps.
    names : sequence of str
        Of the lines.
    domain : (float, float) or None
        Of the axis; None: as the values are.
    reads : sequence of str
        As for `heat_map`.
    """
    import altair as alt

    steps = max(len(row["values"]) // len(row["units"]) for each in rows for row in each.rows)
    drawn = (
        _of_chosen(alt.Chart(alt.NamedData("rows")).add_params(alt.param(name="chosen_unit", value=0)))
        .transform_calculate(
            at="indexof(datum.units, chosen_unit)", row="sequence(length(datum.values) / length(datum.units))"
        )
        .transform_filter("datum.at >= 0")
        .transform_flatten(["row"])
        .transform_calculate(
            value="datum.values[datum.row * length(datum.units) + datum.at]",
            unit="chosen_unit",
            step="datum.row * datum.every",
            read="datum.reads[datum.row]",
        )
        .mark_line(point=dots(steps), strokeWidth=1.8)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False)),
            y=alt.Y("value:Q", title="value", scale=alt.Scale(domain=list(domain)) if domain else alt.Undefined),
            tooltip=[alt.Tooltip("name:N", title="of"), *_tooltip(reads)],
            **told_apart("name", names),
        )
    )
    return Chart(title, caption, finished(drawn, f"{title}: lines over steps", height=230), rows)


def lag_lines(rows: Rows, names: Sequence[str]) -> Chart:
    """The gradient over lag, a line for each path, of the layer that is chosen.

    Parameters
    ----------
    rows : Rows
        Each with the layer, the path's name, and the shares at lags 0, 1, 2, ….
    names : sequence of str
        Of the paths.
    """
    import altair as alt

    longest = max(len(row["values"]) for row in rows.rows)
    drawn = (
        alt.Chart(alt.NamedData("rows"))
        .add_params(alt.param(name="flow_layer", value=0))
        .transform_filter("datum.layer == flow_layer")
        .transform_calculate(lag="sequence(length(datum.values))")
        .transform_flatten(["values", "lag"], as_=["share", "lag"])
        .transform_filter(f"datum.share >= {FAINTEST}")
        .mark_line(point=dots(longest), strokeWidth=1.8)
        .encode(
            x=alt.X("lag:Q", title="lag (steps back)", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y(
                "share:Q",
                title="share of the gradient at lag 0",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(format="~g", tickCount=6),
            ),
            tooltip=[
                alt.Tooltip("path:N"),
                alt.Tooltip("lag:Q", title="steps back"),
                alt.Tooltip("share:Q", format=".3~g"),
            ],
            **told_apart("path", names),
        )
    )
    tenth = alt.Chart().mark_rule(color="#8a919a", strokeDash=[3, 3]).encode(y=alt.datum(0.1))
    return Chart(
        "Gradient over lag",
        "How much of the loss's gradient reaches the state so many steps back, on which path. “All paths” is the norm "
        "of their sum; they may add to each other or cancel. The grey line is a tenth. A line ends where its path "
        f"carries nothing, or less than {FAINTEST:g}.",
        finished(alt.layer(tenth, drawn), "The gradient over lag, a line for each path", height=300),
        [rows],
    )


def constant_bars(rows: Rows) -> Chart:
    """How many units have time constants of each size, of the layer that is chosen.

    Parameters
    ----------
    rows : Rows
        Each with the layer, "from" and "to", in steps, and the number of units.
    """
    import altair as alt

    drawn = (
        alt.Chart(alt.NamedData("rows"))
        .add_params(alt.param(name="flow_layer", value=0))
        .transform_filter("datum.layer == flow_layer")
        .mark_bar(color=BLUE, stroke="#fff")
        .encode(
            x=alt.X(
                "from:Q",
                title="time constant (steps)",
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(format="~g", labelOverlap="greedy", labelSeparation=8),
            ),
            x2="to:Q",
            y=alt.Y("units:Q", title="units", axis=alt.Axis(tickMinStep=1, format="d")),
            y2=alt.datum(0),
            tooltip=[
                alt.Tooltip("from:Q", format=".3~g"),
                alt.Tooltip("to:Q", format=".3~g"),
                alt.Tooltip("units:Q"),
            ],
        )
    )
    return Chart(
        "Time constants",
        "How long each unit would remember by its forget gates (a GRU's update gates) alone: after so many steps they "
        "let 1/e (37 %) of the gradient pass.",
        finished(drawn, "Time constants: a histogram of the units", height=300),
        [rows],
    )


def finished(chart: altair.TopLevelMixin, description: str, height: int) -> dict[str, Any]:
    """The Vega-Lite of a chart, as wide as the page lets it be, with the look of all.

    Parameters
    ----------
    chart : altair chart
        With the data named "rows".
    description : str
        What it shows, for whoever does not see it.
    height : int
        In pixels.

    Examples
    --------
    >>> import altair as alt
    >>> spec = finished(alt.Chart(alt.NamedData("rows")).mark_line(), "a line", height=100)
    >>> spec["width"], spec["height"], spec["data"]
    ('container', 100, {'name': 'rows'})
    """
    spec = chart.to_dict()
    spec.pop("$schema")  # a name that looks like an address
    return spec | {"description": description, "width": "container", "height": height, "config": THEME}


def nth(number: int) -> str:
    """A number from 2 on as one counts.

    Examples
    --------
    >>> nth(3), nth(12), nth(22)
    ('third', '12th', '22nd')
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return {2: "second", 3: "third"}.get(number, f"{number}{ending}")


def _of_chosen(chart: altair.Chart) -> altair.Chart:
    """The rows of the chosen sample and layer."""
    import altair as alt

    params = [alt.param(name=name, value=0) for name in ("chosen_sample", "chosen_layer")]
    return chart.add_params(*params).transform_filter("datum.sample == chosen_sample && datum.layer == chosen_layer")


def dots(points: int) -> Any:
    """A dot at each point of a line, seen where they are few; where they are not, it can be hovered over."""
    import altair as alt

    return alt.OverlayMarkDef(size=18, opacity=1 if points <= DOTTED else 0)


def _tooltip(reads: Sequence[str]) -> list[Any]:
    import altair as alt

    read = [alt.Tooltip("read:N")] if reads else []
    return [alt.Tooltip("step:Q"), *read, alt.Tooltip("unit:Q"), alt.Tooltip("value:Q", format=".3~f")]


def told_apart(field: str, names: Sequence[str]) -> dict[str, Any]:
    """A colour and a dash for each name, in one legend."""
    import altair as alt

    columns = 3 if len(names) <= 3 else 2  # a phone has room for so many
    legend = alt.Legend(orient="bottom", columns=columns, labelLimit=200, symbolType="stroke", symbolSize=500)
    colours = alt.Scale(domain=list(names), range=list(COLOURS[: len(names)]))
    dashes = alt.Scale(domain=list(names), range=[list(dash) for dash in DASHES[: len(names)]])
    return {
        "color": alt.Color(f"{field}:N", title=None, scale=colours, legend=legend),
        "strokeDash": alt.StrokeDash(f"{field}:N", title=None, scale=dashes, legend=legend),
    }


def _tall(classes: int) -> int:
    """The height that so many classes take, in pixels."""
    return min(640, max(160, 24 * classes))
