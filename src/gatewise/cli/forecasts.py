"""What evaluate and predict do where the task forecasts series."""

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gatewise.cli.printing import print_table
from gatewise.cli.words import Evaluate, Predict
from gatewise.drawing import check_ending
from gatewise.errors import ArgumentError
from gatewise.tasks.series import SeriesConfig
from gatewise.whole import write_whole

if TYPE_CHECKING:
    import polars as pl

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

    if command.out is not None and command.out.suffix.lower() not in (".csv", ".parquet"):
        raise ArgumentError(f"out is {command.out}, needed is a name that ends in .csv or .parquet: change it")
    if command.figure is not None:
        check_ending(command.figure)
    forecasts = forecast(config, run, command.weights, Path(command.given))
    frame = frame_of(forecasts, config)
    if command.figure is not None:
        draw_forecasts(command.figure, forecasts, config.quantiles, config.target)
    if command.out is not None:
        write_whole(command.out, _as_bytes(frame, command.out.suffix.lower()))
    if command.json:
        print(json.dumps({"forecast": json.loads(frame.write_json())}))
    elif command.out is None:
        print(_as_bytes(frame, ".csv").decode(), end="")
    for path in (command.out, command.figure):
        if path is not None:
            print(f"wrote {path}", file=sys.stderr)
    return 0


def _as_bytes(frame: "pl.DataFrame", ending: str) -> bytes:
    written = io.BytesIO()
    if ending == ".parquet":
        frame.write_parquet(written)
    else:
        frame.write_csv(written, datetime_format="%Y-%m-%d %H:%M:%S")
    return written.getvalue()


def refuse_files(command: Predict, task: str) -> None:
    """Refuse options that only forecasts have.

    Raises
    ------
    ArgumentError
        One is given.
    """
    for name, value in dataclasses.asdict(command).items():
        if name in ("out", "figure") and value is not None:
            raise ArgumentError(f"{name} is for forecasts of series, and {task} has classes: leave it out")
