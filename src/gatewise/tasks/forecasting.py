"""Series read by an LSTM, and forecast by linear layers after the last row of the window."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gatewise.data.series import Columns, Series, read_series
from gatewise.data.steps import Calendar
from gatewise.data.table import Times
from gatewise.data.windows import Form, Part, Windows, last_window, make_form, make_windows
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.nn import LSTM
from gatewise.tasks.backtest import MODEL, Backtest, linear, measure, naive, seasonal_naive
from gatewise.tasks.mistakes import Verdicts
from gatewise.tasks.series import SeriesConfig
from gatewise.tasks.task import Outcome, Prediction, Report, Subject, Task
from gatewise.tasks.training import Problem, built, counted, train_problem
from gatewise.train.progress import Score
from gatewise.train.run import Run
from gatewise.train.runner import Loss, Runner
from gatewise.train.samples import Examples
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

if TYPE_CHECKING:
    import polars as pl


class Forecaster(nn.Module):
    """An LSTM over a window of rows, and a linear layer on its last output and what is known of the horizon.

    Parameters
    ----------
    form : Form
        What the rows are like.
    hidden_size, num_layers, dropout
        Of the LSTM.
    outputs : int, default 1
        Numbers for each step of the horizon: one, or a quantile each.
    skip : {"none", "last", "season"}, default "none"
        What is added to: nothing, the last value, or the value a season before. With the last two the model begins as
        that naive forecast; it reads the window's target as its difference to the last value, and beside it the change
        over a row or a season in units of `spread`, in which it also answers: a series may be far larger than what is
        left to forecast of it.
    highway : bool, default False
        Whether a linear layer on the window's target, or with "season" on its change, is added.
    lstm : callable, default gatewise.nn.LSTM
        Makes the LSTM from the arguments of `torch.nn.LSTM`, such as that class itself.

    Attributes
    ----------
    spread : Tensor, shape ()
        The root mean square of what is left to forecast over the training part, kept with the weights; 1 at first.

    Examples
    --------
    >>> from gatewise.data.steps import Step
    >>> form = Form(48, 12, 1, Step("row", 1), "row", (), 2, 1, False, {})
    >>> Forecaster(form, 16, outputs=3)(torch.zeros(5, 60, 4)).shape
    torch.Size([5, 12, 3])
    """

    def __init__(
        self,
        form: Form,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        outputs: int = 1,
        skip: Literal["none", "last", "season"] = "none",
        highway: bool = False,
        lstm: Callable[..., nn.Module] = LSTM,
    ) -> None:
        super().__init__()
        self.window, self.horizon, self.season = form.window, form.horizon, form.season
        self.past, self.outputs, self.skip = 1 + form.features, outputs, skip
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(()))
        self.lstm = lstm(form.channels + (skip != "none"), hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.linear = nn.Linear(hidden_size + form.horizon * form.ahead, form.horizon * outputs)
        self.highway = nn.Linear(form.window, form.horizon * outputs, bias=False) if highway else None
        if skip != "none":
            for weight in [*self.linear.parameters(), *(self.highway.parameters() if self.highway else ())]:
                nn.init.zeros_(weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (B, window + horizon, channels) to forecasts (B, horizon, outputs); the first state is zero."""
        window, ahead = rows[:, : self.window], rows[:, self.window :, self.past :]
        target = window[:, :, :1]
        direct = target
        if self.skip != "none":
            lag = self.season if self.skip == "season" else 1
            change = nn.functional.pad((target[:, lag:] - target[:, :-lag]) / self.spread, (0, 0, lag, 0))
            relative = target - target[:, -1:]
            direct = change if self.skip == "season" else relative
            window = torch.cat([relative, window[:, :, 1:], change], dim=2)
        output, _ = self.lstm(window)
        said = self.linear(torch.cat([output[:, -1], ahead.flatten(1)], dim=1))
        if self.highway is not None:
            said = said + self.highway(direct.flatten(1))
        forecast: Tensor = said.view(-1, self.horizon, self.outputs) * self.spread
        return forecast + self.base(rows)

    def base(self, rows: Tensor) -> Tensor:
        """What is added to, shape (B, horizon, 1), of rows (B, window + horizon, channels)."""
        if self.skip == "none":
            return torch.zeros_like(rows[:, : self.horizon, :1])
        lag = self.season if self.skip == "season" else 1
        return rows[:, self.window - lag + torch.arange(self.horizon, device=rows.device) % lag, :1]

    @torch.no_grad()
    def fit_spread(self, rows: Tensor, targets: Tensor) -> None:
        """Set `spread` from training rows (N, window + horizon, channels) and targets (N, horizon), NaN left out."""
        left = (targets - self.base(rows)[..., 0]).double()
        spread = left[~left.isnan()].square().mean().sqrt().item()
        self.spread.fill_(spread if spread > 0 else 1.0)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of forecasts (B, H, 1); of targets (B, H) that are NaN it is 0.

    Examples
    --------
    >>> squared_error(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[3.0, float("nan")]]))
    tensor(2.)
    """
    return _mean((outputs[..., 0] - _there(targets)) ** 2, targets)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute error of forecasts (B, H, 1); of targets (B, H) that are NaN it is 0.

    Examples
    --------
    >>> absolute_error(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[3.0, float("nan")]]))
    tensor(1.)
    """
    return _mean((outputs[..., 0] - _there(targets)).abs(), targets)


def pinball_loss(quantiles: Sequence[float]) -> Loss:
    """The mean pinball loss of forecasts (B, H, Q); of targets (B, H) that are NaN it is 0. See `backtest.pinball`.

    Examples
    --------
    >>> pinball_loss([0.5])(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[3.0, float("nan")]]))
    tensor(0.5000)
    """
    shares = torch.tensor(quantiles)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        error = _there(targets).unsqueeze(2) - outputs
        own = shares.to(outputs.device)
        return _mean(torch.maximum(own * error, (own - 1) * error).mean(dim=2), targets)

    return loss


def _there(targets: Tensor) -> Tensor:
    return torch.nan_to_num(targets)


def _mean(losses: Tensor, targets: Tensor) -> Tensor:
    """The mean of losses (B, H), 0 where there is no target: a batch's is then the mean of its parts', as processes
    that share it need.
    """
    return (losses * ~targets.isnan()).mean()


@dataclass(frozen=True, eq=False)
class Data:
    """The series of a file, and what they are like."""

    series: list[Series]
    form: Form


def data_of(config: SeriesConfig, form: Form | None = None) -> Data:
    """Read what the settings name.

    Parameters
    ----------
    config : SeriesConfig
        The settings.
    form : Form, default: as the data are
        That of a training: its borders and its scaling.

    Raises
    ------
    DataError
        The file is not in order, its series are too short, or not those of the training.
    ArgumentError
        The settings do not fit it.
    """
    series, step = read_series(config.data, _columns(config), config.fill, None if form is None else form.step)
    if form is not None:
        _need_known(series, form, config.data)
        lacking = [name for name in form.groups if name not in {one.name for one in series}]
        if lacking:
            raise DataError(f"{config.data} lacks the group {lacking[0]!r}: give the data that it was trained on")
        return Data(series, form)
    form = make_form(
        series,
        step,
        window=config.window,
        horizon=config.horizon,
        season=config.season,
        calendar=_calendar(config),
        scaling=config.scaling,
        dev_fraction=config.dev_fraction,
        test_fraction=config.test_fraction,
        whole_windows=config.fill == "linear",
    )
    if config.skip == "season" and form.season > form.window:
        raise ArgumentError(
            f"skip is season and a season has {form.season} rows, needed is one within the window of {form.window}: "
            "make window larger, or skip last"
        )
    return Data(series, form)


def windows_of(data: Data, config: SeriesConfig) -> dict[str, Windows]:
    """The windows of each part; no "dev" where its fraction is 0."""
    parts: list[Part] = ["train", "dev", "test"] if config.dev_fraction else ["train", "test"]
    return {part: _windows(data, config, part) for part in parts}


def problem(config: SeriesConfig) -> Problem:
    """What the settings train."""
    data = data_of(config)
    sets = windows_of(data, config)
    form = data.form
    model = _build(form, config)
    if config.skip != "none":
        model.fit_spread(torch.from_numpy(sets["train"].inputs), torch.from_numpy(sets["train"].targets))
    counts = ", ".join(f"{len(windows):,} {name}" for name, windows in sets.items())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = sum(map(len, data.series))
    filled = sum(int((~one.complete).sum()) for one in data.series)
    return Problem(
        model,
        _loss(config),
        {},
        {name: examples(windows) for name, windows in sets.items() if name != "test"},
        about={"form": form.to_json()},
        description={
            "data": (
                f"{counts} windows of {form.window}+{form.horizon} rows out of {len(data.series)} series, "
                f"{rows:,} rows {form.step.words} apart, season {form.season}"
                + (f", {filled:,} rows filled" if filled else "")
            ),
            "read": ", ".join(
                [config.target, *config.features, *(f"{name} (known)" for name in config.known), *form.calendar]
            ),
            "model": (
                f"LSTM {form.channels}→{config.hidden_size}, {counted(config.num_layers, 'layer')}, "
                f"{form.horizon}×{_outputs(config)} outputs, {parameters:,} parameters"
            ),
        },
        unit=UNITS["pinball" if config.quantiles else config.point],
    )


UNITS = {
    "mse": "mean squared error (of scaled targets)",
    "mae": "mean absolute error (of scaled targets)",
    "pinball": "pinball loss (of scaled targets)",
}


def examples(windows: Windows) -> Examples:
    """Rows (N, window + horizon, channels) and targets (N, horizon) as float32."""
    return Examples(torch.from_numpy(windows.inputs), torch.from_numpy(windows.targets))


def train(task: Task, config: SeriesConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder: see `train_problem`."""
    return train_problem(task.name, config, problem, folder, report, resume)


def evaluate(task: Task, config: SeriesConfig, run: Run, weights: str) -> Score:
    """The loss of a run's weights on the test part, of scaled targets.

    Raises
    ------
    RunError
        The weights are missing, damaged, or not those of the settings.
    DataError
        The data are not in order.
    """
    runner, form = _load(config, run.weights(weights))
    return runner.evaluate(examples(_windows(data_of(config, form), config, "test")))


@dataclass(frozen=True, eq=False)
class Replay:
    """A backtest, and what it was computed from.

    Parameters
    ----------
    result : Backtest
        The errors.
    series : list of Series
        What the data hold.
    windows : Windows
        Those of the test part.
    forecasts : float64 array, shape (N, horizon, Q)
        In the target's units.
    quantiles : tuple of float
        Which; none for a point forecast.
    """

    result: Backtest
    series: list[Series]
    windows: Windows
    forecasts: NDArray[np.float64]
    quantiles: tuple[float, ...]


def backtest(config: SeriesConfig, run: Run, weights: str) -> Replay:
    """Forecast from each origin in the test part, by the model and by the baselines.

    Parameters
    ----------
    config : SeriesConfig
        The run's settings.
    run : Run
        The folder.
    weights : {"best", "last"}
        Which ones.

    Raises
    ------
    RunError
        The weights are missing, damaged, or not those of the settings.
    DataError
        The data are not in order, or not those of the training.
    """
    runner, form = _load(config, run.weights(weights))
    data = data_of(config, form)
    test = _windows(data, config, "test")
    mean, deviation, scale = _of_groups(data, test)

    def unscaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
        wide = (slice(None), *[None] * (values.ndim - 1))
        result: NDArray[np.float64] = values * deviation[wide] + mean[wide]
        return result

    forecasts = unscaled(_forecasts(runner, test.inputs))
    truth = _truth(data, test)
    of_quantiles = forecasts if config.quantiles else None
    errors = measure(MODEL, forecasts[:, :, _middle(config)], truth, scale, config.quantiles, of_quantiles)
    baselines = {"naive": naive(data.series, test, form.horizon)}
    if form.season > 1:
        baselines[f"seasonal naive ({form.season})"] = seasonal_naive(data.series, test, form.horizon, form.season)
    dev = _windows(data, config, "dev") if config.dev_fraction else None
    by_ridge = linear(_windows(data, config, "train"), dev, test, form)
    if by_ridge is not None:
        baselines["linear (ridge)"] = unscaled(by_ridge)
    for name, forecast in baselines.items():
        errors += measure(name, forecast, truth, scale)
    errors.sort(key=lambda each: (each.last - each.first + 1 < form.horizon, each.first))  # the whole horizon first
    interval = config.quantiles[-1] - config.quantiles[0] if config.quantiles else None
    result = Backtest(config.target, len(test), len(data.series), form.season, interval, errors)
    return Replay(result, data.series, test, forecasts, config.quantiles)


@dataclass(frozen=True, eq=False)
class Forecast:
    """What comes after the last row of a series.

    Parameters
    ----------
    series : Series
        What was read.
    times : Times, shape (horizon,)
        When it is for.
    values : float64 array, shape (horizon, Q)
        In the target's units: a quantile each, or the point forecast alone.
    """

    series: Series
    times: Times
    values: NDArray[np.float64]


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
    series, _ = read_series(path, _columns(config), config.fill, form.step)
    _need_known(series, form, path)
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
            ahead = Times(form.step.after(last, form.horizon), one.times.kind)
        known = one.known[count : count + form.horizon] if config.known else np.empty((form.horizon, 0))
        inputs = last_window(one, form, ahead, known)
        values = _forecasts(runner, inputs)[0] * group.deviation[0] + group.mean[0]
        found.append(Forecast(one, ahead, values))
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
    times = Times(np.concatenate([each.times.values for each in forecasts]), forecasts[0].times.kind)
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


def look(task: Task, config: SeriesConfig, run: Run, weights: str, given: Sequence[str]) -> Subject:
    """Refuse: the report is of classes."""
    raise ArgumentError(f"gatewise inspect is for tasks with classes, and {task.name} forecasts: see gatewise evaluate")


def model(config: SeriesConfig, run: Run, weights: str) -> nn.Module:
    """Make a run's model.

    Parameters
    ----------
    config : SeriesConfig
        The run's settings.
    run : Run
        The folder.
    weights : {"best", "last"}
        Which ones.

    Raises
    ------
    RunError
        The weights are missing, damaged, or not those of the settings.
    """
    return _load(config, run.weights(weights))[0].model


def _columns(config: SeriesConfig) -> Columns:
    return Columns(config.target, config.time, config.features, config.known, config.group, config.time_format)


def _calendar(config: SeriesConfig) -> tuple[Calendar, ...] | None:
    """What is asked to be read of the times; None where it is for the data to say."""
    return tuple(name for name in config.calendar if name != "none") if config.calendar else None


def _need_known(series: Sequence[Series], form: Form, path: Path) -> None:
    """Refuse series that the training did not see: they have no scaling."""
    for one in series:
        if one.name not in form.groups:
            there = ", ".join(list(form.groups)[:10])
            raise DataError(
                f"{path}: the group {one.name!r} was not there at the training, needed are {there}: remove it"
            )
        if one.times.kind not in (form.kind, *(("date", "moment") if form.kind in ("date", "moment") else ())):
            raise DataError(f"{path}: the times are of the kind {one.times.kind}, needed is {form.kind}: convert them")


def _windows(data: Data, config: SeriesConfig, part: Part) -> Windows:
    return make_windows(data.series, data.form, part, 1 if part == "train" else config.stride)


def _outputs(config: SeriesConfig) -> int:
    return max(1, len(config.quantiles))


def _middle(config: SeriesConfig) -> int:
    """Which output is the point forecast: the median."""
    return config.quantiles.index(0.5) if config.quantiles else 0


def _loss(config: SeriesConfig) -> Loss:
    if config.quantiles:
        return pinball_loss(config.quantiles)
    return squared_error if config.point == "mse" else absolute_error


def _build(form: Form, config: SeriesConfig) -> Forecaster:
    hidden_size, layers, dropout = config.hidden_size, config.num_layers, config.dropout
    outputs = _outputs(config)
    return built(
        config, lambda: Forecaster(form, hidden_size, layers, dropout, outputs, config.skip, highway=config.highway)
    )


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
        form = Form.from_json(kept["form"])
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} is not of a model that forecasts series: take the run's own file") from error
    model = _build(form, config)
    fill_weights(model, tensors, path)
    return Runner(model, _loss(config), config), form
