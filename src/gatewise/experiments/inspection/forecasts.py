"""What there is to see of a task that forecasts: results by horizon, the worst forecasts, and what the gates did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gatewise.data.table import Times
from gatewise.errors import ArgumentError
from gatewise.experiments.inspection.shared import SEQUENCES, Findings, most_followed, short, visible
from gatewise.insight.gradient_flow import gradient_flow
from gatewise.insight.report.forecast_charts import FORECAST, TRUTH, forecast_chart, step_lines
from gatewise.insight.report.gates import Looked, gate_blocks
from gatewise.insight.report.page import Card, Charts, Folded, Rows, Section, Table, Text
from gatewise.insight.trace import record
from gatewise.tasks.backtest import MODEL
from gatewise.tasks.forecast_figures import first_drawn
from gatewise.tasks.forecast_subject import ForecastSubject, Origin, Replay
from gatewise.tasks.task import Probe, Task

WORST = 6
"""Forecasts of the largest error that are drawn, at most."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """An origin that is shown.

    Parameters
    ----------
    why : str
        "worst", "best", "last" or "given".
    origin : Origin
        It.
    place : int or None
        That of its test window; None of what was given.
    """

    why: str
    origin: Origin
    place: int | None


def find(subject: ForecastSubject, task: Task) -> Findings:
    """What there is to show of a model and its backtest.

    Raises
    ------
    ArgumentError
        More series are given than are shown at once.
    """
    if len(subject.given) > SEQUENCES:
        raise ArgumentError(
            f"{len(subject.given)} series are given, a report shows at most {SEQUENCES}: give files with fewer"
        )
    result = subject.replay.result
    own = result.overall()[MODEL]
    scores = {name: getattr(own, name) for name in ("mae", "rmse", "mase", "smape", "coverage", "pinball")}
    worst = [_Shown("worst", subject.at(place), place) for place in worst_of(subject.replay, WORST)]
    chosen = [_Shown("given", origin, None) for origin in subject.given]
    for why, place in choose(subject.replay, SEQUENCES - len(chosen)):
        chosen.append(_Shown(why, subject.at(place), place))
    probe = subject.probe(most_followed(subject.model, subject.steps, result.origins))
    several = f" of {result.series:,} series" if result.series > 1 else ""
    return Findings(
        f"Task {task.name}: forecasts of {visible(result.target)} from {result.origins:,} origins{several} in the test "
        f"part; mean absolute error {own.mae:.4g}, mean loss {subject.score.loss:.4f}.",
        subject.unit,
        {"loss": subject.score.loss} | {name: value for name, value in scores.items() if value is not None},
        result.origins,
        [_said(subject.replay, shown) for shown in chosen],
        [_said(subject.replay, shown) for shown in worst],
        result.verdicts(),
        [
            Section("Results by horizon", _by_horizon(subject.replay)),
            Section("Worst forecasts", _worst(subject.replay, worst)),
            Section("Gates and memory", _gates(subject, chosen)),
        ],
        gradient_flow(probe.model, probe.inputs, probe.loss),
        _followed(probe, subject.carried),
    )


def worst_of(replay: Replay, most: int) -> list[int]:
    """The places of the origins with the largest error, none less than a horizon from another of its series."""
    return _apart(replay, np.argsort(-_ranked(replay), kind="stable"), most, [])


def choose(replay: Replay, room: int) -> list[tuple[str, int]]:
    """A few origins and why: the worst, half as many of the best, and of the last ones, as far apart as the worst."""
    errors = _ranked(replay)
    worst = worst_of(replay, -(-room // 2))
    best = _apart(replay, np.argsort(errors, kind="stable"), (room - len(worst)) // 2, worst)
    late = np.argsort(-replay.windows.origins, kind="stable")
    last = _apart(replay, late, room - len(worst) - len(best), [*worst, *best])
    return [(why, place) for why, those in (("worst", worst), ("best", best), ("last", last)) for place in those]


def _ranked(replay: Replay) -> NDArray[np.float64]:
    """The error of each origin in deviations of its series, or that of the largest numbers would have all the worst."""
    return replay.by_origin()[MODEL] / replay.deviation


def _apart(replay: Replay, order: NDArray[np.intp], most: int, taken: Sequence[int]) -> list[int]:
    """The first places in an order that are at least a horizon from each other and from those taken."""
    windows, horizon = replay.windows, replay.truth.shape[1]
    found: list[int] = []
    for place in order.tolist():
        if len(found) >= most:
            break
        others = np.array([*taken, *found], np.intp)
        same = others[windows.groups[others] == windows.groups[place]]
        if (np.abs(windows.origins[same] - windows.origins[place]) >= horizon).all():
            found.append(place)
    return found


def _by_horizon(replay: Replay) -> list[Any]:
    result, horizon = replay.result, replay.truth.shape[1]
    (_, *columns), rows = result.table()
    whole = f"1–{horizon}" if horizon > 1 else "1"
    texts = [Text(f"{verdict[0].upper()}{verdict[1:]}.") for verdict in result.verdicts()]
    about = (
        "MAE and RMSE are in the target's units. MASE is the MAE in units of what the seasonal naive forecast, a "
        f"season of {result.season:,} back, came to over the training part; sMAPE lies between 0 and 200\u00a0%."
    )
    overall = [row[1:] for row in rows if row[0] == whole]
    steps = f"all {horizon:,} steps" if horizon > 1 else "the one step"
    blocks = [*texts, Text(about), Table(f"Over {steps} of the horizon", columns, overall, columns[1:])]
    if horizon == 1:
        return blocks
    lines = [
        {"forecast": name, "step": step, "error": _short(error)}
        for name, errors in replay.by_step().items()
        for step, error in enumerate(errors.tolist(), start=1)
    ]
    chart = step_lines(Rows("steps", lines), list(replay.points), horizon, visible(result.target))
    parts = Table("By steps of the horizon", ("steps", *columns), rows, columns[1:])
    return [*blocks, Charts([chart]), Folded("By parts of the horizon, in numbers", [parts])]


def _worst(replay: Replay, worst: Sequence[_Shown]) -> list[Any]:
    horizon = replay.truth.shape[1]
    counted = f"The {len(worst)} of" if len(worst) > 1 else "The one of"
    kind = ", in standard deviations of its own series" if replay.result.series > 1 else ""
    apart = f", at least {horizon:,} rows apart" if horizon > 1 else ""
    target = visible(replay.result.target)
    charts = [
        forecast_chart(
            _name(shown),
            f"Mean absolute error {_errors(replay, shown)}.",
            Rows(f"worst {number}", _rows(replay, shown, first_drawn(shown.origin.row, horizon))),
            target,
            horizon,
            dated=_dated(shown.origin),
        )
        for number, shown in enumerate(worst)
    ]
    return [
        Text(
            f"{counted} {replay.result.origins:,} forecasts with the largest mean absolute error{kind}{apart}. "
            f"{_legend(replay)}"
        ),
        Charts(charts),
    ]


def _gates(subject: ForecastSubject, chosen: Sequence[_Shown]) -> list[Any]:
    looked, rows = [], []
    for number, shown in enumerate(chosen):
        with record(subject.model) as traces, torch.no_grad():
            subject.model(*shown.origin.inputs)
        card = Card([_name(shown), *([] if shown.place is None else [f"MAE {_errors(subject.replay, shown)}"])])
        looked.append(Looked(_listed(subject.replay, shown), card, traces, _reads(shown.origin)))
        rows += [
            {"sample": number} | row for row in _rows(subject.replay, shown, shown.origin.row - shown.origin.steps)
        ]
    chart = forecast_chart(
        "The series",
        f"{_legend(subject.replay)} The rows before it are the steps of the charts below.",
        Rows("series", rows),
        visible(subject.replay.result.target),
        subject.replay.truth.shape[1],
        dated=_dated(chosen[0].origin),
        chosen=True,
    )
    steps = max(shown.origin.steps for shown in chosen)
    carried = (
        "The state is carried on: a forecast here rests on all rows of the series before it. The gates are those of "
        f"the last {steps:,} rows before it alone, or of as many as there are, read from a state of zeros."
    )
    return [*([Text(carried)] if subject.carried else []), *gate_blocks(looked, [chart])]


def _followed(probe: Probe, carried: bool) -> str:
    if not carried:
        return f"Gradients are those of the task's loss on {probe.sequences} windows of the test part, evenly spread."
    return (
        f"Gradients are those of the task's loss after {probe.sequences} sequences of {probe.steps:,} rows before "
        "origins in the test part, evenly spread, each read from a state of zeros. In training gradients flowed "
        f"through {probe.reach:,} rows at the most."
    )


def _legend(replay: Replay) -> str:
    band = (
        f"; the band is from quantile {replay.quantiles[0]:g} to {replay.quantiles[-1]:g}" if replay.quantiles else ""
    )
    return f"Black is what came to be, blue the forecast{band}. The grey bar is where the forecast begins."


def _rows(replay: Replay, shown: _Shown, first: int) -> list[dict[str, Any]]:
    """What is drawn of an origin from a row on: see `forecast_chart`."""
    forecast, row = shown.origin.forecast, shown.origin.row
    series, horizon = forecast.series, len(forecast.values)
    truth = np.where(series.observed, series.target, np.nan)[first : row + horizon]
    before = series.times.take(slice(first, first + len(truth)))
    when, ahead = _places(before), _places(forecast.times)
    middle = replay.quantiles.index(0.5) if replay.quantiles else 0
    return [
        ahead[0] | {"origin": True},
        *(at | {"line": TRUTH, "value": _short(v)} for at, v in zip(when, truth.tolist(), strict=True)),
        *(
            at | {"line": FORECAST, "value": _short(v)}
            for at, v in zip(ahead, forecast.values[:, middle].tolist(), strict=True)
        ),
        *(
            at | {"low": _short(low), "high": _short(high)}
            for at, low, high in zip(
                ahead, forecast.values[:, 0].tolist(), forecast.values[:, -1].tolist(), strict=True
            )
            if replay.quantiles
        ),
    ]


def _places(times: Times) -> list[dict[str, Any]]:
    """Where each time is in a chart, and how it is written."""
    pairs = zip(times.values.tolist(), times.shown(), strict=True)
    return [{"at": _at(at, times.kind), "time": shown} for at, shown in pairs]


def _reads(origin: Origin) -> list[str]:
    """When each row is that is read, and the target there."""
    rows, series = slice(origin.row - origin.steps, origin.row), origin.forecast.series
    shown = series.times.take(rows).shown()
    return [f"{at}: {value:.5g}" for at, value in zip(shown, series.target[rows].tolist(), strict=True)]


def _dated(origin: Origin) -> bool:
    return origin.forecast.times.kind in ("date", "moment")


def _at(value: float, kind: str) -> float:
    """A time as a chart has it: of dates in milliseconds since 1970."""
    return value / 1000 if kind in ("date", "moment") else value + 1 if kind == "row" else value


def _short(value: float) -> float | None:
    """To six digits; None, a gap in a line, where there is none."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _when(origin: Origin) -> str:
    times = origin.forecast.times
    return f"{'row ' if times.kind == 'row' else ''}{times.shown()[0]}"


def _name(shown: _Shown) -> str:
    series = visible(shown.origin.forecast.series.name)
    return f"{series}, from {_when(shown.origin)}" if series else f"From {_when(shown.origin)}"


def _listed(replay: Replay, shown: _Shown) -> str:
    """An origin's name in a list to choose from."""
    series, at = visible(shown.origin.forecast.series.name), _when(shown.origin)
    name = f"{short(series)}, from {at}" if series else f"from {at}"
    return f"{shown.why}: {name}" + ("" if shown.place is None else f", MAE {_error(replay, shown.place):.4g}")


def _errors(replay: Replay, shown: _Shown) -> str:
    """A forecast's error beside those of the baselines from the same origin."""
    others = [f"{name} {errors[shown.place]:.4g}" for name, errors in replay.by_origin().items() if name != MODEL]
    return f"{_error(replay, shown.place):.4g} ({', '.join(others)})"


def _error(replay: Replay, place: int | None) -> float:
    return float(replay.by_origin()[MODEL][place])


def _said(replay: Replay, shown: _Shown) -> dict[str, Any]:
    error = None if shown.place is None else round(_error(replay, shown.place), 6)
    return {
        "name": _name(shown),
        "series": shown.origin.forecast.series.name,
        "origin": shown.origin.forecast.times.shown()[0],
        "error": error,
    }
