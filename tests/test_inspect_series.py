"""gatewise inspect on forecasts: what is gathered from a backtest, and what it looks like in a browser."""

import json
import re

import numpy as np
import pytest
import torch

from gatewise.cli import main
from gatewise.data.stepwise import step_inputs
from gatewise.experiments.inspection import forecasts
from gatewise.experiments.inspection.report import inspect
from gatewise.insight.trace import record
from gatewise.tasks.backtest import Backtest
from gatewise.tasks.forecast_data import data_of
from gatewise.tasks.forecast_subject import Replay
from gatewise.tasks.forecasting import backtest, look, model
from gatewise.tasks.task import task_of
from gatewise.train import keeper
from gatewise.train.run import Run
from of_tasks import predicted, write
from test_inspect import browser, opened, options, printed, refused  # noqa: F401
from test_report import LINES, MAPS, choose, titles_changed
from waves import table

WORDS = ["--hidden-size", "6", "--threads", "1", "--epochs", "2", "--window", "8", "--horizon", "3", "--time", "day"]
HOSTILE = 'kw"><img src=x onerror=window.hacked=1>'
GROUPS = ["</script><script>window.hacked=1</script>", "{{7*7}}' || (window.hacked=1) || '"]
TITLES = [
    "Settings and curves",
    "Results by horizon",
    "Worst forecasts",
    "Gates and memory",
    "How far back the gradient reaches",
]


def trained(folder, file, *words):
    with pytest.MonkeyPatch.context() as patch:  # the curves' figure takes longer than such a training
        patch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)
        assert main(["train", "series", "--data", str(file), *WORDS, *words, "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "load.csv", table())


@pytest.fixture(scope="module")
def windowed(file, tmp_path_factory):
    """A run on windows, with quantiles."""
    words = ["--target", "kw", "--features", "wind", "--quantiles", "0.1", "0.5", "0.9"]
    return trained(tmp_path_factory.mktemp("runs") / "windowed", file, *words)


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A run whose state is carried on, with names that would run, were they taken for code; one series has holes."""
    both = [table(120, seed) | {"shop": [name] * 120} for seed, name in enumerate(GROUPS)]
    both[1]["kw"] = [None if day in (40, 100) else 1000 * value for day, value in enumerate(both[1]["kw"])]
    columns = {name: [*both[0][name], *both[1][name]] for name in both[0]}
    columns[HOSTILE] = columns.pop("kw")
    folder = tmp_path_factory.mktemp("carried")
    file = write(folder / "a.parquet", columns)
    words = ["--target", HOSTILE, "--group", "shop", "--fill", "previous", "--bptt", "5/9", "--batch-size", "4"]
    return trained(folder / "a <b>run", file, *words)


@pytest.fixture(scope="module")
def pages(windowed, carried, tmp_path_factory):
    """What was found in each run, with nothing given."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {"windowed": windowed, "carried": carried}
    return {kind: inspect(run, out=folder / f"{kind}.html") for kind, run in runs.items()}


def numbers_of(path):
    content = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="numbers">(.*?)</script>', content)[1])["data"]


def replay_of(folder):
    _, config = task_of(Run.open(folder))
    return backtest(config, Run(folder), "best")


# --- what is found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["windowed", "carried"])
def test_it_agrees_with_evaluate(kind, tmp_path, capsys, request):
    run = request.getfixturevalue(kind)
    evaluated = json.loads(printed(capsys, "evaluate", run, "--json"))
    found = json.loads(printed(capsys, "inspect", run, "--out", tmp_path / "a.html", "--json"))
    overall = next(e for e in evaluated["errors"] if (e["forecast"], e["first"], e["last"]) == ("lstm", 1, 3))
    names = ["mae", "rmse", "mase", "smape", *(["coverage", "pinball"] if kind == "windowed" else [])]
    assert found["score"] == {"loss": found["score"]["loss"]} | {name: overall[name] for name in names}
    assert found["samples"] == evaluated["origins"]
    steps = {(row["forecast"], row["step"]): row["error"] for row in numbers_of(tmp_path / "a.html")["steps"]}
    single = [each for each in evaluated["errors"] if each["first"] == each["last"]]  # of a horizon of 3, each step
    assert len(single) == len(steps) >= 3 * 3
    for each in single:
        assert steps[each["forecast"], each["first"]] == pytest.approx(each["mae"], rel=1e-5)
    assert [layer["layer"] for layer in found["flow"]] == ["lstm.l0"]


def test_what_it_prints(windowed, capsys):
    out = printed(capsys, "inspect", windowed).splitlines()
    assert re.fullmatch(
        r".*windowed, best weights: test loss \d.*, mae \d.*, coverage \d+\.\d\d%, pinball .* of 22", out[0]
    )
    verdicts = [line for line in printed(capsys, "evaluate", windowed).splitlines() if line.startswith("the model")]
    assert len(verdicts) >= 2 and out[1 : 1 + len(verdicts)] == verdicts
    assert out[-2].startswith("lstm.l0 (lstm): ") and out[-1] == f"wrote {windowed / 'report.html'}"


@pytest.mark.parametrize("kind", ["windowed", "carried"])
def test_the_worst_are_a_horizon_apart_and_have_their_errors(kind, pages):
    found = pages[kind]
    replay = replay_of(found.run)
    point = replay.forecasts[:, :, replay.forecasts.shape[2] // 2]
    errors = np.nanmean(np.abs(point - replay.truth), axis=1)
    places = []
    for mistake in found.mistakes:
        (place,) = [
            place
            for place, (group, row) in enumerate(zip(replay.windows.groups, replay.windows.origins, strict=True))
            if (replay.series[group].name, replay.series[group].times.shown()[row])
            == (mistake["series"], mistake["origin"])
        ]
        assert mistake["error"] == pytest.approx(errors[place], abs=1e-6)
        places.append(place)
    ranked = errors / replay.deviation
    assert len(places) == 6 and places[0] == ranked.argmax()
    assert (np.diff(ranked[places]) <= 0).all()
    for group in range(len(replay.series)):
        rows = replay.windows.origins[[p for p in places if replay.windows.groups[p] == group]]
        assert (np.diff(np.sort(rows)) >= 3).all()
    rows = numbers_of(found.report)["worst 0"]
    forecast = [row["value"] for row in rows if row.get("line") == "forecast"]
    np.testing.assert_allclose(forecast, point[places[0]], rtol=1e-5)
    assert any("low" in row for row in rows) == (kind == "windowed")


def test_no_series_of_large_numbers_has_all_the_worst(pages):
    assert {mistake["series"] for mistake in pages["carried"].mistakes} == set(GROUPS)


def test_what_was_not_observed_is_a_gap(pages):
    rows = [row for row in numbers_of(pages["carried"].report)["series"] if row.get("line") == "truth"]
    assert {row["time"] for row in rows if row["value"] is None} == {"2001-04-11"}  # 100 days after the first


def a_replay(errors, groups, origins, horizon):
    """Of which only the first step of a forecast is off, by what is said."""
    windows = type("Windows", (), {"groups": np.array(groups), "origins": np.array(origins)})()
    points = np.zeros((len(errors), horizon))
    points[:, 0] = np.array(errors) * horizon
    result = Backtest("kw", len(errors), 2, 1, None, [])
    return Replay(result, [], windows, points[..., None], (), {"lstm": points}, 0 * points, np.ones(len(errors)))


def test_the_worst_then_the_best_then_the_last():
    replay = a_replay([5, 9, 8, 1, 2, 3, 7], [0, 0, 0, 0, 0, 0, 1], [10, 11, 12, 13, 14, 15, 11], 2)
    assert forecasts.worst_of(replay, 3) == [1, 6, 5]
    assert forecasts.choose(replay, 4) == [("worst", 1), ("worst", 6), ("best", 3), ("last", 5)]
    assert forecasts.choose(replay, 1) == [("worst", 1)]
    assert forecasts.choose(replay, 0) == []


def test_the_gates_are_those_of_the_window(windowed, pages):
    replay = replay_of(windowed)
    place = forecasts.worst_of(replay, 1)[0]
    _, config = task_of(Run.open(windowed))
    net = model(config, Run(windowed), "best").eval()
    with record(net) as traces, torch.no_grad():
        net(torch.from_numpy(replay.windows.inputs[place : place + 1]))
    row = next(row for row in numbers_of(pages["windowed"].report)["gate f"] if row["sample"] == 0)
    expected = traces["lstm"][0].layers[0].f[:, 0]
    torch.testing.assert_close(torch.tensor(row["values"]).reshape(8, 6), expected, atol=5.1e-4, rtol=0)
    series, origin = replay.series[0], replay.windows.origins[place]
    assert [read.split(": ")[0] for read in row["reads"]] == series.times.shown()[origin - 8 : origin]
    assert float(row["reads"][-1].split(": ")[1]) == pytest.approx(series.target[origin - 1], rel=1e-4)


def test_where_the_state_is_carried_on_the_rows_before_are_read_afresh(carried, pages):
    replay = replay_of(carried)
    place = forecasts.worst_of(replay, 1)[0]
    _, config = task_of(Run.open(carried))
    data, origin = data_of(config), replay.windows.origins[place]
    rows = step_inputs(data.series[replay.windows.groups[place]], data.form, 1)[origin - 36 : origin]  # 4 · 9
    net = model(config, Run(carried), "best").eval()
    with record(net) as traces, torch.no_grad():
        net(torch.from_numpy(rows[None]), torch.zeros(1, 36, dtype=torch.bool), None)
    row = next(row for row in numbers_of(pages["carried"].report)["gate f"] if row["sample"] == 0)
    expected = traces["lstm"][0].layers[0].f[:, 0]
    torch.testing.assert_close(torch.tensor(row["values"]).reshape(36, 6), expected, atol=5.1e-4, rtol=0)
    content = pages["carried"].report.read_text(encoding="utf-8")
    assert "the last 36 rows before it alone, or of as many as there are, read from a state of zeros" in content
    assert "gradients flowed through 9 rows at the most" in content


@pytest.mark.parametrize("kind", ["windowed", "carried"])
def test_a_file_adds_what_comes_after_it(kind, tmp_path, capsys, request):
    run = request.getfixturevalue(kind)
    _, config = task_of(Run.open(run))
    forecast = json.loads(predicted(run, config.data, capsys, "--json").out)["forecast"]
    words = ["inspect", run, config.data, "--out", tmp_path / "a.html", "--json"]
    found = json.loads(printed(capsys, *words))
    given = [sequence for sequence in found["sequences"] if sequence["error"] is None]
    assert found["sequences"][: len(given)] == given and len(given) < len(found["sequences"]) <= 8
    assert [one["origin"] for one in given] == [row["day"] for row in forecast[::3]]
    rows = numbers_of(tmp_path / "a.html")["series"]
    values = [row["value"] for row in rows if row["sample"] < len(given) and row.get("line") == "forecast"]
    np.testing.assert_allclose(values, [row[config.target] for row in forecast], rtol=1e-5)


def test_one_step_ahead_without_times(tmp_path):
    file = write(tmp_path / "a.csv", {"kw": table()["kw"]})
    words = ["--target", "kw", "--hidden-size", "4", "--threads", "1", "--epochs", "1", "--window", "8"]
    run = tmp_path / "run"
    assert main(["train", "series", "--data", str(file), *words, "--horizon", "1", "--run", str(run)]) == 0
    found = inspect(run, [str(file)])
    assert found.sequences[0]["name"] == "From row 121"
    assert found.mistakes[0]["error"] >= found.mistakes[1]["error"]


def test_no_more_is_followed_than_there_is_room_for(carried):
    task, config = task_of(Run.open(carried))
    subject = look(task, config, Run(carried), "best", [])
    assert subject.steps == 36 and subject.probe(3).sequences == 3


# --- what is refused ----------------------------------------------------------------------------------------


def test_refusals(windowed, carried, tmp_path, capsys, monkeypatch):
    assert "no/such.csv" in refused(capsys, "inspect", windowed, "no/such.csv")
    short = write(tmp_path / "short.csv", table(5))
    assert "has 5 rows up to its last kw, needed are at least 8" in refused(capsys, "inspect", windowed, short)
    _, config = task_of(Run.open(carried))
    monkeypatch.setattr(forecasts, "SEQUENCES", 1)
    said = refused(capsys, "inspect", carried, config.data, "--out", tmp_path / "a.html")
    assert "2 series are given, a report shows at most 1: give files with fewer" in said
    assert not (tmp_path / "a.html").exists()


# --- in a browser -------------------------------------------------------------------------------------------


def test_a_page_about_windows(browser, windowed, file, tmp_path):  # noqa: F811
    found = inspect(windowed, [str(file)], out=tmp_path / "a.html")
    shown = opened(browser, tmp_path / "a.html")
    assert browser.run("[...document.querySelectorAll('h2')].map(h => h.textContent)") == TITLES
    assert browser.run("document.documentElement.scrollWidth") == 1280
    browser.open(tmp_path / "a.html", 390, 900, phone=True)
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert found.flow[0]["sentence"] in shown
    for verdict in found.verdicts:
        assert f"{verdict[1:]}." in shown
    charts = browser.run("[...document.querySelectorAll('.chart h3')].map(h => h.textContent)")
    assert charts[1] == "Error along the horizon"
    assert charts[2:8] == [mistake["name"] for mistake in found.mistakes]
    listed = options(browser, "chosen_sample")
    assert list(dict.fromkeys(name.split(":")[0] for name in listed)) == ["given", "worst", "best", "last"]
    assert len(listed) == len(found.sequences)
    changed = titles_changed(browser, lambda: choose(browser, "chosen_sample", 1))
    assert changed == LINES | MAPS | {"The series"}
    assert titles_changed(browser, lambda: choose(browser, "chosen_unit", 2)) == LINES
    assert browser.complaints == []


def test_names_of_columns_and_groups_are_shown_and_never_run(browser, pages):  # noqa: F811
    opened(browser, pages["carried"].report)
    everything = browser.run("document.body.textContent")
    assert browser.run("window.hacked") is None
    for name in [HOSTILE, *GROUPS, "a <b>run"]:
        assert name in everything
    assert browser.run("document.querySelectorAll('img').length") == 0
    changed = titles_changed(browser, lambda: choose(browser, "chosen_sample", 2))
    assert changed == LINES | MAPS | {"The series"}
    assert browser.run("window.hacked") is None and browser.complaints == []
