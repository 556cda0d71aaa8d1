"""The search for settings: what is typed, what is proposed, and what an interruption leaves."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gatewise.cli import main
from gatewise.errors import ArgumentError, RunError
from gatewise.experiments.trial import RUNGS, Ended, Job, run_trial
from gatewise.experiments.tune import Choice, Range, Search, TuneConfig, make_search, read_dimension
from gatewise.tasks.digit_sum import DigitSumConfig
from gatewise.tasks.digits import TASK, DigitsConfig
from gatewise.train.run import Run

optuna = pytest.importorskip("optuna")

from gatewise.experiments import search as searching  # noqa: E402  (needs optuna)
from gatewise.experiments.search import TrialResult, run_search  # noqa: E402
from gatewise.experiments.tune_figures import draw_history, draw_importances, draw_slices  # noqa: E402

SPACE = ["learning_rate=1e-7..1e-1:log", "num_layers=1,2"]
WORDS = ["tune", "digits", "--epochs", "3", "--hidden-size", "4", "--batch-size", "100", "--search", *SPACE, "--json"]


def tune(folder, *more):
    """In one process, unless told otherwise."""
    return [*WORDS, "--run", str(folder), "--processes", "1", *map(str, more)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing interrupted: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("tune") / "whole"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(tune(folder, "--trials", 9)) == 0
    assert err.getvalue() == ""
    return folder, json.loads(out.getvalue())


def without_times(trials):
    return [{name: value for name, value in t.items() if name not in ("seconds", "folder")} for t in trials]


# --- what is typed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hidden_size=32..256:32", Range("hidden_size", 32, 256, 32)),
        ("hidden-size=32..256:log", Range("hidden_size", 32, 256, None, True)),
        ("learning_rate=1e-4..1e-2:log", Range("learning_rate", 1e-4, 1e-2, None, True)),
        ("dropout=0..0.5:0.1", Range("dropout", 0.0, 0.5, 0.1)),
        ("num_layers=1,2,4", Choice("num_layers", (1, 2, 4))),
        ("optimizer=sgd, adam", Choice("optimizer", ("sgd", "adam"))),
        ("mirror=true,false", Choice("mirror", (True, False))),
    ],
)
def test_what_is_searched(text, found):
    assert read_dimension(text, "digits", DigitsConfig) == found
    assert read_dimension(str(found), "digits", DigitsConfig) == found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hiden_size=1..2"], "has hiden_size, which is no setting of digits: the nearest is hidden_size"),
        (["hidden_size"], "has 'hidden_size', needed is hidden_size=LOW..HIGH or hidden_size=VALUE,VALUE"),
        (["hidden_size=8"], "has one value of hidden_size, needed are several: give it as --hidden-size"),
        (["hidden_size=8,8"], "has a value of hidden_size twice"),
        (["hidden_size=8..x"], "has 'x' for hidden_size, needed is a whole number"),
        (["hidden_size=8..9.5"], "has '9.5' for hidden_size, needed is a whole number"),
        (["hidden_size=9..8"], "needed is a range from low to high"),
        (["hidden_size=8..32:5"], "needed is a step that leads from 8 to 32"),
        (["hidden_size=0..8"], "has hidden_size=0: hidden_size is 0, needed is a number from 1 to below"),
        (["dropout=0..0.5:log"], "needed is a range above 0 for log"),
        (["learning_rate=1e-3..nan"], "has 'nan' for learning_rate, needed is a number"),
        (["optimizer=adam,sdg"], "has 'sdg' for optimizer, needed is one of adam, sgd"),
        (["optimizer=adam..sgd"], "needed are values with commas between them"),
        (["seed=1,2"], "has seed, which draws the splits"),
        (["best_by=loss,accuracy"], "has best_by, which says what is searched for"),
        (["normalize=0,1"], "has normalize, which is no number and no choice"),
        (["num_layers=1..2", "num-layers=2..3"], "has num_layers twice"),
        (["num_layers=1..2", "--trials", "0"], "trials is 0, needed is a number from 1 on"),
        (["num_layers=1..2", "--dev-fraction", "0"], "dev_fraction is 0, needed is a dev split"),
        (["num_layers=1..2", "--hiden-size", "8"], "Perhaps you meant: --hidden-size INT"),
    ],
)
def test_refused(tmp_path, capsys, words, says):
    assert main(["tune", "digits", "--run", str(tmp_path / "run"), "--search", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("gatewise: error: ")
    assert says in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "search", "says"),
    [
        ("series", "horizon=1..3", "has horizon, which says what is forecast, and other losses cannot be compared"),
        ("series", "target=a,b", "has target, which says what is forecast"),
        ("series", "point=mse,mae", "has point, which says what the loss is, and others cannot be compared"),
        ("text", "unit=characters,bytes", "has unit, which says what the loss is"),
        ("sequences", "per_step=true,false", "has per_step, which says what the loss is"),
    ],
)
def test_losses_that_cannot_be_compared_are_not_searched_over(tmp_path, capsys, task, search, says):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    words = ["tune", task, "--data", str(tmp_path / "a.csv"), *(["--target", "a"] if task != "text" else [])]
    words += ["--id", "b"] if task == "sequences" else []
    assert main([*words, "--search", search, "--run", str(tmp_path / "run")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_refused_where_optuna_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "digits"]) == 2
    assert "pip install 'gatewise[tune]'" in capsys.readouterr().err


def test_a_folder_of_something_else(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert main(tune(tmp_path, "--trials", 1)) == 2
    assert "is not empty" in capsys.readouterr().err


def test_help_needs_neither_torch_nor_optuna():
    code = "import sys; from gatewise.cli import main; main(['tune', 'digits', '--help']); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "LOW..HIGH:log" in printed
    assert not {"torch", "optuna"} & set(printed.splitlines()[-1].split())


def test_the_settings_of_a_trial():
    search = make_search(TASK, DigitsConfig(), TuneConfig())
    assert search.recipe == {"hidden_size": 128, "num_layers": 2, "learning_rate": 2e-3}
    one, two = (search.settings({"num_layers": layers, "hidden_size": 32}) for layers in (1, 2))
    assert (one.dropout, two.dropout) == (0.0, 0.3)  # between two layers only
    assert (one.threads, one.hidden_size, one.epochs) == (1, 32, 80)
    assert make_search(TASK, DigitsConfig(hidden_size=100), TuneConfig()).recipe is None
    with pytest.raises(ArgumentError, match="search has cell=gru: initial is chrono"):
        Search("digit-sum", DigitSumConfig(initial="chrono"), (Choice("cell", ("lstm", "gru")),), 1, "none", 1)


# --- a trial ------------------------------------------------------------------------------------------------


class Line:
    """Stands for the connection to the process that searches: ends the trial at some rung."""

    def __init__(self, prune_at=RUNGS + 1):
        self.prune_at = prune_at
        self.heard = []

    def send(self, message):
        self.heard.append(message)

    def recv(self):
        return self.heard[-1].rung >= self.prune_at


class Never:
    def is_set(self):
        return False


def test_a_trial_tells_how_far_it_is(tmp_path):
    """Also where dev is looked at every so many steps: 20 of 114 are between the rungs."""
    config = DigitSumConfig(hidden_size=4, epochs=3, dev_every=20, threads=1)
    line = Line()
    ended = run_trial(Job("digit-sum", config, tmp_path / "run", 0), line, Never())
    assert [message.rung for message in line.heard] == [3, 7, 10, 14, 17, 20]
    assert ended == Ended("finished", line.heard[-1].value, 3, ended.seconds)
    values = [message.value for message in line.heard]
    assert values == sorted(values)  # the best so far
    again = run_trial(Job("digit-sum", config, tmp_path / "run", RUNGS), Line(), Never())  # its end was not heard
    assert again == ended


def test_a_trial_that_is_pruned_ends_and_can_be_gone_on_with(tmp_path, capsys):
    config = DigitsConfig(hidden_size=4, epochs=4, batch_size=100, threads=1)
    line = Line(prune_at=7)
    ended = run_trial(Job("digits", config, tmp_path / "run", 0), line, Never())
    assert (ended.how, ended.epochs, [message.rung for message in line.heard]) == ("pruned", 2, [5, 10])
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert "resumed" in capsys.readouterr().out


def test_a_trial_that_diverges(tmp_path):
    config = DigitsConfig(hidden_size=4, epochs=2, optimizer="sgd", learning_rate=1e38, schedule="constant", threads=1)
    assert run_trial(Job("digits", config, tmp_path / "run", 0), Line(), Never()).how == "diverged"


# --- a search -----------------------------------------------------------------------------------------------


def test_what_a_search_finds(whole):
    folder, found = whole
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == list(range(9))
    assert trials[0]["settings"] == {"learning_rate": 2e-3, "num_layers": 2}  # the recipe
    assert len({json.dumps(trial["settings"]) for trial in trials}) == 9
    finished = [trial for trial in trials if trial["how"] == "finished"]
    pruned = [trial for trial in trials if trial["how"] == "pruned"]
    assert finished
    assert pruned
    assert found["best"] == min(finished, key=lambda trial: trial["value"])
    assert {trial["epochs"] for trial in finished} == {3}
    assert all(trial["epochs"] < 3 and trial["number"] >= 5 for trial in pruned)
    for name in ("history.png", "slices.png", "importances.png"):
        assert (folder / name).read_bytes()[1:4] == b"PNG"


def test_the_test_score_is_the_best_trial_s(whole, capsys):
    _, found = whole
    assert main(["evaluate", found["best"]["folder"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["test"]


def test_best_toml_trains_the_best_trial_again(whole, tmp_path, capsys):
    folder, found = whole
    assert main(["train", "digits", "--config", str(folder / "best.toml"), "--run", str(tmp_path / "run")]) == 0
    for name in ("best.safetensors", "last.safetensors", "config.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (Path(found["best"]["folder"]) / name).read_bytes()


def test_the_same_command_once_more_trains_nothing(whole, capsys):
    folder, found = whole
    before = (folder / "journal.log").read_bytes()
    assert main(tune(folder, "--trials", 9)) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert (folder / "journal.log").read_bytes() == before
    assert main([word for word in tune(folder, "--trials", 9) if word != "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trial", "dev", "loss", "learning_rate", "num_layers", "epochs", "run"]
    assert len(lines) <= 10
    assert re.match(r"best    trial \d: test loss \d\.\d{4}, accuracy \d+\.\d\d% of 359$", lines[-3])
    assert lines[-1] == f"next    gatewise train digits --config {folder}/best.toml"


def test_other_settings_are_another_search(whole, capsys):
    folder, _ = whole
    assert main(tune(folder, "--trials", 9, "--clip-norm", 2)) == 2
    assert "is a search of other settings (clip_norm was 0.0, is 2.0)" in capsys.readouterr().err


def until(process, condition):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def started(words):
    """In a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "gatewise.cli", *words],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kill_9_and_go_on(whole, tmp_path, capsys):
    """All processes at once, in the middle of a trial: the search goes on as if nothing had been."""
    folder = tmp_path / "killed"
    process = started(tune(folder, "--trials", 9, "--checkpoint-seconds", 0))
    until(process, (folder / "trial-0002/metrics.jsonl").is_file)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with (folder / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code": 4, "wor')  # half a line
    (folder / "journal.log.lock").symlink_to("journal.log")  # and its writer's lock
    assert main(tune(folder, "--trials", 9)) == 0
    found = json.loads(capsys.readouterr().out)
    assert without_times(found["trials"]) == without_times(whole[1]["trials"])
    assert found["test"] == whole[1]["test"]


def test_ctrl_c_in_two_processes(tmp_path):
    folder = tmp_path / "run"
    more = ["--trials", "4", "--processes", "2", "--epochs", "2000"]
    process = started([*tune(folder), *more])
    until(process, lambda: all((folder / f"trial-000{n}/metrics.jsonl").is_file() for n in range(2)))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err.count("\n")) == ("", 1), err
    assert "interrupted, 0 of 4 trials are over: the same command goes on from here" in err
    assert [len(Run(folder / f"trial-000{n}").checkpoints()) for n in range(2)] == [1, 1]


def test_a_proposal_that_was_cut_off_is_made_again(tmp_path):
    search = make_search(TASK, DigitsConfig(), TuneConfig(search=tuple(SPACE)))
    study = searching._open(search, Run.create(tmp_path / "run").folder)
    whole = searching._ask(search, study, {d.name: searching._distribution(d) for d in search.space})
    study.ask()
    again = searching._open(search, tmp_path / "run")
    assert [trial.number for trial in searching._left(again, {d.name for d in search.space})] == [whole.number]
    assert [trial.state.name for trial in again.trials] == ["RUNNING", "FAIL"]


def test_a_process_that_dies(tmp_path, monkeypatch):
    """It is said, and the search can go on."""

    class Mortal(searching._Pool):
        def send(self, job):
            connection = super().send(job)
            self._processes[connection].kill()
            return connection

    monkeypatch.setattr(searching, "_Pool", Mortal)
    search = Search("digits", DigitsConfig(), (Range("num_layers", 1, 2),), 1, "none", 1)
    with pytest.raises(RunError, match=r"ended by itself \(exit status -9; memory\?\): the same command goes on"):
        run_search(search, tmp_path / "run", lambda trials: None)


def test_a_process_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "GRACE_SECONDS", 0.0)
    with searching._Pool(1) as pool:
        connection = pool.send(Job("digits", DigitsConfig(), tmp_path / "run", 0))
        pool.stop(signal.SIGTERM)
        heard = []
        while not heard:
            heard = list(pool.messages([connection]))
    assert heard == [(connection, Ended("stopped", None, 0, 0.0))]
    assert pool.signal == signal.SIGTERM


# --- figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "count"), [("loss", 5), ("accuracy", 1)])
def test_figures_of_any_space(tmp_path, by, count):
    dimensions = [
        Range("hidden_size", 8, 64, 8),
        Range("hidden_size", 8, 64, None, True),
        Range("dropout", 0.0, 0.5),
        Choice("optimizer", ("adam", "sgd")),
        Range("num_layers", 1, 3),
    ]
    values = {"hidden_size": 32, "dropout": 0.1, "optimizer": "sgd", "num_layers": 2}
    trials = [
        TrialResult(0, "finished", 0.5, values, 3, 1.0, ""),
        TrialResult(1, "pruned", 0.7, values, 1, 1.0, ""),
        TrialResult(2, "diverged", None, values, 0, 1.0, ""),
    ]
    search = Search("digits", DigitsConfig(best_by=by), tuple(dimensions[:count]), 3, "none", 1)
    draw_history(tmp_path / "history.png", trials, trials[0], search)
    draw_slices(tmp_path / "slices.png", trials, trials[0], search)
    draw_importances(tmp_path / "importances.png", {"hidden_size": 1.0, "dropout": 0.0}, search)
    assert len(list(tmp_path.iterdir())) == 3
