"""What evaluate and predict do where the task forecasts series."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gatewise.cli.frames import check_out, give
from gatewise.cli.printing import print_table
from gatewise.cli.words import Evaluate, Predict
from gatewise.drawing import check_ending
from gatewise.errors import ArgumentError
from gatewise.tasks.series import SeriesConfig

if TYPE_CHECKING:
    from gatewise.tasks.backtest import Backtest
    from gatewise.train.run import Run


def evaluate(command: Evaluate, config: SeriesConfig, run: "Run") -> int:
    """Backtest a run beside the baselines, and with a figure show some origins."""
    from gatewise.tasks.forecast_figures import draw_backtest
    from gatewise.tasks.forecasting import backtest

    if command.figure is not None:
        check_ending(command.figure)
    tested = backtest(config, run, command.weights)
    result = tested.result
    if command.figure is not None:
        title = f"{command.run}: {result.target}, some of {result.origins:,} origins in the test part"
        draw_backtest(command.figure, tested, title)
    if command.json:
        print(json.dumps(result.to_json()))
        return 0
    several = f" of {result.series} series" if result.series > 1 else ""
    print(
        f"{command.run}, {command.weights} weights, backtest of {result.target}: {result.origins:,} origins{several} "
        f"in the test part, season {result.season}"
    )
    _print(result)
    for line in result.verdicts():
        print(line)
    if command.figure is not None:
        print(f"wrote {command.figure}")
    return 0


def _print(result: "Backtest") -> None:
    """The errors over the whole horizon, then over its parts."""
    columns, rows = result.table()
    before = ""
    for row in rows:
        row[0], before = row[0] if row[0] != before else "", row[0]
    print_table(columns, columns[2:], rows)


def predict(command: Predict, config: SeriesConfig, run: "Run") -> int:
    """Forecast what comes after a file's last row, and write it."""
    from gatewise.tasks.forecast_figures import draw_forecasts
    from gatewise.tasks.forecasting import forecast, frame_of

    check_out(command.out, command.figure)
    if command.figure is not None:
        check_ending(command.figure)
    forecasts = forecast(config, run, command.weights, Path(command.given))
    frame = frame_of(forecasts, config)
    if command.figure is not None:
        draw_forecasts(command.figure, forecasts, config.quantiles, config.target)
    give(command, frame, "forecast")
    filled = sum(each.series.filled for each in forecasts)
    if filled:
        print(f"filled {filled:,} row{'s' * (filled != 1)} of {command.given} by {config.fill}", file=sys.stderr)
    return 0


def refuse_files(command: Predict, task: str) -> None:
    """Refuse options of predictions from files where the task has single samples.

    Raises
    ------
    ArgumentError
        One is given.
    """
    for name, value in dataclasses.asdict(command).items():
        if name in ("out", "figure") and value is not None:
            raise ArgumentError(f"{name} is for predictions from files, and {task} takes one sample: leave it out")
