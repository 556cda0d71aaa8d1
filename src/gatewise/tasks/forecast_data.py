"""What the settings of a forecast name: the series of a file, and the samples that are made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gatewise.data.series import Columns, Series, read_series, with_categories
from gatewise.data.steps import Calendar
from gatewise.data.stepwise import make_steps
from gatewise.data.windows import Form, Part, Windows, make_form, make_windows, origins_of
from gatewise.errors import ArgumentError, DataError
from gatewise.tasks.bptt import Bptt, parse_bptt
from gatewise.tasks.series import SeriesConfig
from gatewise.train.lanes import Lanes, Track
from gatewise.train.samples import Examples, Samples


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
    columns = columns_of(config, form)
    if form is None:
        columns = with_categories(config.data, columns, config.categories)
    series, step = read_series(config.data, columns, config.fill, None if form is None else form.step)
    if form is not None:
        need_known(series, form, config, config.data)
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
        channels=columns.channels([*columns.features, *columns.known]),
    )
    if config.skip == "season" and form.season > form.window:
        raise ArgumentError(
            f"skip is season and a season has {form.season} rows, needed is one within the window of {form.window}: "
            "make window larger, or skip last"
        )
    return Data(series, form)


def windows_of(data: Data, config: SeriesConfig) -> dict[str, Windows]:
    """The windows of each part; no "dev" where its fraction is 0."""
    return {part: windows_in(data, config, part) for part in parts_of(config)}


def parts_of(config: SeriesConfig) -> tuple[Part, ...]:
    """Those that there are: no "dev" where its fraction is 0."""
    return ("train", "dev", "test") if config.dev_fraction else ("train", "test")


def windows_in(data: Data, config: SeriesConfig, part: Part) -> Windows:
    """The windows of a part."""
    return make_windows(data.series, data.form, part, 1 if part == "train" else config.stride)


def samples_of(data: Data, config: SeriesConfig, part: Part) -> Samples:
    """What is trained on or evaluated: windows, or lanes where the state is carried on."""
    bptt = bptt_of(config)
    if bptt is None:
        return examples(windows_in(data, config, part))
    steps = make_steps(data.series, data.form, part, lag_of(data.form, config))
    track = Track(steps.inputs, steps.targets, steps.begins)
    return Lanes(track, bptt.chunks, bptt.length, config.seed, evaluated_in=1)


def count_of(data: Data, config: SeriesConfig, part: Part) -> int:
    """From how many rows there is a forecast in a part."""
    stride = 1 if part == "train" or config.bptt is not None else config.stride
    return sum(map(len, origins_of(data.series, data.form, part, stride)))


def lag_of(form: Form, config: SeriesConfig) -> int:
    """Rows back to what a naive forecast repeats; 0 where the model adds to none."""
    return {"none": 0, "last": 1, "season": form.season}[config.skip]


def bptt_of(config: SeriesConfig) -> Bptt | None:
    """How the state is carried on; None where windows are read."""
    return None if config.bptt is None else parse_bptt(config.bptt)


def columns_of(config: SeriesConfig, form: Form | None = None) -> Columns:
    """What the columns of the file are, with the categories that a training has seen."""
    named = (config.target, config.time, config.features, config.known, config.group, config.time_format)
    return Columns(*named, {} if form is None else form.categories)


def _calendar(config: SeriesConfig) -> tuple[Calendar, ...] | None:
    """What is asked to be read of the times; None where it is for the data to say."""
    return tuple(name for name in config.calendar if name != "none") if config.calendar else None


def need_known(series: Sequence[Series], form: Form, config: SeriesConfig, path: Path) -> None:
    """Refuse series that the training did not see, as they have no scaling, and times of another kind.

    Raises
    ------
    DataError
        There is such a one; or the times have a zone and had none at the training, or the other way round.
    """
    if series[0].times.zoned != form.zoned:
        here, there, remedy = (
            ("a", "none", "give times without one, as the training's clocks showed")
            if series[0].times.zoned
            else ("no", "one", "give each with its own, such as 2010-12-31 23:00+01:00")
        )
        raise DataError(f"{path}: {config.time} has {here} time zone and had {there} at the training: {remedy}")
    for one in series:
        if one.name not in form.groups:
            there = ", ".join(list(form.groups)[:10])
            raise DataError(
                f"{path}: the group {one.name!r} was not there at the training, needed are {there}: remove it"
            )
        if one.times.kind not in (form.kind, *(("date", "moment") if form.kind in ("date", "moment") else ())):
            raise DataError(f"{path}: the times are of the kind {one.times.kind}, needed is {form.kind}: convert them")


def examples(windows: Windows) -> Examples:
    """Rows (N, window + horizon, channels) and targets (N, horizon) as float32."""
    return Examples(torch.from_numpy(windows.inputs), torch.from_numpy(windows.targets))
