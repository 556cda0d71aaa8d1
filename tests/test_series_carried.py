"""Series whose state is carried on: what is read at each row, in training, testing and forecasting alike."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from gatewise.cli import main
from gatewise.data.stepwise import make_steps, step_inputs
from gatewise.data.windows import make_windows, origins_of
from gatewise.tasks import forecasting
from gatewise.tasks.forecast_data import data_of
from gatewise.tasks.forecaster import Forecaster, of_those_there, squared_error
from gatewise.tasks.forecasting import backtest
from gatewise.tasks.load import load
from gatewise.tasks.series import SeriesConfig
from gatewise.train import keeper
from gatewise.train.run import Run
from gatewise.train.runner import Runner
from of_tasks import ended, train, write
from waves import table

OWN = {"hidden_size": 6, "threads": 1, "epochs": 2, "window": 8, "horizon": 3, "batch_size": 4, "bptt": "5/9"}
WORDS = ["--hidden-size", "6", "--threads", "1", "--epochs", "2", "--window", "8", "--horizon", "3"]
WORDS += ["--batch-size", "4", "--bptt", "5/9"]


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    monkeypatch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Two groups, of which one has holes."""
    columns = table(120) | {"shop": ["a"] * 120}
    other = table(100, seed=1) | {"shop": ["b"] * 100}
    other["kw"][40:43] = [None] * 3
    both = {name: [*columns[name], *other[name]] for name in columns}
    return write(tmp_path_factory.mktemp("data") / "load.parquet", both)


def settings(file, **changes):
    words = {"data": file, "target": "kw", "time": "day", "group": "shop", "known": ("off",), "fill": "previous"}
    return SeriesConfig(**words | OWN | changes)


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(settings(file, quantiles=(0.1, 0.5, 0.9), skip="season", dev_fraction=0.2), folder)
    return Run(folder)


@pytest.mark.parametrize("skip", ["last", "season"])
def test_a_row_has_what_a_window_that_ends_in_it_has(file, skip):
    data = data_of(settings(file, skip=skip))
    form = data.form
    windows = make_windows(data.series, form, "test")
    naive = Forecaster(form, 2, skip=skip).base(torch.from_numpy(windows.inputs))[..., 0].numpy()
    lag = form.season if skip == "season" else 1
    for place, series in enumerate(data.series):
        own = windows.groups == place
        rows = step_inputs(series, form, lag)[windows.origins[own] - 1]
        row, change, base, ahead = np.split(rows, np.cumsum([form.channels, 1, form.horizon]), axis=1)
        before = windows.inputs[own, form.window - 1]
        np.testing.assert_array_equal(row, before)
        np.testing.assert_allclose(
            change[:, 0], before[:, 0] - windows.inputs[own, form.window - 1 - lag, 0], atol=1e-6
        )
        np.testing.assert_array_equal(base, naive[own])
        known = windows.inputs[own, form.window :, 1 + form.features :]
        np.testing.assert_array_equal(ahead.reshape(known.shape), known)


def test_targets_are_those_of_the_part_alone_and_no_row_is_read_after_it(file):
    data = data_of(settings(file))
    ends = []
    for part in ("train", "dev", "test"):
        steps = make_steps(data.series, data.form, part, 1)
        windows = make_windows(data.series, data.form, part)
        there = ~np.isnan(steps.targets).all(axis=1)
        assert there.sum() == sum(map(len, origins_of(data.series, data.form, part))) == len(windows)
        np.testing.assert_array_equal(steps.targets[there], windows.targets)
        assert steps.begins.sum() == 2 and steps.begins[0]
        ends.append(len(steps.begins))
    assert ends == sorted(ends) and ends[-1] == sum(map(len, data.series))


def test_a_backtest_and_a_forecast_read_each_series_from_its_beginning(file, run, tmp_path):
    config = settings(file, quantiles=(0.1, 0.5, 0.9), skip="season", dev_fraction=0.2)
    tested = backtest(config, run, "best")
    data = data_of(config)
    model = load(run.folder).eval()
    for place, series in enumerate(data.series):
        inputs = torch.from_numpy(step_inputs(series, data.form, data.form.season))
        with torch.no_grad():
            whole, _ = model(inputs[None], torch.zeros(1, len(inputs), dtype=torch.bool), None)
        group = data.form.groups[series.name]
        wanted = whole[0].sort(dim=2).values.double().numpy() * group.deviation[0] + group.mean[0]
        own = tested.windows.groups == place
        # the same steps in other pieces: float32 sums of 6 units in another order, of numbers about 10
        np.testing.assert_allclose(tested.forecasts[own], wanted[tested.windows.origins[own] - 1], atol=1e-4)

    future = [str(np.datetime64("2001-05-01") + day) for day in range(3)]
    frame = pl.read_parquet(file).filter(pl.col("shop") == "a")
    rows = {"day": future, "kw": [None] * 3, "wind": [0.0] * 3, "off": [1.0, 0.0, 0.0], "shop": ["a"] * 3}
    longer = pl.concat([frame, pl.DataFrame(rows, schema=frame.schema)])
    out = []
    for name, given in (("whole", longer), ("tail", longer.tail(12))):
        given.write_parquet(tmp_path / f"{name}.parquet")
        words = ["predict", str(run.folder), str(tmp_path / f"{name}.parquet"), "--out", str(tmp_path / f"{name}.csv")]
        assert main(words) == 0
        out.append(pl.read_csv(tmp_path / f"{name}.csv")["kw"].to_list())
    assert out[0] != out[1] and np.allclose(out[0], out[1], atol=3)  # another past, and so another state


def test_the_dev_loss_is_that_of_the_state_carried_from_the_beginning(file):
    config = settings(file, epochs=1, skip="last")
    data = data_of(config)
    problem = forecasting.problem(config)
    steps = make_steps(data.series, data.form, "dev", 1)
    model = problem.model.eval()
    with torch.no_grad():
        begins = torch.from_numpy(steps.begins)[None]
        outputs, _ = model(torch.from_numpy(steps.inputs)[None], begins, None)
    targets = torch.from_numpy(steps.targets)[None]
    wanted = of_those_there(squared_error)(outputs, targets).item()
    runner = Runner(model, problem.loss, config, carries=True)
    assert runner.evaluate(problem.splits["dev"]).loss == pytest.approx(wanted, rel=1e-5)
    # untrained it is the naive forecast
    base = steps.inputs[:, data.form.channels + 1 :][:, : data.form.horizon]
    assert wanted == pytest.approx(np.nanmean((base - steps.targets) ** 2), rel=1e-5)


def test_by_the_command_line(file, tmp_path, capsys):
    words = ["--data", str(file), "--target", "kw", "--time", "day", "--group", "shop", "--fill", "previous"]
    assert main(["train", "series", *words, *WORDS, "--run", str(tmp_path / "run")]) == 0
    assert "in 4 lanes, bptt 5/9" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["origins"] > 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bptt": "9/5"}, "bptt is 9/5, needed is K1"),
        ({"highway": True}, "highway is True, needed is left out with bptt"),
        ({"accumulate": 2}, "accumulate is 2, needed is 1 with bptt"),
        ({"batch_size": 64}, "batch_size is 64, which makes lanes of 2 rows"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(file, tmp_path, change, said, capsys):
    names = {"bptt": "--bptt", "highway": "--highway", "accumulate": "--accumulate", "batch_size": "--batch-size"}
    words = ["--data", str(file), "--target", "kw", "--time", "day", "--group", "shop", "--fill", "previous", *WORDS]
    (name, value), *_ = change.items()
    given = [names[name]] if value is True else [names[name], str(value)]
    assert main(["train", "series", *words, *given, "--run", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_be_written_leaves_none_beside_it(file, run, tmp_path, capsys):
    for out, figure in (("nodir/x.csv", "y.png"), ("x.csv", "nodir/y.png")):
        words = ["--out", str(tmp_path / out), "--figure", str(tmp_path / figure)]
        assert main(["predict", str(run.folder), str(file), *words]) == 2
        printed = capsys.readouterr().err
        assert "there is no folder" in printed and printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changed", ["", 'bptt = "9"'])
def test_a_state_that_was_carried_in_training_is_carried_afterwards(run, tmp_path, capsys, changed):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace('bptt = "5/9"', changed))
    now = "9" if changed else "None"
    ended(["evaluate", folder], capsys, f"was trained with bptt 5/9, and the run's config.toml says {now}: restore it")
