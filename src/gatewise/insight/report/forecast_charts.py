"""The charts of forecasts: errors along the horizon, and single forecasts beside what came to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatewise.drawing import BLACK, BLUE
from gatewise.insight.report.charts import dots, finished, told_apart
from gatewise.insight.report.page import Chart, Rows

TRUTH, FORECAST = "truth", "forecast"
"""The lines of a forecast's chart."""

DATES = {"hours": "%H:%M", "minutes": "%H:%M", "day": "%-d %b", "date": "%-d %b", "week": "%-d %b", "month": "%b %Y"}
"""How an axis of dates is written, by what its ticks are."""


def step_lines(rows: Rows, names: Sequence[str], horizon: int, target: str) -> Chart:
    """The mean absolute error at each step of the horizon, a line for each forecast.

    Parameters
    ----------
    rows : Rows
        Each with the forecast's name, the step from 1 on, and the error.
    names : sequence of str
        Of the forecasts.
    horizon : int
        Steps.
    target : str
        What is forecast.
    """
    import altair as alt

    drawn = (
        alt.Chart(alt.NamedData("rows"))
        .mark_line(point=dots(horizon), strokeWidth=1.8)
        .encode(
            x=alt.X(
                "step:Q",
                title="step of the horizon",
                scale=alt.Scale(domain=[1, max(2, horizon)], nice=False, padding=8),
                axis=alt.Axis(tickMinStep=1, format="d"),
            ),
            y=alt.Y("error:Q", title="mean absolute error"),
            tooltip=["forecast:N", "step:Q", alt.Tooltip("error:Q", format=".4~g", title="MAE")],
            **told_apart("forecast", names),
        )
    )
    return Chart(
        "Error along the horizon",
        f"The mean absolute error of {target} over all origins, at each step ahead; lower is better.",
        finished(drawn, "The mean absolute error over the steps of the horizon, a line for each forecast", height=300),
        [rows],
    )


def forecast_chart(
    title: str, caption: str, rows: Rows, target: str, horizon: int, *, dated: bool, chosen: bool = False
) -> Chart:
    """What was before an origin, what came to be, the forecast, and its band.

    Parameters
    ----------
    title, caption : str
        Above and below it.
    rows : Rows
        Each with the time, as a number (of dates milliseconds since 1970) and as it is written; and with the line and
        the value; or with low and high, of the band; or, of the origin, with the time alone.
    target : str
        What is forecast.
    horizon : int
        Steps of a forecast.
    dated : bool
        Whether times are dates.
    chosen : bool, default False
        Whether only the rows of the chosen sample are drawn.
    """
    import altair as alt

    sparse: dict[str, Any] = {"labelOverlap": "greedy", "labelSeparation": 8, "tickCount": 5}
    axis = alt.Axis(**sparse, format=DATES) if dated else alt.Axis(**sparse, tickMinStep=1)
    x = (
        alt.X("at:T", title=None, axis=axis, scale=alt.Scale(type="utc", nice=False, padding=6))
        if dated
        else alt.X("at:Q", title=None, axis=axis, scale=alt.Scale(nice=False, zero=False, padding=6))
    )
    y = alt.Y("value:Q", title=target, scale=alt.Scale(zero=False), axis=alt.Axis(titleLimit=180))
    when = alt.Tooltip("time:N")
    scale = alt.Scale(domain=[TRUTH, FORECAST], range=[BLACK, BLUE])
    dashes = alt.Scale(domain=[TRUTH, FORECAST], range=[[1, 0], [6, 3]])
    legend = alt.Legend(orient="bottom", symbolType="stroke", symbolSize=500)
    origin = (
        alt.Chart().transform_filter("datum.origin").mark_rule(color="#8a919a", strokeWidth=3, opacity=0.5).encode(x=x)
    )
    band = alt.Chart().transform_filter("isValid(datum.low)")
    band = band.mark_area(color=BLUE, opacity=0.2) if horizon > 1 else band.mark_rule(color=BLUE, strokeWidth=3)
    band = band.encode(x=x, y=alt.Y("low:Q", title=target), y2="high:Q", tooltip=[when, "low:Q", "high:Q"])
    lines = (
        alt.Chart()
        .transform_filter("isValid(datum.line)")
        .mark_line(point=dots(4 * horizon), strokeWidth=1.6)
        .encode(
            x=x,
            y=y,
            color=alt.Color("line:N", title=None, scale=scale, legend=legend),
            strokeDash=alt.StrokeDash("line:N", title=None, scale=dashes, legend=legend),
            tooltip=[alt.Tooltip("line:N", title="of"), when, alt.Tooltip("value:Q", format=".5~g")],
        )
    )
    bands = [band] if any("low" in row for row in rows.rows) else []  # an axis of no rows has no length
    layers = alt.layer(origin, *bands, lines, data=alt.NamedData("rows"))
    if chosen:
        chosen_sample = alt.param(name="chosen_sample", value=0)
        layers = layers.add_params(chosen_sample).transform_filter("datum.sample == chosen_sample")
    return Chart(title, caption, finished(layers, f"{title}: lines over time", height=230 if chosen else 180), [rows])
