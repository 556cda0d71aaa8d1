"""Forecasts of series: what is trained, tested from each origin, and told about the future."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gatewise.data.series import Series, read_series
from gatewise.data.stepwise import make_steps, step_inputs
from gatewise.data.windows import Form, Windows, borders_of, last_window, with_future
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.tasks.backtest import MODEL, Backtest, linear, measure, naive, seasonal_naive
from gatewise.tasks.forecast_data import (
    Data,
    bptt_of,
    columns_of,
    count_of,
    data_of,
    lag_of,
    need_known,
    parts_of,
    samples_of,
    windows_in,
)
from gatewise.tasks.forecast_subject import Forecast, ForecastSubject, Origin, Replay
from gatewise.tasks.forecaster import (
    CarriedForecaster,
    Forecaster,
    absolute_error,
    of_those_there,
    pinball_loss,
    squared_error,
)
from gatewise.tasks.mistakes import Verdicts
from gatewise.tasks.series import SeriesConfig
from gatewise.tasks.task import PROBED, Outcome, Prediction, Probe, Report, Task
from gatewise.tasks.training import Problem, built, counted, train_problem
from gatewise.train.lanes import Lanes, Track
from gatewise.train.progress import Score
from gatewise.train.run import Run
from gatewise.train.runner import Loss, Runner
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

if TYPE_CHECKING:
    import polars as pl


def problem(config: SeriesConfig) -> Problem:
    """What the settings train."""
    data = data_of(config)
    form, bptt = data.form, bptt_of(config)
    model = _build(form, config)
    if isinstance(model, CarriedForecaster):
        steps = make_steps(data.series, form, "train", lag_of(form, config))
        model.fit_spread(torch.from_numpy(steps.inputs), torch.from_numpy(steps.targets))
        lane = len(steps.begins) // config.batch_size
        if lane < form.window:
            raise ArgumentError(
                f"batch_size is {config.batch_size}, which makes lanes of {lane} rows, needed is at least a window of "
                f"{form.window}: make it smaller"
            )
    elif config.skip != "none":
        windows = windows_in(data, config, "train")
        model.fit_spread(torch.from_numpy(windows.inputs), torch.from_numpy(windows.targets))
    counts = ", ".join(f"{count_of(data, config, part):,} {part}" for part in parts_of(config))
    read = f"windows of {form.window}+{form.horizon}" if bptt is None else f"forecasts of {form.horizon}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = sum(map(len, data.series))
    filled = sum(one.filled for one in data.series)
    return Problem(
        model,
        _loss(config),
        {},
        {part: samples_of(data, config, part) for part in parts_of(config) if part != "test"},
        about={"form": form.to_json(), "reads": _reads(config)},
        description={
            "data": (
                f"{counts} {read} rows out of {len(data.series)} series, "
                f"{rows:,} rows {form.step.words} apart, season {form.season}"
                + (f", {filled:,} rows filled" if filled else "")
                + (f"; in {config.batch_size} lanes, bptt {config.bptt}" if bptt else "")
            ),
            "read": ", ".join([config.target, *_read(config, form), *form.calendar]),
            "model": (
                f"LSTM {form.channels}→{config.hidden_size}, {counted(config.num_layers, 'layer')}, "
                f"{form.horizon}×{_outputs(config)} outputs, {parameters:,} parameters"
            ),
        },
        unit=_unit(config),
        carries=bptt is not None,
    )


def _read(config: SeriesConfig, form: Form) -> Iterator[str]:
    """The features as they are said: which are known in advance, and which are names."""
    for name in (*config.features, *config.known):
        notes = ["known"] * (name in config.known)
        if name in form.categories:
            notes.append(counted(len(form.categories[name]), "name"))
        yield f"{name} ({', '.join(notes)})" if notes else name


AT_ONCE = 500
"""Rows of a series that go through the model in one call, where its state is carried on."""

UNITS = {
    "mse": "mean squared error (of scaled targets)",
    "mae": "mean absolute error (of scaled targets)",
    "pinball": "pinball loss (of scaled targets)",
}


def train(task: Task, config: SeriesConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder: see `train_problem`."""
    return train_problem(task.name, config, problem, folder, report, resume)


def evaluate(task: Task, config: SeriesConfig, run: Run, weights: str) -> Score:
    """The loss of a run's weights on the test part, of scaled targets."""
    runner, form = _load(config, run.weights(weights))
    return runner.evaluate(samples_of(data_of(config, form), config, "test"))


def backtest(config: SeriesConfig, run: Run, weights: str) -> Replay:
    """Forecast from each origin in the test part, by the model and by the baselines: see `tasks.task.Runner`."""
    runner, form = _load(config, run.weights(weights))
    return _replay(runner, data_of(config, form), config)


def _replay(runner: Runner, data: Data, config: SeriesConfig) -> Replay:
    form, test = data.form, windows_in(data, config, "test")
    mean, deviation, scale = _of_groups(data, test)

    def unscaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
        wide = (slice(None), *[None] * (values.ndim - 1))
        result: NDArray[np.float64] = values * deviation[wide] + mean[wide]
        return result

    forecasts = unscaled(_tested(runner, data, config, test))
    truth = _truth(data, test)
    of_quantiles = forecasts if config.quantiles else None
    own = forecasts[:, :, _middle(config)]
    errors = measure(MODEL, own, truth, scale, config.quantiles, of_quantiles)
    baselines = {"naive": naive(data.series, test, form.horizon)}
    if form.season > 1:
        baselines[f"seasonal naive ({form.season})"] = seasonal_naive(data.series, test, form.horizon, form.season)
    dev = windows_in(data, config, "dev") if config.dev_fraction else None
    by_ridge = linear(windows_in(data, config, "train"), dev, test, form)
    if by_ridge is not None:
        baselines["linear (ridge)"] = unscaled(by_ridge)
    for name, forecast in baselines.items():
        errors += measure(name, forecast, truth, scale)
    errors.sort(key=lambda each: (each.last - each.first + 1 < form.horizon, each.first))  # the whole horizon first
    interval = config.quantiles[-1] - config.quantiles[0] if config.quantiles else None
    result = Backtest(config.target, len(test), len(data.series), form.season, interval, errors)
    points = {MODEL: own, **baselines}
    return Replay(result, data.series, test, forecasts, config.quantiles, points, truth, deviation)


def forecast(config: SeriesConfig, run: Run, weights: str, path: Path) -> list[Forecast]:
    """Forecast what comes after the last target of each series in a file.

    Parameters
    ----------
    config : SeriesConfig
        The run's settings.
    run : Run
        The folder.
    weights : {"best", "last"}
        Which ones.
    path : path
        A file with the columns that the run reads. What is known in advance is in rows whose target is empty.

    Raises
    ------
    RunError
        The weights are missing, damaged, or not those of the settings.
    DataError
        The file is not in order, or lacks what the model reads.
    """
    runner, form = _load(config, run.weights(weights))
    return [origin.forecast for origin in _after(runner, form, config, path)]


def _after(runner: Runner, form: Form, config: SeriesConfig, path: Path) -> list[Origin]:
    """What comes after the last target of each series in a file."""
    series, _ = read_series(path, columns_of(config, form), config.fill, form.step)
    need_known(series, form, config, path)
    found = []
    for one in series:
        if len(one) < form.window:
            raise DataError(
                f"{path}: {one.title} has {len(one)} rows up to its last {config.target}, needed are at least "
                f"{form.window}, a window: give more of the past"
            )
        if config.known and one.future < form.horizon:
            raise DataError(
                f"{path}: {one.title} has {one.future} rows after its last {config.target}, needed are {form.horizon} "
                f"with {', '.join(config.known)}: add rows whose {config.target} is empty"
            )
        count, group = len(one), form.groups[one.name]
        if one.future >= form.horizon:
            ahead = one.times.take(slice(count, count + form.horizon))
        else:
            last = one.times.values[count - 1].item()
            ahead = replace(one.times, values=form.step.after(last, form.horizon))
        known = one.known[count : count + form.horizon] if config.known else np.empty((form.horizon, 0))
        if bptt_of(config) is None:
            window = last_window(one, form, ahead, known)
            inputs: tuple[Any, ...] = (torch.from_numpy(window),)
            values = _forecasts(runner, window)[0]
        else:
            whole = with_future(one, ahead, known)
            inputs = _rows_before(whole, count, form, config)
            values = _carried(runner, whole, form, config)[-1]
        values = values * group.deviation[0] + group.mean[0]
        found.append(Origin(Forecast(one, ahead, values), count, inputs, _steps_before(count, form, config)))
    return found


def frame_of(forecasts: Sequence[Forecast], config: SeriesConfig) -> "pl.DataFrame":
    """Forecasts as a table: the group and the time, if the run has such columns (else the row), and the forecast.

    Quantiles have a column each, such as kw_q0.1; kw itself is the median then.
    """
    import polars as pl

    columns: dict[str, pl.Series] = {}
    horizon = len(forecasts[0].times.values)
    if config.group is not None:
        labels = [each.series.name for each in forecasts for _ in range(horizon)]
        columns[config.group] = pl.Series(labels)
    times = replace(forecasts[0].times, values=np.concatenate([each.times.values for each in forecasts]))
    columns["row" if times.kind == "row" else config.time or "time"] = times.column()
    found = np.concatenate([each.values for each in forecasts])
    columns[config.target] = pl.Series(found[:, _middle(config)])
    for place, quantile in enumerate(config.quantiles):
        columns[f"{config.target}_q{quantile:g}"] = pl.Series(found[:, place])
    return pl.DataFrame(columns)


def judge(task: Task, config: SeriesConfig, run: Run, weights: str) -> Verdicts:
    """Refuse: a forecast has no classes."""
    raise ArgumentError(
        f"a confusion matrix is for tasks with classes, and {task.name} has none: see gatewise evaluate"
    )


def predict(config: SeriesConfig, run: Run, weights: str, given: str) -> Prediction:
    """Refuse: a forecast has no classes; see `forecast`."""
    raise ArgumentError("series are forecast from a file and have no classes: see gatewise predict --help")


def look(task: Task, config: SeriesConfig, run: Run, weights: str, given: Sequence[str]) -> ForecastSubject:
    """Load a run's model, and what it can be looked at with."""
    runner, form = _load(config, run.weights(weights))
    ahead = [origin for path in given for origin in _after(runner, form, config, Path(path))]
    data = data_of(config, form)
    score, replay = runner.evaluate(samples_of(data, config, "test")), _replay(runner, data, config)
    test = replay.windows

    def at(place: int) -> Origin:
        one, row = data.series[test.groups[place]], int(test.origins[place])
        found = Forecast(one, one.times.take(slice(row, row + form.horizon)), replay.forecasts[place])
        if bptt_of(config) is None:
            inputs: tuple[Any, ...] = (torch.from_numpy(test.inputs[place : place + 1]),)
        else:
            inputs = _rows_before(one, row, form, config)
        return Origin(found, row, inputs, _steps_before(row, form, config))

    return ForecastSubject(
        runner.model.eval(),
        score,
        _unit(config),
        replay,
        _probed(test, form, config),
        bptt_of(config) is not None,
        at,
        lambda most: _probe(runner, data, config, test, _probed(test, form, config), most),
        ahead,
    )


def probe(task: Task, config: SeriesConfig, run: Run, weights: str, steps: int | None) -> Probe:
    """Load the model, and windows of the test part; or, where the state is carried on, the rows before some origins."""
    runner, form = _load(config, run.weights(weights))
    data = data_of(config, form)
    test = windows_in(data, config, "test")
    if bptt_of(config) is None and steps not in (None, form.window):
        raise ArgumentError(f"steps is {steps}, and the model reads windows of {form.window} rows: leave it out")
    return _probe(runner, data, config, test, steps or _probed(test, form, config), PROBED)


def _probed(test: Windows, form: Form, config: SeriesConfig) -> int:
    """How many rows a probe's sequences have where nobody says it."""
    bptt = bptt_of(config)
    return form.window if bptt is None else min(4 * bptt.reach, int(test.origins.max()))


def _probe(runner: Runner, data: Data, config: SeriesConfig, test: Windows, length: int, most: int) -> Probe:
    """The rows before some origins of the test part, at most so many."""
    form, bptt = data.form, bptt_of(config)
    there = np.flatnonzero(test.origins >= length)
    if not len(there):
        longest = int(test.origins.max())
        raise ArgumentError(f"steps is {length}, and there are {longest} rows before the last origin: make it smaller")
    places = there[np.linspace(0, len(there) - 1, min(most, len(there))).round().astype(np.intp)]
    targets, model = torch.from_numpy(test.targets[places]), runner.model.eval()
    if bptt is None:
        inputs: tuple[object, ...] = (torch.from_numpy(test.inputs[places]),)
        return Probe(model, inputs, lambda out: runner.loss(out, targets), len(places), length, "row", length)
    lag = lag_of(form, config)
    of_each = [step_inputs(one, form, lag) for one in data.series]
    rows = np.stack([of_each[test.groups[n]][test.origins[n] - length : test.origins[n]] for n in places])
    trained = sum(borders_of(one, form)[0] for one in data.series)
    at_end = len(places), length, "row", min(bptt.reach, -(-trained // config.batch_size))  # (no lane is longer)
    return Probe(model, _from_fresh(rows), lambda out: runner.loss(out[0][:, -1], targets), *at_end)


def _from_fresh(rows: NDArray[np.float32]) -> tuple[Any, ...]:
    """What a model whose state is carried on is called with to read rows (B, T, ·) from a state of zeros."""
    return torch.from_numpy(rows), torch.zeros(rows.shape[:2], dtype=torch.bool), None


def _steps_before(row: int, form: Form, config: SeriesConfig) -> int:
    """How many rows before one are looked at: a window, and where the state is carried on four times the truncation."""
    bptt = bptt_of(config)
    return form.window if bptt is None else min(row, max(form.window, 4 * bptt.reach))


def _rows_before(series: Series, row: int, form: Form, config: SeriesConfig) -> tuple[Any, ...]:
    """These rows, where the state is carried on."""
    first = row - _steps_before(row, form, config)
    return _from_fresh(step_inputs(series, form, lag_of(form, config))[None, first:row])


def model(config: SeriesConfig, run: Run, weights: str) -> nn.Module:
    """Make a run's model."""
    return _load(config, run.weights(weights))[0].model


READ_BY = ("target", "time", "features", "known", "categories", "group", "fill")
MADE_BY = ("window", "horizon", "bptt", "skip", "highway", "quantiles")
"""Settings that a model's inputs and its outputs depend on: what it was trained with it is used with, or not at all."""


def _reads(config: SeriesConfig) -> str:
    """These settings, as they are kept with the weights."""
    return json.dumps({name: getattr(config, name) for name in READ_BY + MADE_BY})


def _as_typed(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _outputs(config: SeriesConfig) -> int:
    return max(1, len(config.quantiles))


def _middle(config: SeriesConfig) -> int:
    """Which output is the point forecast: the median."""
    return config.quantiles.index(0.5) if config.quantiles else 0


def _unit(config: SeriesConfig) -> str:
    """What the loss is measured in."""
    return UNITS["pinball" if config.quantiles else config.point]


def _loss(config: SeriesConfig) -> Loss:
    if config.quantiles:
        loss = pinball_loss(config.quantiles)
    else:
        loss = squared_error if config.point == "mse" else absolute_error
    return loss if config.bptt is None else of_those_there(loss)


def _build(form: Form, config: SeriesConfig) -> Forecaster | CarriedForecaster:
    sizes = (form, config.hidden_size, config.num_layers, config.dropout, _outputs(config))
    if config.bptt is not None:
        return built(config, lambda: CarriedForecaster(*sizes))
    return built(config, lambda: Forecaster(*sizes, config.skip, highway=config.highway))


def _tested(runner: Runner, data: Data, config: SeriesConfig, test: Windows) -> NDArray[np.float64]:
    """Scaled forecasts from the origins of windows, (N, horizon, Q)."""
    if bptt_of(config) is None:
        return _forecasts(runner, test.inputs)
    found = np.empty((len(test), data.form.horizon, _outputs(config)))
    for place, one in enumerate(data.series):
        own = test.groups == place
        found[own] = _carried(runner, one, data.form, config)[test.origins[own] - 1]
    return found


def _carried(runner: Runner, series: Series, form: Form, config: SeriesConfig) -> NDArray[np.float64]:
    """Scaled forecasts after each row of a series that is read from its beginning, (N, horizon, Q)."""
    inputs = step_inputs(series, form, lag_of(form, config))
    nothing = np.zeros((len(inputs), form.horizon), np.float32)
    lanes = Lanes(Track(inputs, nothing, np.arange(len(inputs)) == 0), (1, 1), AT_ONCE, evaluated_in=1)
    found = torch.cat([outputs[0] for _, outputs in runner.outputs(lanes)])
    return np.sort(found.double().numpy(), axis=2)


def _forecasts(runner: Runner, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scaled forecasts (N, horizon, Q). Quantiles that cross are sorted (Chernozhukov et al. 2010)."""
    outputs = runner.predict(torch.from_numpy(inputs)).double().numpy()
    return np.sort(outputs, axis=2)


def _of_groups(data: Data, windows: Windows) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The target's mean, its deviation and the scale of MASE of each window's series."""
    groups = [data.form.groups[one.name] for one in data.series]
    table = np.array([(group.mean[0], group.deviation[0], group.naive_error) for group in groups])[windows.groups]
    return table[:, 0], table[:, 1], table[:, 2]


def _truth(data: Data, windows: Windows) -> NDArray[np.float64]:
    """What came to be, shape (N, horizon); NaN where it was not observed."""
    truth = np.empty((len(windows), data.form.horizon))
    for place, one in enumerate(data.series):
        own = windows.groups == place
        there = np.where(one.observed, one.target, np.nan)
        truth[own] = there[windows.origins[own, None] + np.arange(data.form.horizon)]
    return truth


def _load(config: SeriesConfig, path: Path) -> tuple[Runner, Form]:
    """The model of a run with its weights, and what the series were like that it was trained on."""
    tensors, kept = read_tensors(path)
    try:
        form, reads = Form.from_json(kept["form"]), kept["reads"]
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} is not of a model that forecasts series: take the run's own file") from error
    if reads != _reads(config):
        was, now = json.loads(reads), json.loads(_reads(config))
        name = next(name for name in now if was.get(name) != now[name])
        raise RunError(
            f"{path} was trained with {name} {_as_typed(was.get(name))}, and the run's config.toml says "
            f"{_as_typed(now[name])}: restore it"
        )
    model = _build(form, config)
    fill_weights(model, tensors, path)
    return Runner(model, _loss(config), config, carries=config.bptt is not None), form
