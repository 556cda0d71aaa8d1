"""Forecasts of series: what a training leaves behind, the backtest, and what is written and refused."""

import dataclasses
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

from gatewise.cli import main
from gatewise.data.windows import Form
from gatewise.errors import DataError, RunError
from gatewise.tasks import forecasting
from gatewise.tasks.forecast_data import data_of
from gatewise.tasks.series import SeriesConfig
from gatewise.tasks.task import task_of, tasks
from gatewise.train import keeper
from gatewise.train.config import read_config, write_config
from gatewise.train.run import Run
from of_tasks import ended, predicted, same_bytes_however_trained, train, write
from waves import SMALL, WORDS, table


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """The curves of a training take longer to draw than such a training does; other tests look at them."""
    monkeypatch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)


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
    config = SeriesConfig(data=file, target="kw", time="day", **SMALL | changes)
    same_bytes_however_trained(config, tmp_path, 2)


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


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ('known = ["off"]', "known = []", "was trained with known off, and the run's config.toml says none"),
        ('features = ["wind"]', 'features = ["day2"]', "with features wind, and the run's config.toml says day2"),
        ('skip = "season"', 'skip = "last"', "with skip season, and the run's config.toml says last: restore it"),
        ("quantiles = [0.1, 0.5, 0.9]", "quantiles = [0.2, 0.5, 0.8]", "with quantiles 0.1 0.5 0.9, and"),
        ('features = ["wind"]', 'features = "wind"', "features is 'wind', needed is an array of which each is a text"),
        ('features = ["wind"]', "features = [1]", r"features is \[1\], needed is an array of which each is a text in"),
        ('target = "kw"', "target = 5", "target is 5, needed is a text in quotes"),
    ],
)
def test_a_run_is_used_as_it_was_trained(run, file, tmp_path, capsys, written, instead, says):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    text = (folder / "config.toml").read_text()
    assert written in text
    (folder / "config.toml").write_text(text.replace(written, instead))
    for words in (["evaluate", folder], ["predict", folder, file], ["inspect", folder], ["horizon", folder]):
        ended(words, capsys, says)


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


def zoned(columns, zone="+01:00"):
    return columns | {"day": [f"{day} 00:00:00{zone}" for day in columns["day"]]}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_zone_here_and_none_there_is_refused(tmp_path, capsys, ending):
    """Both ways, in evaluating, forecasting and looking."""
    runs, files = {}, {}
    for name, columns in {"plain": table(60), "zoned": zoned(table(60))}.items():
        if ending == "parquet":
            columns["day"] = pl.Series(columns["day"]).str.to_datetime(
                "%Y-%m-%d" if name == "plain" else "%Y-%m-%d %H:%M:%S%z"
            )
        files[name], runs[name] = write(tmp_path / f"{name}.{ending}", columns), tmp_path / name
        config = SeriesConfig(data=files[name], target="kw", time="day", **SMALL | {"epochs": 1})
        train(config, runs[name])
    says = {
        "plain": "zoned.* day has a time zone and had none at the training: give times without one",
        "zoned": "plain.* day has no time zone and had one at the training: give each with its own, such as ",
    }
    for name, other in (("plain", "zoned"), ("zoned", "plain")):
        for words in (["predict", runs[name], files[other]], ["evaluate", runs[name], "--data", files[other]]):
            ended(words, capsys, says[name])
        ended(["inspect", runs[name], files[other], "--out", tmp_path / "a.html"], capsys, says[name])
        assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(("zone", "hour", "first"), [("+01:00", 23, 1), ("+00:00", 0, 2)])
def test_a_forecast_of_zoned_times_has_the_zone_and_is_read_again(tmp_path, capsys, zone, hour, first):
    """Midnights of UTC as well, which without a zone would be dates."""
    path = write(tmp_path / "a.csv", zoned(table(60), zone))
    config = SeriesConfig(data=path, target="kw", time="day", **SMALL | {"epochs": 1})
    train(config, tmp_path / "run")
    written = tmp_path / "next.csv"
    predicted(tmp_path / "run", path, capsys, "--out", str(written))
    found = pl.read_csv(written)
    assert found["day"].to_list() == [f"2001-03-0{first + n} {hour:02}:00:00+00:00" for n in range(3)]
    both = pl.concat([pl.read_csv(path).select("day", "kw"), found])
    both.write_csv(path)
    again = json.loads(predicted(tmp_path / "run", path, capsys, "--json").out)["forecast"]
    assert again[0]["day"] == f"2001-03-0{first + 3}T{hour:02}:00:00+00:00"
    predicted(tmp_path / "run", path, capsys, "--out", str(tmp_path / "next.parquet"))
    assert pl.read_parquet(tmp_path / "next.parquet")["day"].dtype == pl.Datetime("us", "UTC")


def test_a_prediction_says_how_much_it_filled(tmp_path, capsys):
    """The target, a feature, what is known of the horizon, and a row that is not there: each a row, once."""
    config = SeriesConfig(
        data=write(tmp_path / "a.csv", table()),
        target="kw",
        time="day",
        features=("wind",),
        known=("off",),
        fill="previous",
        **SMALL | {"epochs": 1},
    )
    train(config, tmp_path / "run")
    columns = table(40)
    columns["kw"][37:] = columns["wind"][37:] = [None] * 3
    assert predicted(tmp_path / "run", write(tmp_path / "new.csv", columns), capsys).err == ""
    columns["kw"][20] = columns["wind"][20] = columns["wind"][22] = columns["off"][38] = None
    for values in columns.values():
        del values[30]
    path = write(tmp_path / "new.csv", columns)
    said = predicted(tmp_path / "run", path, capsys, "--json")
    assert said.err == f"filled 4 rows of {path} by previous\n"
    assert len(json.loads(said.out)["forecast"]) == 3


@pytest.mark.parametrize("bptt", [None, "5/9"])
def test_names_are_learned_known_in_advance_or_not(tmp_path, capsys, bptt):
    """The target is what the sky says it will be; no number does."""
    sky = [["rain", "sun", "snow"][n % 3 if n % 2 else n % 7 % 3] for n in range(203)]
    level = {"rain": 0.0, "sun": 5.0, "snow": -5.0}
    columns = {
        "kw": [level[name] for name in sky[:200]] + [None] * 3,
        "sky": sky,
        "mood": ["up", "down"] * 101 + ["up"],
    }
    path = write(tmp_path / "a.csv", columns)
    config = SeriesConfig(
        data=path,
        target="kw",
        features=("mood",),
        known=("sky",),
        categories=("sky", "mood"),
        bptt=bptt,
        **SMALL | {"epochs": 30, "batch_size": 8, "learning_rate": 0.02, "skip": "none"},
    )
    train(config, tmp_path / "run")
    form = data_of(config).form
    assert form.categories == {"mood": ("down", "up"), "sky": ("rain", "snow", "sun")}
    assert (form.features, form.known, form.channels) == (2, 3, 6)
    assert Form.from_json(form.to_json()) == form
    (group,) = form.groups.values()
    assert (group.mean[1:], group.deviation[1:]) == ((0,) * 5, (1,) * 5)
    found = json.loads(predicted(tmp_path / "run", path, capsys, "--json").out)["forecast"]
    assert [row["kw"] for row in found] == pytest.approx([level[name] for name in sky[200:]], abs=1)
    assert main(["inspect", str(tmp_path / "run"), str(path), "--out", str(tmp_path / "a.html")]) == 0
    capsys.readouterr()
    columns["sky"][201] = "hail"
    new = write(tmp_path / "new.csv", columns)
    says = r"new.csv, row 202: sky is 'hail', needed is one of the categories that were trained on \(rain, snow, sun\)"
    ended(["predict", tmp_path / "run", new], capsys, says)
    ended(["evaluate", tmp_path / "run", "--data", new], capsys, says)


def test_fewer_categories_are_read_as_the_training_had_them(tmp_path, capsys):
    """A file with one of them alone: their places are those of the training, not of the file."""
    sky = ["rain", "sun"] * 30
    columns = {"kw": [float(name == "sun") for name in sky], "sky": sky}
    config = SeriesConfig(
        data=write(tmp_path / "a.parquet", columns), target="kw", features=("sky",), categories=("sky",), **SMALL
    )
    train(config, tmp_path / "run")
    some = write(tmp_path / "b.csv", {"kw": [1.0] * 12, "sky": ["sun"] * 12})
    _, form = forecasting._load(config, Run(tmp_path / "run").weights("best"))
    (series,) = data_of(dataclasses.replace(config, data=some), form).series
    assert series.features.tolist() == [[0, 1]] * 12
    predicted(tmp_path / "run", some, capsys)


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


def test_the_form_comes_back_as_it_was(run):
    config = task_of(Run.open(run))[1]
    form = data_of(config).form
    assert Form.from_json(form.to_json()) == form
    _, kept = forecasting._load(config, Run(run).weights("best"))
    assert kept == form
