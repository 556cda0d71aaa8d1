"""Forecasts of series: what is read and refused, what a window may see, how good is measured, what is written."""

import dataclasses
import json
import re

import numpy as np
import polars as pl
import pytest
import torch

from gatewise.cli import main
from gatewise.data.series import Columns, Series, read_series
from gatewise.data.steps import DAY, HOUR, Step, calendar_features, find_step
from gatewise.data.table import Times
from gatewise.data.windows import Form, Windows, borders_of, make_form, make_windows, rows_of
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.tasks import forecasting
from gatewise.tasks.backtest import Backtest, Errors, linear, mase, measure, naive, pinball, seasonal_naive, smape
from gatewise.tasks.forecast_data import data_of, windows_of
from gatewise.tasks.forecaster import Forecaster, pinball_loss
from gatewise.tasks.series import SeriesConfig
from gatewise.tasks.task import Report, task_of, tasks
from gatewise.train import keeper
from gatewise.train.config import read_config, write_config
from gatewise.train.run import Run

SMALL = {"hidden_size": 6, "threads": 1, "epochs": 2, "window": 8, "horizon": 3}
WORDS = ["--hidden-size", "6", "--threads", "1", "--epochs", "1", "--window", "8", "--horizon", "3"]


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """The curves of a training take longer to draw than such a training does; other tests look at them."""
    monkeypatch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)


def table(count=120, seed=0, **changes):
    """Days of a wave of 7 with noise, a feature that follows it, and one that is known: the columns as lists."""
    generator = np.random.default_rng(seed)
    days = np.arange(count)
    known = (days % 5 == 0).astype(float)
    kw = 10 + 3 * np.sin(2 * np.pi * days / 7) + known + 0.1 * generator.standard_normal(count)
    dates = np.datetime64("2001-01-01") + days
    columns = {"day": dates.astype(str), "kw": kw, "wind": kw / 2 + generator.standard_normal(count), "off": known}
    return {name: list(changes.get(name, values)) for name, values in columns.items()}


def write(path, columns):
    frame = pl.DataFrame(columns, strict=False)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file that no test changes."""
    return write(tmp_path_factory.mktemp("data") / "load.csv", table())


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """A run with quantiles, a feature and a known one; nobody changes it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    quantiles = ["--quantiles", "0.1", "0.5", "0.9", "--features", "wind", "--known", "off"]
    words = ["train", "series", "--data", str(file), "--target", "kw", "--time", "day", *WORDS, *quantiles]
    assert main([*words, "--epochs", "4", "--skip", "season", "--highway", "--run", str(folder)]) == 0
    return folder


def train(config, folder, report=None, resume=False):
    task = tasks()["series"]
    return task.runner().train(task, config, folder, report or Report(), resume)


def plain(target, future=0, name="", observed=None):
    """A series of rows without times and features."""
    target = np.array(target, float)
    there = np.ones(len(target), bool) if observed is None else np.array(observed)
    clock = Times(np.arange(len(target) + future), "row")
    return Series(name, clock, target, np.ones((len(target), 0)), np.ones((len(target) + future, 0)), there, there)


def form_of(series, **changes):
    settings = {
        "window": 4,
        "horizon": 2,
        "season": None,
        "calendar": None,
        "scaling": "group",
        "dev_fraction": 0.1,
        "test_fraction": 0.2,
        "whole_windows": False,
    }
    return make_form(series, Step("row", 1), **settings | changes)


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_of_a_file(tmp_path, ending):
    columns = table(5, kw=[1.5, -2, 3e2, 4, None], day=[f"2001-03-0{day}" for day in range(1, 6)])
    if ending == "parquet":
        columns["day"] = pl.Series(columns["day"]).str.to_date()
    path = write(tmp_path / f"a.{ending}", columns)
    (series,), step = read_series(path, Columns("kw", "day", ("wind",), ("off",)))
    assert step == Step("time", DAY)
    assert series.target.tolist() == [1.5, -2, 300, 4]
    assert series.features.shape == (4, 1)
    assert series.known.shape == (5, 1)
    assert series.future == 1
    assert series.times.shown()[-1] == "2001-03-05"
    np.testing.assert_allclose(series.features[:, 0], columns["wind"][:4])


@pytest.mark.parametrize(
    ("written", "step"),
    [
        (["2010-01-01 00:00", "2010-01-01 06:00", "2010-01-01 12:00"], "6 hours"),
        (["2010-01-01T00:00:00Z", "2010-01-01T01:00:00+00:00", "2010-01-01T03:00:00+01:00"], "1 hour"),
        (["2010/01/01", "2010/01/08", "2010/01/15"], "1 week"),
        (["2010-01", "2010-02", "2010-03"], "1 month"),
        (["2010-01-31", "2010-02-28", "2010-03-31"], "1 month"),
        (["2010-02-15", "2010-05-15", "2010-08-15"], "3 months"),
        (["31.12.2010", "31.12.2011", "31.12.2012"], "12 months"),
        (["1700", "1701", "1702"], "1"),
        ([0.5, 1.0, 1.5], "0.5"),
    ],
)
def test_times_as_they_are_written(tmp_path, written, step):
    path = write(tmp_path / "a.csv", {"at": written, "kw": [1.0, 2.0, 3.0]})
    (series,), found = read_series(path, Columns("kw", "at"))
    assert found.words == step
    last = series.times.values[-1].item()
    np.testing.assert_array_equal(found.after(series.times.values[0].item(), 2)[-1], last)


def test_dates_of_another_form_are_told(tmp_path):
    path = write(tmp_path / "a.csv", {"at": ["20010101", "20010102", "20010103"], "kw": [1, 2, 3]})
    (series,), step = read_series(path, Columns("kw", "at", time_format="%Y%m%d"))
    assert (series.times.shown()[1], step.words) == ("2001-01-02", "1 day")
    write(path, {"at": ["3/1/2001", "3/2/2001", "3/3/2001"], "kw": [1, 2, 3]})
    with pytest.raises(DataError, match=r"row 1: at is '3/1/2001', needed is .*, or give --time-format"):
        read_series(path, Columns("kw", "at"))
    (series,), _ = read_series(path, Columns("kw", "at", time_format="%m/%d/%Y"))
    assert series.times.shown()[1] == "2001-03-02"


def test_months_and_what_comes_after():
    ends = np.array(["2023-11-30", "2023-12-31", "2024-01-31"], "datetime64[us]").astype(np.int64)
    step = find_step([Times(ends, "date")])
    after = Times(step.after(ends[-1], 3), "date").shown()
    assert after == ["2024-02-29", "2024-03-31", "2024-04-30"]


def test_the_calendar_s_features():
    moments = np.array(["2001-01-01T06:00", "2001-07-02T12:00", "2001-01-01T06:00"], "datetime64[us]").astype(np.int64)
    hour = calendar_features(Times(moments, "moment"), ["hour"])
    np.testing.assert_allclose(hour[:2], [[1, 0], [0, -1]], atol=1e-12)
    weekday = calendar_features(Times(moments, "moment"), ["weekday"])
    np.testing.assert_allclose(weekday[0], [0, 1], atol=1e-12)  # both are Mondays
    np.testing.assert_allclose(weekday[1], [0, 1], atol=1e-12)
    month = calendar_features(Times(moments, "moment"), ["month", "year-day"])
    np.testing.assert_allclose(month[1, :2], [0, -1], atol=1e-12)
    np.testing.assert_allclose(month[0], [0, 1, 0, 1], atol=1e-12)


def test_groups_are_series_of_their_own(tmp_path):
    columns = {"shop": ["b", "a", "b", "a", "b"], "day": [1, 5, 2, 6, 3], "kw": [1, 10, 2, 20, 3]}
    series, step = read_series(write(tmp_path / "a.csv", columns), Columns("kw", "day", group="shop"))
    assert [(one.name, one.target.tolist()) for one in series] == [("b", [1, 2, 3]), ("a", [10, 20])]
    assert step == Step("number", 1)


def test_missing_values_are_filled_as_told(tmp_path):
    path = write(tmp_path / "a.csv", {"day": [1, 2, 3, 5, 6], "kw": [1, None, 4, 6, 8], "wind": [1, 1, None, None, 3]})
    columns = Columns("kw", "day", ("wind",))
    (held,), _ = read_series(path, columns, "previous")
    assert held.target.tolist() == [1, 1, 4, 4, 6, 8]
    assert held.features[:, 0].tolist() == [1, 1, 1, 1, 1, 3]
    assert held.observed.tolist() == [True, False, True, False, True, True]
    assert held.complete.tolist() == [True, False, False, False, False, True]
    (drawn,), _ = read_series(path, columns, "linear")
    assert drawn.target.tolist() == [1, 2.5, 4, 5, 6, 8]
    np.testing.assert_allclose(drawn.features[:, 0], [1, 1, 1.5, 2, 2.5, 3])
    assert drawn.times.values.tolist() == [1, 2, 3, 4, 5, 6]


# --- what is refused ----------------------------------------------------------------------------------------

DAYS = table(6)["day"]
BAD = {
    "no column": ({}, ["--target", "kwh"], r"load.csv has no column 'kwh', there are day, kw, wind, off: name one"),
    "not numeric": ({"kw": ["1", "x", *"2345"]}, [], r"row 2: kw is 'x', needed is a number: mend the file"),
    "nan": (
        {"kw": [1.0, 2.0, float("nan"), 3, 4, 5]},
        [],
        r"row 3: kw is 'NaN', needed is a finite number or an empty",
    ),
    "too large": ({"kw": [1, 2, 3, -2e150, 5, 6]}, [], r"row 4: kw is '-2e\+150', needed is a number up to 1e\+150"),
    "infinity": ({"wind": [1, 2, 3, 4, float("inf"), 6]}, ["--features", "wind"], r"row 5: wind is 'inf', needed is a"),
    "an empty cell": ({"kw": [1, None, 3, 4, 5, 6]}, [], r"row 2: kw is empty, .* or train with --fill previous or"),
    "no value before": (
        {"wind": [None, 2, 3, 4, 5, 6]},
        ["--features", "wind", "--fill", "linear"],
        "row 1: wind is em",
    ),
    "an empty time": ({"day": [*DAYS[:5], None]}, [], r"row 6: day is empty, needed is a time"),
    "no time": ({"day": ["2001-01-01", "soon", *DAYS[2:]]}, [], r"row 2: day is 'soon', needed is a number or a date"),
    "times go back": (
        {"day": [*DAYS[:3], DAYS[4], DAYS[3], DAYS[5]]},
        [],
        r"row 5: day is 2001-01-04 after 2001-01-05",
    ),
    "a time twice": ({"day": [*DAYS[:3], *DAYS[2:5]]}, [], r"row 4: day is 2001-01-03 a second time, needed are times"),
    "a missing step": ({"day": [*DAYS[:5], "2001-01-07"]}, [], r"row 6: day is 2001-01-07, 2 steps of 1 day after the"),
    "off the grid": (
        {"day": [f"{day} 00:00" for day in DAYS[:5]] + ["2001-01-06 07:00"]},
        ["--fill", "linear"],
        r"row 6: day is 2001-01-06 07:00:00, 1.29 steps of 1 day after the row before, needed is one: make the steps",
    ),
    "too few rows": ({}, [], r"the series has 5 rows in the training part \(of 6 in all\), needed are at least 11"),
    "one column twice": ({}, ["--features", "kw"], r"the column 'kw' is given twice, needed is one use of each"),
    "mostly missing": ({"day": [1, 2, 3, 4, 5, 90]}, ["--fill", "linear"], r"6 rows would be filled up to 90, 1 apart"),
    "one group empty": ({"off": [*"aaab", "", "b"]}, ["--group", "off"], r"row 5: off is empty, needed is a name"),
    "a group too short": (
        {"off": list("aabbbb")},
        ["--group", "off"],
        r"the group 'a' has 2 rows in the training part",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_in_order_is_a_line(tmp_path, capsys, name):
    changes, words, says = BAD[name]
    path = write(tmp_path / "load.csv", table(6, **changes))
    given = ["train", "series", "--data", str(path), "--time", "day", *WORDS, "--run", str(tmp_path / "run")]
    assert main([*given, *([] if "--target" in words else ["--target", "kw"]), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"gatewise: error: .*{says}.*\n", err), err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"kw\n\xff\xfe\n", r"cannot be read as a table \(invalid utf-8 sequence\): give CSV in UTF-8"),
        (b"", r"cannot be read as a table \(empty CSV\)"),
        (b"kw,day\n1,2\n1,2,3\n", r"cannot be read as a table \(found more fields"),
        (b"kw,kw\n1,2\n", r"has two columns 'kw', needed is one: rename the other"),
        (b"day;kw\n1;2\n", r"begins with 'day;kw', needed are columns with commas between: convert it"),
        (b"kw,day\n", r"has no rows: give a file with some"),
        (None, "is no file: give the path of a CSV or Parquet file"),
    ],
)
def test_bytes_that_are_no_table(tmp_path, content, says):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_series(tmp_path / "a.csv", Columns("kw"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1, or not")
    with pytest.raises(DataError, match=r"a.parquet cannot be read as a table"):
        read_series(tmp_path / "a.parquet", Columns("kw"))
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"a.xlsx is of no known kind, needed is a file that ends in .csv or .parquet"):
        read_series(tmp_path / "a.xlsx", Columns("kw"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window": 0}, "window is 0, needed is a number from 1"),
        ({"quantiles": (0.9, 0.5)}, "quantiles is .*, needed is numbers between 0 and 1, ascending"),
        ({"quantiles": (0.1, 0.9)}, "with 0.5 among them"),
        ({"quantiles": (0.0, 0.5)}, "between 0 and 1"),
        ({"quantiles": (0.1, 0.5), "point": "mae"}, "point is mae, needed is left out where there are quantiles"),
        ({"test_fraction": 0.0}, "test_fraction is 0.0, needed is a number above 0"),
        ({"dev_fraction": 0.8}, "dev_fraction is 0.8, needed is below 0.8"),
        ({"season": 0}, "season is 0"),
        ({"time_format": "%Y"}, "time_format is %Y, needed is left out where there is no time"),
        ({"calendar": ("none", "hour")}, "needed is none alone"),
        ({"best_by": "accuracy"}, "best_by is accuracy, needed is loss"),
    ],
)
def test_settings_out_of_range(file, changes, says):
    with pytest.raises(ArgumentError, match=says):
        SeriesConfig(data=file, target="kw", **changes)


def test_settings_that_do_not_fit_the_data(file):
    config = SeriesConfig(data=file, target="kw", **SMALL)
    with pytest.raises(ArgumentError, match=r"calendar is hour, needed are dates to read it from: give --time"):
        data_of(dataclasses.replace(config, calendar=("hour",)))
    with pytest.raises(ArgumentError, match=r"skip is season and a season has 9 rows, needed is one within the window"):
        data_of(dataclasses.replace(config, skip="season", season=9))
    with pytest.raises(DataError, match=r"season is 90 and the training part of a series has 84 rows"):
        data_of(dataclasses.replace(config, season=90))


# --- windows ------------------------------------------------------------------------------------------------


def test_the_windows_of_each_part_by_hand():
    """20 rows: 14 to train, 2 of dev, 4 of test; a horizon of 2 crosses no border."""
    series = plain(np.arange(20.0))
    form = form_of([series])
    assert borders_of(series, form) == (14, 16)
    mean, deviation = np.arange(14).mean(), np.arange(14).std()
    assert (form.groups[""].mean[0], form.groups[""].deviation[0]) == pytest.approx((mean, deviation))
    for part, origins in {"train": range(4, 13), "dev": [14], "test": [16, 17, 18]}.items():
        windows = make_windows([series], form, part)
        assert windows.origins.tolist() == list(origins)
        for row, target, origin in zip(windows.inputs, windows.targets, origins, strict=True):
            read = row[:, 0] * deviation + mean
            np.testing.assert_allclose(read[:4], np.arange(origin - 4, origin), atol=1e-5)
            np.testing.assert_array_equal(row[4:, 0], 0)  # the horizon's target is not there to be seen
            np.testing.assert_allclose(target * deviation + mean, [origin, origin + 1], atol=1e-5)
    assert make_windows([series], form, "test", stride=2).origins.tolist() == [16, 18]


@pytest.mark.parametrize("fill", ["refuse", "previous", "linear"])
def test_nothing_of_the_future_is_seen(tmp_path, fill):
    """Other values in the test part: the scaling and the windows before it stay as they were, to the byte."""
    columns = table(100)
    if fill != "refuse":
        for row in (20, *range(66, 73), *range(77, 83)):  # gaps across both borders, at 70 and 80
            columns["kw"][row] = columns["wind"][row - 3] = None
    settings = {"target": "kw", "time": "day", "features": ("wind",), "known": ("off",), "fill": fill}
    found = []
    for offset in (0, 1000):
        changed = {
            name: [v + offset if name != "day" and v is not None and row >= 80 else v for row, v in enumerate(values)]
            for name, values in columns.items()
        }
        config = SeriesConfig(data=write(tmp_path / f"{offset}.csv", changed), **settings, **SMALL)
        data = data_of(config)
        found.append((data.form, windows_of(data, config)))
    (form, windows), (other_form, others) = found
    assert form == other_form
    assert borders_of(data.series[0], form) == (70, 80)
    for part in ("train", "dev"):
        assert windows[part].inputs.tobytes() == others[part].inputs.tobytes()
        assert windows[part].targets.tobytes() == others[part].targets.tobytes()
    assert windows["test"].targets.tobytes() != others["test"].targets.tobytes()
    # And what a test window reads is the past alone: nothing before its origin differs but by what came after 80.
    assert windows["test"].origins[0] == others["test"].origins[0]
    first = slice(0, 1 if fill == "refuse" else 0)
    assert windows["test"].inputs[first, :8].tobytes() == others["test"].inputs[first, :8].tobytes()


def test_what_is_known_in_advance_is_seen_and_nothing_else(file):
    config = SeriesConfig(data=file, target="kw", time="day", features=("wind",), known=("off",), **SMALL)
    data = data_of(config)
    windows = windows_of(data, config)["test"]
    assert data.form.calendar == ("weekday",)  # and no year-day, as the training part has not seen a year twice
    ahead = windows.inputs[:, 8:]
    assert not ahead[:, :, :2].any()
    rows = rows_of(data.series[0], data.form).astype(np.float32)
    for place in (0, 5):
        origin = windows.origins[place]
        np.testing.assert_array_equal(ahead[place, :, 2:], rows[origin : origin + 3, 2:])


def test_what_was_filled_is_neither_learned_nor_scored():
    observed = np.ones(30, bool)
    observed[[6, 12, 13]] = False
    series = plain(np.arange(30.0), observed=observed)
    form = form_of([series])
    windows = make_windows([series], form, "train")
    assert 12 not in windows.origins  # both of its targets are filled
    row = windows.origins.tolist().index(11)
    assert np.isnan(windows.targets[row]).tolist() == [False, True]
    assert form.groups[""].mean[0] == pytest.approx(np.delete(np.arange(21.0), [6, 12, 13]).mean())
    whole = make_windows([series], form_of([series], whole_windows=True), "train")
    assert not {7, 13, 14} & set(whole.origins.tolist())  # windows that end in what knows of later values
    loss = forecasting.squared_error(torch.zeros(1, 2, 1), torch.tensor([[3.0, float("nan")]]))
    assert loss.item() == 4.5


def test_scaling_by_group_and_over_all():
    series = [plain(np.arange(20.0), name="a"), plain(100 + np.arange(20.0), name="b")]
    own = form_of(series).groups
    assert (own["a"].mean[0], own["b"].mean[0]) == (6.5, 106.5)
    pooled = form_of(series, scaling="all").groups
    assert pooled["a"].mean == pooled["b"].mean == (56.5,)
    for size in (1e-200, 1e-20, 1e100):  # however small or large, what changes is scaled by how it changes
        group = form_of([plain(size * np.arange(20.0))]).groups[""]
        assert 4 < group.deviation[0] / size < 14
    constant = form_of([plain(np.full(20, 0.1))]).groups[""]
    assert (constant.deviation, constant.naive_error) == ((1.0,), 0.0)


def test_borders_in_time_are_the_same_for_all_groups(tmp_path):
    """A series that begins later is not trained on where the other is tested."""
    columns = {"shop": ["a"] * 100 + ["b"] * 50, "day": [*range(100), *range(50, 100)], "kw": list(range(150))}
    config = SeriesConfig(data=write(tmp_path / "a.csv", columns), target="kw", time="day", group="shop", **SMALL)
    data = data_of(config)
    assert [borders_of(one, data.form) for one in data.series] == [(70, 80), (20, 30)]
    windows = windows_of(data, config)["train"]
    assert windows.groups.tolist() == [0] * 60 + [1] * 10


def test_the_form_comes_back_as_it_was(run):
    config = task_of(Run.open(run))[1]
    form = data_of(config).form
    assert Form.from_json(form.to_json()) == form
    _, kept = forecasting._load(config, Run(run).weights("best"))
    assert kept == form


# --- the model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", ["none", "last", "season"])
def test_what_the_model_adds_to(skip):
    form = Form(6, 5, 3, Step("row", 1), "row", (), 1, 0, False, {})
    model = Forecaster(form, 4, outputs=2, skip=skip)
    if skip == "none":
        torch.nn.init.zeros_(model.linear.weight)
        torch.nn.init.zeros_(model.linear.bias)
    rows = torch.randn(2, 11, 2)
    last, target = rows[:, 5, 0], rows[:, :, 0]
    needed = {
        "none": torch.zeros(2, 5),
        "last": last[:, None].expand(2, 5),
        "season": torch.stack([target[:, 3], target[:, 4], target[:, 5], target[:, 3], target[:, 4]], dim=1),
    }[skip]
    torch.testing.assert_close(model(rows), needed[:, :, None].expand(2, 5, 2))


def test_the_model_answers_in_units_of_what_is_left_to_forecast():
    form = Form(4, 2, 2, Step("row", 1), "row", (), 0, 0, False, {})
    model = Forecaster(form, 4, skip="season")
    rows, left = torch.randn(3, 6, 1), torch.tensor([[3.0, 4.0], [float("nan"), 5.0], [0.0, 0.0]])
    model.fit_spread(rows, rows[:, 2:4, 0] + left)
    assert model.spread.item() == pytest.approx(np.sqrt((9 + 16 + 25) / 5))
    torch.nn.init.ones_(model.linear.bias)
    torch.testing.assert_close(model(rows)[..., 0], rows[:, 2:4, 0] + model.spread)
    model.fit_spread(rows, rows[:, 2:4, 0])
    assert model.spread.item() == 1.0


@pytest.mark.parametrize("skip", ["none", "last", "season"])
def test_the_model_sees_no_target_of_the_horizon(skip):
    form = Form(6, 3, 2, Step("row", 1), "row", (), 1, 1, False, {})
    model = Forecaster(form, 4, skip=skip, highway=True)
    torch.nn.init.normal_(model.linear.weight)
    rows = torch.randn(2, 9, 3)
    other = rows.clone()
    other[:, 6:, :2] += 1
    assert torch.equal(model(rows), model(other))
    other[:, 6:, 2] += 1
    assert not torch.equal(model(rows), model(other))


# --- how good -----------------------------------------------------------------------------------------------


def test_the_measures_by_hand():
    forecast, truth = np.array([[1.0, 4.0], [2.0, 8.0]]), np.array([[2.0, 2.0], [2.0, np.nan]])
    whole, first, second = measure("x", forecast, truth, np.array([0.5, 2.0]))
    assert (whole.mae, whole.rmse) == pytest.approx((1.0, np.sqrt(5 / 3)))
    assert whole.mase == pytest.approx((2 + 4 + 0) / 3)
    assert whole.smape == pytest.approx(200 * (1 / 3 + 2 / 6 + 0) / 3)
    assert (first.first, first.last, first.mae) == (1, 1, 0.5)
    assert (second.first, second.last, second.mae) == (2, 2, 2.0)
    assert mase(np.ones((1, 1)), np.zeros(1)) is None
    assert smape(np.zeros((1, 1)), np.zeros((1, 1))) == 0


def test_coverage_and_pinball_by_hand():
    of_quantiles = np.array([[[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]]])
    truth = np.array([[2.0], [3.0], [np.nan]])
    (found,) = measure("x", of_quantiles[:, :, 1], truth, np.ones(3), [0.1, 0.5, 0.9], of_quantiles)
    assert found.coverage == 0.5
    assert found.pinball == pytest.approx(((0.2 + 0.5 + 0.0) + (0.3 + 1.0 + 0.9)) / 6)
    given = torch.from_numpy(of_quantiles[:2])
    loss = pinball_loss([0.1, 0.5, 0.9])(given, torch.from_numpy(truth[:2]))
    assert loss.item() == pytest.approx(found.pinball)
    assert pinball_loss([0.1, 0.5, 0.9])(given, torch.tensor([[2.0], [np.nan]])).item() == pytest.approx(0.7 / 6)
    assert pinball(np.array([[[1.0]]]), np.array([[0.0]]), [0.9]).item() == pytest.approx(0.1)


def test_the_naive_forecasts_and_the_scale_by_hand():
    series = plain([1, 2, 3, 1, 2, 4, 1, 2, 5, 1, 2, 6])
    at = Windows(np.zeros((1, 1, 1), "f4"), np.zeros((1, 4), "f4"), np.zeros(1, np.intp), np.array([6]))
    assert naive([series], at, 4).tolist() == [[4, 4, 4, 4]]
    assert seasonal_naive([series], at, 4, 3).tolist() == [[1, 2, 4, 1]]
    form = form_of([series], season=3, horizon=1, test_fraction=0.1, dev_fraction=0.1)
    assert borders_of(series, form)[0] == 10
    assert form.groups[""].naive_error == pytest.approx((0 + 0 + 1 + 0 + 0 + 1 + 0) / 7)


def test_the_linear_baseline_finds_a_linear_series():
    """y(t) = 1.6 y(t-1) - y(t-2) goes on for ever, and two values tell the rest; a known number adds to it."""
    target = [0.0, 1.0]
    for _ in range(98):
        target.append(1.6 * target[-1] - target[-2])
    series = plain(target)
    form = form_of([series])
    train, dev, test = (make_windows([series], form, part) for part in ("train", "dev", "test"))
    np.testing.assert_allclose(linear(train, dev, test, form), test.targets, atol=1e-3)
    missing = dataclasses.replace(train, targets=np.full_like(train.targets, np.nan))
    assert linear(missing, dev, test, form) is None


def test_a_model_that_beats_nothing_says_so():
    errors = [Errors(name, 1, 2, mae, mae, None, 1.0) for name, mae in (("lstm", 2.0), ("naive", 3.0), ("linear", 1.0))]
    errors.append(Errors("lstm", 1, 1, 0.1, 0.1, None, 1.0))
    verdicts = Backtest("kw", 5, 1, 1, None, errors).verdicts()
    assert verdicts == [
        "the model beats naive: MAE 2 against 3",
        "the model does NOT beat linear: MAE 2 against 1",
    ]


# --- training and afterwards --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": 10, "horizon": 1},
        {"quantiles": (0.2, 0.5), "features": ("wind",), "num_layers": 2, "dropout": 0.2},
    ],
)
def test_repeated_and_resumed_runs_give_the_same_bytes(file, tmp_path, changes):
    class Stops(Report):
        def step(self, runner):
            if runner.progress.step == 2:
                runner.stop()

    config = SeriesConfig(data=file, target="kw", time="day", **SMALL | changes)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "stopped", Stops())
    outcome = train(config, tmp_path / "stopped", resume=True)
    assert outcome.progress.ended
    train(config, tmp_path / "again")
    for name in ("last.safetensors", "best.safetensors"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "stopped" / name).read_bytes() == whole
        assert (tmp_path / "again" / name).read_bytes() == whole


def test_other_data_are_not_resumed(tmp_path):
    path = write(tmp_path / "a.csv", table())
    config = SeriesConfig(data=path, target="kw", time="day", **SMALL)
    train(config, tmp_path / "run")
    write(path, table(seed=1))
    with pytest.raises(RunError, match="is of other data than are there now"):
        train(config, tmp_path / "run", resume=True)


def test_settings_come_back_from_the_file(file, tmp_path):
    config = SeriesConfig(data=file, target="kw", quantiles=(0.1, 0.5), calendar=("hour",), time="day", known=("off",))
    for each in (config, SeriesConfig(data=file, target="kw")):
        write_config(tmp_path / "config.toml", "series", each)
        assert read_config(tmp_path / "config.toml", {"series": SeriesConfig}) == ("series", each)
    text = (tmp_path / "config.toml").read_text().replace("quantiles = []", 'quantiles = "x"')
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(RunError, match="quantiles is 'x', needed is an array of which each is a number"):
        read_config(tmp_path / "config.toml", {"series": SeriesConfig})


def test_a_wave_is_learned(tmp_path):
    """Noise on a wave: better than both naive forecasts, and the backtest knows what it is compared with."""
    config = SeriesConfig(
        data=write(tmp_path / "a.csv", table(300)),
        target="kw",
        time="day",
        known=("off",),
        **SMALL | {"epochs": 12, "window": 14, "skip": "season", "hidden_size": 16, "learning_rate": 0.01},
    )
    train(config, tmp_path / "run")
    found = forecasting.backtest(config, Run.open(tmp_path / "run"), "best").result
    overall = found.overall()
    assert list(overall) == ["lstm", "naive", "seasonal naive (7)", "linear (ridge)"]
    assert overall["lstm"].mae < overall["seasonal naive (7)"].mae < overall["naive"].mae
    assert overall["linear (ridge)"].mae < 0.2
    assert found.origins == 58


def test_the_backtest_of_a_run(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--json", "--figure", str(tmp_path / "a.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["target"], found["origins"], found["season"]) == ("kw", 22, 7)
    assert found["interval"] == pytest.approx(0.8)
    own = found["errors"][0]
    assert (own["forecast"], own["first"], own["last"]) == ("lstm", 1, 3)
    assert 0 <= own["coverage"] <= 1
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    assert main(["evaluate", str(run)]) == 0
    out = capsys.readouterr().out
    assert "backtest of kw: 22 origins in the test part, season 7" in out
    assert re.search(r"steps +forecast +MAE +RMSE +MASE +sMAPE +coverage \(of 80%\) +pinball", out)
    assert re.search(rf"1–3 +lstm +{own['mae']:.4g} ", out)
    assert len(re.findall("^the model (?:beats|does NOT beat) ", out, re.MULTILINE)) == 3


def test_the_backtest_s_numbers_are_those_of_the_forecasts(run):
    """MAE of the median, computed here from predictions one by one."""
    task, config = task_of(Run.open(run))
    tested = forecasting.backtest(config, Run(run), "best")
    series = tested.series[0]
    errors = [
        abs(series.target[origin + step] - tested.forecasts[place, step, 1])
        for place, origin in enumerate(tested.windows.origins)
        for step in range(3)
    ]
    assert tested.result.overall()["lstm"].mae == pytest.approx(np.mean(errors))
    score = task.runner().evaluate(task, config, Run(run), "best")
    assert score.samples == 22
    deviation = data_of(config).form.groups[""].deviation[0]
    assert 0 < tested.result.overall()["lstm"].pinball / deviation <= score.loss  # quantiles in order are no worse


def test_other_data_must_have_the_same_groups(tmp_path):
    columns = table(60) | {"shop": ["a"] * 60}
    other = {name: values * 2 for name, values in columns.items()} | {"shop": ["a"] * 60 + ["b"] * 60}
    config = SeriesConfig(data=write(tmp_path / "b.csv", other), target="kw", time="day", group="shop", **SMALL)
    train(config, tmp_path / "run")
    one = tasks()["series"].with_data(config, write(tmp_path / "a.csv", columns))
    with pytest.raises(DataError, match=r"a.csv lacks the group 'b': give the data that it was trained on"):
        forecasting.backtest(one, Run(tmp_path / "run"), "best")


def predicted(run, path, capsys, *words):
    assert main(["predict", str(run), str(path), *words]) == 0
    return capsys.readouterr()


def test_what_comes_after_a_file(run, tmp_path, capsys):
    columns = table(40)
    columns["kw"][37:] = [None] * 3
    columns["wind"][37:] = [None] * 3
    path = write(tmp_path / "new.csv", columns)
    out = predicted(run, path, capsys).out
    lines = out.splitlines()
    assert lines[0] == "day,kw,kw_q0.1,kw_q0.5,kw_q0.9"
    assert [line.split(",")[0] for line in lines[1:]] == ["2001-02-07", "2001-02-08", "2001-02-09"]
    for line in lines[1:]:
        middle, low, median, high = map(float, line.split(",")[1:])
        assert low <= median <= high
        assert middle == median
    written = tmp_path / "out.parquet"
    err = predicted(run, path, capsys, "--out", str(written), "--figure", str(tmp_path / "a.svg")).err
    assert err.splitlines() == [f"wrote {written}", f"wrote {tmp_path / 'a.svg'}"]
    frame = pl.read_parquet(written)
    assert frame["day"].dtype == pl.Date
    assert frame["kw"].to_list() == pytest.approx([float(line.split(",")[1]) for line in lines[1:]])
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    found = json.loads(predicted(run, path, capsys, "--json").out)["forecast"]
    assert list(found[0]) == ["day", "kw", "kw_q0.1", "kw_q0.5", "kw_q0.9"]


def test_a_forecast_is_the_backtest_s(run, file, tmp_path, capsys):
    """From the rows before an origin alone comes what the backtest computed at that origin."""
    _, config = task_of(Run.open(run))
    tested = forecasting.backtest(config, Run(run), "best")
    origin = int(tested.windows.origins[4])
    columns = {name: values[: origin + 3] for name, values in table().items()}
    for name in ("kw", "wind"):
        columns[name][origin:] = [None] * 3
    lines = predicted(run, write(tmp_path / "new.csv", columns), capsys).out.splitlines()
    found = [[float(cell) for cell in line.split(",")[2:]] for line in lines[1:]]
    np.testing.assert_allclose(found, tested.forecasts[4], rtol=1e-5)


def no_wind(columns):
    del columns["wind"]


def few(columns):
    for name in columns:
        columns[name] = columns[name][-10:]


def known_is_short(columns):
    for name in columns:
        columns[name] = columns[name][:-1]


def another_step(columns):
    columns["day"] = [f"2001-01-01 {hour:02}:00" for hour in range(20)]


def a_gap(columns):
    columns["day"][12:] = [str(np.datetime64(day) + 1) for day in columns["day"][12:]]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_wind, r"new.csv has no column 'wind', there are day, kw, off: name one of them"),
        (few, r"the series has 7 rows up to its last kw, needed are at least 8, a window: give more of the past"),
        (known_is_short, r"has 2 rows after its last kw, needed are 3 with off: add rows whose kw is empty"),
        (another_step, r"the rows are 1 hour apart, needed are 1 day, as at the training"),
        (a_gap, r"row 13: day is 2001-01-14, 2 steps of 1 day after the row before"),
    ],
)
def test_a_file_that_cannot_be_forecast_is_a_line(run, tmp_path, capsys, spoil, says):
    columns = table(20)
    for name in ("kw", "wind"):
        columns[name][17:] = [None] * 3
    spoil(columns)
    assert main(["predict", str(run), str(write(tmp_path / "new.csv", columns))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"gatewise: error: .*{says}.*\n", err), err


def test_groups_are_forecast_each_and_new_ones_refused(tmp_path, capsys):
    both = {"shop": ["b"] * 60 + ["a"] * 60, "kw": table(60)["kw"] + [100 + value for value in table(60)["kw"]]}
    path = write(tmp_path / "a.parquet", both)
    words = ["train", "series", "--data", str(path), "--target", "kw", "--group", "shop", *WORDS]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    out = predicted(tmp_path / "run", path, capsys).out
    rows = [line.split(",") for line in out.splitlines()]
    assert rows[0] == ["shop", "row", "kw"]
    assert [row[:2] for row in rows[1:]] == [[shop, str(row)] for shop in "ba" for row in (61, 62, 63)]
    assert all((float(row[2]) > 50) == (row[0] == "a") for row in rows[1:])
    write(path, both | {"shop": ["b"] * 60 + ["c"] * 60})
    assert main(["predict", str(tmp_path / "run"), str(path)]) == 2
    assert "the group 'c' was not there at the training, needed are b, a: remove it" in capsys.readouterr().err


# --- the command line ---------------------------------------------------------------------------------------


def test_options_that_do_not_fit(run, file, tmp_path, capsys):
    for words, says in (
        (["predict", str(run), str(file), "--out", "a.txt"], "out is a.txt, needed is a name that ends in .csv or"),
        (["predict", str(run), str(file), "--figure", "a.gif"], "figure is a.gif, needed is a name that ends in .png"),
        (["evaluate", str(run), "--figure", "a.gif"], "figure is a.gif, needed"),
    ):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert says in err
        assert err.count("\n") == 1
    words = [
        "train",
        "digit-sum",
        "--run",
        str(tmp_path / "sum"),
        "--epochs",
        "1",
        "--dev-every",
        "0",
        "--threads",
        "1",
    ]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "sum"), "1 2 0", "--out", "a.csv"]) == 2
    assert "out is for predictions from files, and digit-sum takes one sample: leave it out" in capsys.readouterr().err


def test_runs_and_compare_know_forecasts(run, file, tmp_path, capsys):
    config = task_of(Run.open(run))[1]
    train(dataclasses.replace(config, seed=1), tmp_path / "other")
    assert main(["runs", str(run.parent)]) == 0
    assert re.search(r"series +ended +4/4", capsys.readouterr().out)
    assert main(["compare", str(run), str(tmp_path / "other"), "--figure", str(tmp_path / "a.png")]) == 0
    assert "seed 1" in capsys.readouterr().out
    assert (tmp_path / "a.png").is_file()


def test_the_training_says_what_it_reads(file, tmp_path, capsys):
    words = ["train", "series", "--data", str(file), "--target", "kw", "--time", "day", "--known", "off", *WORDS]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "74 train, 10 dev, 22 test windows of 8+3 rows out of 1 series, 120 rows 1 day apart, season 7\n" in out
    assert "read    kw, off (known), weekday\n" in out
    assert "model   LSTM 4→6, 1 layer, 3×1 outputs" in out


def test_hours_have_their_season_and_calendar():
    step = find_step([Times(np.arange(9) * HOUR, "moment")])
    assert (step.season, step.calendar()) == (24, ("hour", "weekday", "year-day"))
    assert Step("month", 1).calendar() == ("month",)
    assert Step("time", 7 * DAY).calendar() == ("year-day",)
    assert Step("time", 7 * DAY).season == 52
    assert Step("number", 1).calendar() == ()


def test_the_scaling_does_not_know_what_was_filled_from_beyond_the_training(tmp_path):
    wind = [1.0, 2.0] * 60
    wind[70:90] = [""] * 20  # the training part ends at row 84
    for late in (1.0, 1000.0):
        columns = table(wind=[*wind[:90], *[late] * 30])
        path = write(tmp_path / f"{late:g}.csv", {name: [str(value) for value in own] for name, own in columns.items()})
        config = SeriesConfig(data=path, target="kw", time="day", features=("wind",), fill="linear", **SMALL)
        (group,) = data_of(config).form.groups.values()
        assert (group.mean[1], group.deviation[1]) == (1.5, 0.5)
