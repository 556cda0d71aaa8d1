"""Series out of files: what is read and refused, how they are divided and scaled, what a window may see."""

import dataclasses
import re

import numpy as np
import polars as pl
import pytest
import torch

from gatewise.cli import main
from gatewise.data.series import Columns, read_series, with_categories
from gatewise.data.steps import DAY, HOUR, Step, calendar_features, find_step
from gatewise.data.table import Times
from gatewise.data.windows import borders_of, make_windows, rows_of
from gatewise.errors import ArgumentError, DataError
from gatewise.tasks import forecasting
from gatewise.tasks.forecast_data import data_of, windows_of
from gatewise.tasks.series import SeriesConfig
from of_tasks import write
from waves import SMALL, WORDS, form_of, plain, table


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file that no test changes."""
    return write(tmp_path_factory.mktemp("data") / "load.csv", table())


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


def test_a_column_of_names_is_one_number_for_each(tmp_path):
    sky = ["sun", " rain ", None, "sun", "sun"]
    path = write(tmp_path / "a.csv", {"kw": [1, 2, 3, 4, None], "sky": sky, "wind": [1, 2, 3, 4, 5]})
    columns = with_categories(path, Columns("kw", features=("wind",), known=("sky",)), ["sky"])
    assert columns.categories == {"sky": ("rain", "sun")}
    for fill in ("previous", "linear"):  # no line is drawn between names
        (series,), _ = read_series(path, columns, fill)
        assert series.known.tolist() == [[0, 1], [1, 0], [1, 0], [0, 1], [0, 1]]
        assert (series.features.shape, series.filled) == ((4, 1), 1)
    with pytest.raises(DataError, match=r"row 3: sky is empty, needed is a name: fill it, or train with --fill"):
        read_series(path, columns)
    with pytest.raises(DataError, match=r"row 1: sky is 'sun', needed is a number: .* give --categories as well"):
        read_series(path, Columns("kw", features=("sky",)))
    with pytest.raises(DataError, match=r"row 2: sky is ' rain ', needed is one of the categories .* \(snow, sun\)"):
        read_series(path, dataclasses.replace(columns, categories={"sky": ("snow", "sun")}), "previous")


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["sun", "rain"]), pl.Boolean, pl.Int8])
def test_names_of_any_type(tmp_path, kind):
    values = ["rain", "sun", "rain"] if kind not in (pl.Boolean, pl.Int8) else [1, 0, 1]
    path = tmp_path / "a.parquet"
    pl.DataFrame({"kw": [1, 2, 3], "sky": pl.Series(values).cast(kind)}).write_parquet(path)
    columns = with_categories(path, Columns("kw", features=("sky",)), ["sky"])
    assert len(columns.categories["sky"]) == 2
    (series,), _ = read_series(path, columns)
    assert abs(series.features[0] - series.features[1]).tolist() == [1, 1]
    assert series.features[0].tolist() == series.features[2].tolist()


def test_more_names_than_categories_can_be(tmp_path):
    path = write(tmp_path / "a.csv", {"kw": [1] * 1001, "sky": [f"n{row}" for row in range(1001)]})
    with pytest.raises(DataError, match=r"sky holds 1,001 different names, needed are at most 1,000: call similar"):
        with_categories(path, Columns("kw", features=("sky",)), ["sky"])


@pytest.mark.parametrize("values", [[[1], [2]], [b"a", b"b"]])
def test_what_has_no_name(tmp_path, values):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"kw": [1, 2], "sky": values}).write_parquet(path)
    with pytest.raises(DataError, match=r"sky holds values of type (List\(Int64\)|Binary), needed are names"):
        read_series(path, Columns("kw", group="sky"))


@pytest.mark.parametrize("year", ["-0900", "9001"])
def test_years_that_no_calendar_has(tmp_path, year):
    """Of text and of a date; a year before 1 is none that Python can say."""
    days = [f"{year}-01-01", "2001-01-01"]
    for ending, column in (("csv", days), ("parquet", pl.Series(np.array(days, "datetime64[D]")))):
        path = write(tmp_path / f"a.{ending}", {"at": column, "kw": [1, 2]})
        with pytest.raises(DataError, match=rf"row 1: at is {int(year)}-01-01, needed is a time from the year 1 to"):
            read_series(path, Columns("kw", "at"))


def test_a_long_name_or_cell_is_shown_in_part(tmp_path):
    path = write(tmp_path / "a.csv", {"x" * 5000: [1], "kw": ["y" * 5000]})
    for wanted in ("zz", "kw"):
        with pytest.raises(DataError) as refused:
            read_series(path, Columns(wanted))
        assert len(str(refused.value)) < 300 + len(str(path))


def test_quotes_in_the_names_of_columns(tmp_path):
    path = write(tmp_path / "a.csv", {'k "w"': [1, 2], "a,b": [3, 4], '"': [5, 6]})
    (series,), _ = read_series(path, Columns('k "w"', features=("a,b", '"')))
    assert (series.target.tolist(), series.features.tolist()) == ([1, 2], [[3, 5], [4, 6]])
    (tmp_path / "b.csv").write_text('"k ""w""","k ""w"""\n1,2\n')
    with pytest.raises(DataError, match="""has two columns 'k "w"', needed is one: rename the other"""):
        read_series(tmp_path / "b.csv", Columns('k "w"'))


def test_times_with_a_zone_are_in_utc(tmp_path):
    path = write(tmp_path / "a.csv", {"at": ["2010-01-01T00:00+02:00", "2010-01-01T01:00+02:00"], "kw": [1, 2]})
    (series,), _ = read_series(path, Columns("kw", "at"))
    assert series.times.zoned
    assert series.times.shown() == ["2009-12-31 22:00:00+00:00", "2009-12-31 23:00:00+00:00"]
    write(path, {"at": ["2010-01-01T00:00+02:00", "2010-01-01T01:00"], "kw": [1, 2]})
    with pytest.raises(DataError, match=r"row 2: at is '2010-01-01T01:00', needed is .*a date"):
        read_series(path, Columns("kw", "at"))


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
    "a category of the test part alone": (
        {"off": list("aababz")},
        ["--features", "off", "--categories", "off", "--window", "1", "--horizon", "1", "--test-fraction", "0.3"],
        r"off is 'z' in no row of the training part whose numbers are all there, needed is each category in one",
    ),
    "categories that are not read": (
        {},
        ["--categories", "off"],
        r"categories is off, needed is columns that features",
    ),
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
        ({"calendar": ("hour", "hour")}, "calendar is hour hour, needed is none alone, or some of .*, each once"),
        ({"features": ("a",), "categories": ("b",)}, "categories is b, needed is columns that features or known name"),
        ({"features": ("a",), "categories": ("a", "a")}, "categories is a a, needed is each column once"),
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
