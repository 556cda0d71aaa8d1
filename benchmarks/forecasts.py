"""gatewise's forecasts beside neuralforecast's LSTM: the same rows, windows, parts and number of training steps.

Both read windows of the same length and forecast the same horizon at once, by LSTMs of the same size, from the same
scaled rows (and, where asked, the same features and calendar), trained by the same number of steps on as many windows
each, by mean squared error, Adam and the same learning rate. neuralforecast has a decoder of two layers of 128 units
behind its LSTM, draws its windows at random and scales each window by itself or not at all (--scaler); gatewise chooses
its best weights on dev. Both are tested from the same origins, each of them once. The errors are those of the targets
that were observed; seconds are those of training and of all forecasts, imports left out.

    pip install neuralforecast
    python benchmarks/forecasts.py --seeds 3 -- --data load.csv --target kw --time at --window 48 --horizon 12
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from gatewise.data.windows import borders_of, make_windows, rows_of
from gatewise.errors import ArgumentError, GatewiseError
from gatewise.tasks.forecast_data import data_of
from gatewise.tasks.forecasting import backtest
from gatewise.tasks.series import SeriesConfig
from gatewise.tasks.task import Report, task_of, tasks
from gatewise.train.run import Run


class Silent(Report):
    draws = False


def ours(config: SeriesConfig, folder: Path) -> tuple[float, float, NDArray[np.float64]]:
    """The error, the seconds, and the forecasts in the target's units."""
    start = time.perf_counter()
    task = tasks()["series"]
    task.runner().train(task, config, folder, Silent())
    tested = backtest(task_of(Run(folder))[1], Run(folder), "best")  # type: ignore[arg-type]
    return tested.result.errors[0].mae, time.perf_counter() - start, tested.forecasts[:, :, 0]


def theirs(config: SeriesConfig, scaler: str) -> tuple[float, float, NDArray[np.float64]]:
    """The same by neuralforecast."""
    import pandas
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import LSTM

    data = data_of(config)
    form, (series,) = data.form, data.series
    group, count = form.groups[series.name], len(series)
    rows = rows_of(series, form)[:count]
    past = [f"past{n}" for n in range(form.features)]
    ahead = [f"ahead{n}" for n in range(form.ahead)]
    frame = pandas.DataFrame(rows, columns=["y", *past, *ahead])
    frame.insert(0, "ds", np.arange(count))
    frame.insert(0, "unique_id", "one")
    dev, test = borders_of(series, form)
    train = len(make_windows(data.series, form, "train"))
    start = time.perf_counter()
    model = LSTM(
        h=form.horizon,
        input_size=form.window,
        encoder_n_layers=config.num_layers,
        encoder_hidden_size=config.hidden_size,
        hist_exog_list=past or None,
        futr_exog_list=ahead or None,
        loss=MSE(),
        max_steps=config.epochs * -(-train // config.batch_size),
        learning_rate=config.learning_rate,
        batch_size=1,
        windows_batch_size=config.batch_size,
        scaler_type=scaler,
        random_seed=config.seed + 1,
        gradient_clip_val=config.clip_norm or None,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    forecaster = NeuralForecast(models=[model], freq=1)
    found = forecaster.cross_validation(frame, val_size=test - dev, test_size=count - test, step_size=1, n_windows=None)
    seconds = time.perf_counter() - start
    by_origin = found.sort_values(["cutoff", "ds"])
    forecasts = by_origin["LSTM"].to_numpy().reshape(-1, form.horizon) * group.deviation[0] + group.mean[0]
    origins = by_origin["cutoff"].to_numpy()[:: form.horizon] + 1
    observed = np.where(series.observed, series.target, np.nan)
    chosen = np.isin(origins, make_windows(data.series, form, "test").origins)
    truth = observed[origins[chosen][:, None] + np.arange(form.horizon)]
    return float(np.nanmean(np.abs(forecasts[chosen] - truth))), seconds, forecasts[chosen]


def validated(config: SeriesConfig, forecasts: NDArray[np.float64]) -> None:
    """Refuse to compare what is not about the same origins."""
    wanted = (len(make_windows(data_of(config).series, data_of(config).form, "test")), config.horizon)
    if forecasts.shape != wanted:
        raise GatewiseError(f"there are forecasts of shape {forecasts.shape}, needed are {wanted}: the parts differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--scaler", default="standard", help="neuralforecast's of each window (default standard)")
    parser.add_argument("settings", nargs="+", help="of gatewise train series, after --")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # of the peer's own libraries
    logging.disable(logging.WARNING)
    errors: dict[str, list[float]] = {"gatewise": [], "neuralforecast": []}
    seconds: dict[str, list[float]] = {"gatewise": [], "neuralforecast": []}
    import neuralforecast.models  # noqa: F401  (its import is no part of the time)

    for seed in range(given.seeds):
        config = tyro.cli(SeriesConfig, args=[*given.settings, "--seed", str(seed)])
        if config.group is not None or config.quantiles or config.bptt is not None:
            raise ArgumentError("the comparison is for one series, windows and point forecasts: leave the others out")
        torch.set_num_threads(config.threads or torch.get_num_threads())
        with tempfile.TemporaryDirectory() as folder:
            results: dict[str, Any] = {"gatewise": ours(config, Path(folder) / "run")}
        results["neuralforecast"] = theirs(config, given.scaler)
        for name, (error, took, forecasts) in results.items():
            validated(config, forecasts)
            errors[name].append(error)
            seconds[name].append(took)
            print(f"seed {seed}  {name:15} MAE {error:.4g}  {took:.1f} s", flush=True)
    for name in errors:
        low, high = min(errors[name]), max(errors[name])
        print(f"{name:15} MAE {statistics.mean(errors[name]):.4g} ({low:.4g} to {high:.4g}), "
              f"{statistics.median(seconds[name]):.1f} s")  # fmt: skip
    ratio = statistics.median(b / a for a, b in zip(seconds["gatewise"], seconds["neuralforecast"], strict=True))
    print(f"neuralforecast takes {ratio:.1f} times as long")


if __name__ == "__main__":
    try:
        main()
    except GatewiseError as error:
        sys.exit(f"forecasts.py: {error}")
