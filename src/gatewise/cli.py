"""The command line: parses, calls, prints. Nothing is computed here.

A mistake in what was given ends with one line on stderr and exit status 2; a traceback is a bug.
"""

import contextlib
import dataclasses
import datetime
import errno
import functools
import io
import json
import operator
import os
import re
import shlex
import signal
import sys
import time
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gatewise import __version__
from gatewise.bench.config import BenchConfig
from gatewise.errors import ArgumentError, GatewiseError, RunError
from gatewise.experiments.memory import MemoryConfig, Result, table
from gatewise.experiments.tune import TuneConfig, make_search
from gatewise.insight.doctor.findings import CODES
from gatewise.tasks.mistakes import SHOWN, draw_mistakes
from gatewise.tasks.task import Outcome, Prediction, Report, Task, task_of, tasks
from gatewise.train.config import TrainConfig, read_settings, write_config
from gatewise.train.progress import Evaluation, Score
from gatewise.train.whole import write_whole

if TYPE_CHECKING:
    from gatewise.experiments.search import TrialResult
    from gatewise.train.metrics import Metric
    from gatewise.train.runner import Runner

FOUND = "\n".join(f"  {code:<25} {says}" for code, says in CODES.items() if code != "no-gradient")
"""What the source shows; a parameter without a gradient is seen in a live model only."""

DESCRIPTION = """Train, evaluate and use LSTMs on sequences.

Example:
  gatewise train digits --run runs/digits   (about half a minute, nothing is fetched)
  gatewise evaluate runs/digits
  gatewise predict runs/digits image.png

  gatewise tune digits --trials 30          (search for settings)
  gatewise memory                           (how far back do an SRN and an LSTM remember?)
  gatewise doctor train.py                  (mistakes with sequences, without running the file)
  gatewise bench --quick                    (beside torch.nn.LSTM)

gatewise COMMAND --help says more, gatewise --version which version this is."""

TRAIN = """Train a model for one of the tasks below, each with a recipe as its defaults.

A run folder keeps the settings (config.toml), the metrics (metrics.jsonl), two checkpoints, the best and the last
weights (safetensors) and a figure (curves.png). Ctrl-C and SIGTERM end a training after the step under way; gatewise
resume goes on with it, as it does after a kill -9, a full disk or a power cut.

Example:
  gatewise train digits --run runs/digits
  gatewise train mnist --data mnist/ --epochs 3 --seed 1
  gatewise train images --data photos/ --size 32 32   (a folder for each class in photos/)
  gatewise train digit-sum --recipe remember --length 100
  gatewise train digits --config runs/digits/config.toml --seed 1

gatewise train TASK --help lists a task's settings."""

TUNE = """Search for settings of a task: many trainings, each with other settings, the promising ones to their end.

All options of gatewise train TASK are there, for what is the same in all trials; --search names what is not. A trial is
good if its dev split comes to a low loss or a high accuracy (--best-by); the test split is looked at once, in the end,
with the best trial's weights. The first trial is the recipe, if it lies in what is searched; the next ones are drawn,
later ones where earlier ones were good (Optuna's TPE). With one layer, dropout is 0.

Each trial is a run folder. After Ctrl-C, a kill -9 or a power cut the same command goes on, trials under way from their
checkpoints. In the end there are a table of the best, best.toml and three figures (history.png, slices.png,
importances.png).

Example:
  gatewise tune digits --trials 30
  gatewise tune digits --epochs 20 --search learning_rate=1e-4..1e-1:log batch_size=16,32,64 dropout=0..0.5:0.1
  gatewise tune mnist --data mnist/ --dev-fraction 0.1 --best-by accuracy --trials 20 --run runs/search
  gatewise train digits --config runs/tune-digits/best.toml

gatewise tune TASK --help lists everything."""

TUNE_TASK = """Search for settings of {0}: {1}

Example:
  gatewise tune {0} --search hidden_size=32..256:32 learning_rate=1e-4..1e-2:log optimizer=adam,sgd --trials 30"""

DOCTOR = f"""Look for mistakes with sequences in Python source, which is read and never run.

Each finding is a line with its place, its code and why it is one, and the code that mends it:
{FOUND}

Example:
  gatewise doctor train.py
  gatewise doctor package.model
  gatewise doctor . --json

The exit status is 0 if nothing was found, 1 if something was, and 2 if there is no such file or one cannot be read."""

BENCH = """Time gatewise.LSTM beside its peers over a grid of sizes, in one process, in turns.

All outputs and gradients are compared before anything is timed. The times of a machine that others use are worth
little; the ratios within a run are worth more.

Example:
  gatewise bench --quick                    (seconds: shows that it works, not how fast it is)
  gatewise bench --sizes 1 2 8,100,64,128,1 --kinds training
  gatewise bench --peers all --forms all --malloc both --json bench.json --figure bench.png"""

BAR_WIDTH = 30
BEST_TRIALS = 5
REDRAW_SECONDS = 0.2
PRINT_SECONDS = 1.0

Config = TypeVar("Config", bound=TrainConfig)


@dataclass(frozen=True)
class Train(Generic[Config]):
    """A task's settings and where to keep the run."""

    settings: Annotated[Config, tyro.conf.arg(help="The defaults are the recipe.")]

    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Other defaults, by the name of the task's recipe."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A TOML file of settings in place of the defaults, such as the config.toml of a run."""

    run: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder to make, new or empty. Without it: runs/TASK-DATE-TIME."""


@dataclass(frozen=True)
class Tune(Generic[Config]):
    """What is searched, and the settings of all trials."""

    tuning: TuneConfig

    settings: Annotated[Config, tyro.conf.arg(help="The defaults are the recipe.")]

    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Other defaults, by the name of the task's recipe."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A TOML file of settings in place of the defaults, such as the config.toml of a run."""


@dataclass(frozen=True)
class Resume:
    """Go on with a training that was interrupted, from its newest checkpoint that is whole.

    It ends with the same weights, byte for byte, as if it had never been interrupted.

    Example:
      gatewise train digits --run runs/digits   (interrupted by Ctrl-C, SIGTERM, kill -9, a full disk, a power cut)
      gatewise resume runs/digits
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a trained model on its task's test samples: mean loss, accuracy, number of samples.

    The figure shows, for tasks with images, the confusion matrix (how many of each class were taken for each) and as
    pictures the mistakes of the highest loss; --json then has both in numbers.

    Example:
      gatewise evaluate runs/digits
      gatewise evaluate runs/digits --figure mistakes.png
      gatewise evaluate runs/mnist --data mnist/ --json
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder of the data, where they have moved since the training."""

    weights: Literal["best", "last"] = "best"
    """Which epoch's weights."""

    json: bool = False
    """Print one JSON object: loss, accuracy (a share of 1), samples; with --figure classes, confusion, mistakes."""

    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the confusion matrix and the worst mistakes: .png, .pdf or .svg."""


@dataclass(frozen=True)
class Predict:
    """Apply a trained model to one sample: an image file, or for digit-sum a sequence of digits.

    The image must have the size of those trained on (8×8 for digits, 28×28 for MNIST) and be like them: bright
    ink on a dark ground, black read as 0 and white as full ink. Grey of 1, 8 or 16 bits is taken; colour only if
    red, green and blue are equal in each pixel; nothing transparent. A model of gatewise train images takes what it was
    trained on: with --size any size, and colour as the training read it.

    Example:
      gatewise predict runs/mnist seven.png
      gatewise predict runs/photos one.jpg
      gatewise predict runs/mnist seven.png --json
      gatewise predict runs/sum "6 7 0 0 1 0 0 0 0 0"
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""

    given: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IMAGE|DIGITS")]
    """The image, such as a PNG file; or the digits, in quotes, with spaces between them."""

    weights: Literal["best", "last"] = "best"
    """Which epoch's weights."""

    json: bool = False
    """Print one JSON object: label, and scores, the probability of each class (softmax, together 1); and where classes
    have names, name and names."""


@dataclass(frozen=True)
class Runs:
    """List the runs below a folder: what was trained, how far it has come, and the last scores.

    Example:
      gatewise runs
      gatewise runs runs/mnist --json
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")] = Path("runs")
    """The folder that holds them."""

    json: bool = False
    """Print one JSON list of objects: folder, task, state, settings, and the last line of train, dev and test."""


@dataclass(frozen=True)
class Compare:
    """Draw the curves of several runs together, and list the settings in which they differ.

    Example:
      gatewise compare runs/one runs/two
      gatewise compare runs/digits-* --figure digits.pdf
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN RUN...")]
    """Folders that gatewise train made."""

    figure: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("compare.png")
    """The figure: .png, .pdf or .svg."""


@dataclass(frozen=True)
class Doctor:
    """What to read."""

    targets: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PATH_OR_MODULE...")]
    """Files, .py or .ipynb; folders, for all of them below; or modules' names, such as package.model."""

    json: bool = False
    """Print one JSON list of objects: where, line, column, code, what, mend."""


class Printer(Report):
    """Prints how a training goes: a line an evaluation, and a progress bar where there is a terminal.

    Parameters
    ----------
    console : Console
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.fields[means]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.row = self.bar.add_task("", epoch="", means="")
        self.drawn = 0.0
        self.printed = 0.0
        self.unsaid = 0

    def about(self, lines: Mapping[str, str]) -> None:
        """Print each line after its name."""
        for name, line in lines.items():
            self.say(f"{name:<7} {line}")

    def step(self, runner: "Runner") -> None:
        """Move the bar, a few times a second."""
        now = time.perf_counter()
        if self.bar.disable or now - self.drawn < REDRAW_SECONDS or not runner.progress.sums.samples:
            return
        self.drawn = now
        score = runner.progress.sums.score()
        self.bar.update(
            self.row,
            total=runner.steps,
            completed=runner.progress.step,
            epoch=f"{runner.progress.epoch + 1}/{runner.config.epochs}",
            means=f"{_means(score)}  {_speed(score)}",
        )

    def evaluation(self, runner: "Runner", evaluation: Evaluation, is_best: bool) -> None:
        """Print the scores; a star where they are the best so far. Where they come fast, one a second is enough."""
        now = time.perf_counter()
        if now - self.printed < PRINT_SECONDS and not runner.progress.ended:
            self.unsaid += 1
            return
        unsaid = f"  ({self.unsaid} more before)" * bool(self.unsaid)
        self.printed, self.unsaid = now, 0
        splits = "   ".join(f"{name} {_means(score)}" for name, score in evaluation.scores.items())
        place = f"{evaluation.epoch}/{runner.config.epochs}" if evaluation.whole else f"step {evaluation.step}"
        seconds = sum(score.seconds for score in evaluation.scores.values())
        speed = _speed(evaluation.scores["train"])
        self.say(f"{place:>7} {splits}   {seconds:.1f} s   {speed}{' *' * is_best}{unsaid}")

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default: the process's own
        The words after ``gatewise``.

    Returns
    -------
    int
        The exit status: 0, or 1 if the doctor has found something, 2 for a mistake in what was given, 130 after
        Ctrl-C, 141 where nobody reads the output any more.

    Examples
    --------
    >>> main(["--version"])
    gatewise 0.1.0
    0
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a name that cannot be printed is no bug
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes stdout once more when it ends; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("gatewise: interrupted", file=sys.stderr)
        return 130
    except GatewiseError as error:
        print(f"gatewise: error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        what = f"{error.filename} cannot be read or written" if error.filename else "the output cannot be written"
        remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "name another place"
        print(f"gatewise: error: {what} ({error.strerror}): {remedy}", file=sys.stderr)
        return 2


def _run(argv: Sequence[str]) -> int:
    if list(argv) == ["--version"]:
        print(f"gatewise {__version__}")
        return 0
    command = _parse(argv)
    if isinstance(command, Train):
        return _train(command)
    if isinstance(command, Tune):
        return _tune(command)
    if isinstance(command, Resume):
        return _resume(command)
    if isinstance(command, Evaluate):
        return _evaluate(command)
    if isinstance(command, Doctor):
        return _doctor(command)
    if isinstance(command, BenchConfig):
        return _bench(command)
    if isinstance(command, MemoryConfig):
        return _memory(command)
    if isinstance(command, Runs):
        return _runs(command)
    if isinstance(command, Compare):
        return _compare(command)
    return _predict(command) if command else 0


def _train(command: Train[Any]) -> int:
    task = next(task for task in tasks().values() if isinstance(command.settings, task.config))
    given = {field.name: getattr(command.settings, field.name) for field in dataclasses.fields(task.config)}
    now = datetime.datetime.now()
    folder = command.run or Path("runs") / f"{task.name}-{now:%Y-%m-%d-%H%M%S}"
    return _run_task(task, task.config(**given), folder)


def _resume(command: Resume) -> int:
    from gatewise.train.run import Run

    task, config = task_of(Run.open(command.run))
    return _run_task(task, config, command.run, resume=True)


def _run_task(task: Task, config: TrainConfig, folder: Path, resume: bool = False) -> int:
    first = os.environ.get("RANK", "0") == "0"  # under torchrun one process speaks
    printer = Printer(Console(quiet=not first))
    with printer.bar:
        outcome = task.runner().train(task, config, folder, printer, resume)
    if first:
        _print_outcome(task, outcome, config.epochs, folder)
    return 128 + outcome.signal if outcome.signal else 0


def _print_outcome(task: Task, outcome: Outcome, epochs: int, folder: Path) -> None:
    progress, best = outcome.progress, outcome.progress.best
    typed = shlex.quote(f"./{folder}" if str(folder).startswith("-") else str(folder))
    if progress.skipped:
        print(f"skipped {progress.skipped} of {progress.step} steps, whose loss or gradient was not finite")
    if best is not None:
        print(f"best    epoch {best.epoch} ({outcome.chosen_by}): {_of_splits(best)}")
    files = ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    print(f"run     {folder} after {progress.seconds:.1f} s: {files}")
    if not progress.ended:
        name = signal.Signals(outcome.signal).name if outcome.signal else "itself"
        print(f"stopped by {name} after step {progress.step}, {progress.epoch} whole epochs of {epochs}")
        print(f"next    gatewise resume {typed}")
        return
    if progress.epoch < epochs:
        print(f"stopped early, {progress.since_best} evaluations after the best")
    print(f"next    gatewise evaluate {typed}")
    print(f"        gatewise predict {typed} {task.sample}")


def _of_splits(evaluation: Evaluation) -> str:
    """The scores of the test split, or where it was not looked at, of the others."""
    named = {"test": evaluation.scores["test"]} if "test" in evaluation.scores else evaluation.scores
    return "; ".join(f"{name} {_means(score)} of {score.samples:,}" for name, score in named.items())


def _evaluate(command: Evaluate) -> int:
    from gatewise.train.run import Run

    run = Run.open(command.run)
    task, config = task_of(run)
    if command.data is not None:
        config = task.with_data(config, command.data)
    if command.figure is not None:
        from gatewise.train.curves import check_ending

        check_ending(command.figure)
        verdicts = task.runner().judge(task, config, run, command.weights)
        score = verdicts.score
    else:
        verdicts = None
        score = task.runner().evaluate(task, config, run, command.weights)
    if verdicts is not None and command.figure is not None:
        draw_mistakes(command.figure, verdicts, f"{task.name}, test split: {_means(score)}")
    if command.json:
        found = {"loss": score.loss, **score.measures, "samples": score.samples}
        print(json.dumps(found if verdicts is None else found | verdicts.to_json()))
    else:
        print(
            f"{command.run}, {command.weights} weights, test split of {task.name}: {_means(score)} of "
            f"{score.samples:,} samples, {_speed(score)}"
        )
        if verdicts is not None:
            for mistake in verdicts.worst(SHOWN):
                print(mistake)
            print(f"wrote {command.figure}")
    return 0


def _predict(command: Predict) -> int:
    from gatewise.train.run import Run

    run = Run.open(command.run)
    task, config = task_of(run)
    prediction = task.runner().predict(config, run, command.weights, command.given)
    if command.json:
        found = {"label": prediction.label, "scores": prediction.scores}
        named = {"name": prediction.names[prediction.label], "names": prediction.names} if prediction.names else {}
        print(json.dumps(found | named))
    else:
        _print_prediction(prediction)
    return 0


def _print_prediction(prediction: Prediction) -> None:
    """What was given, in characters, then each class with its probability."""
    for line in prediction.shown:
        print(line)
    names = prediction.names or [str(label) for label in range(len(prediction.scores))]
    width = max(5, *map(len, names))
    print(f"label {names[prediction.label]}")
    for name, score in zip(names, prediction.scores, strict=True):
        print(f"{name:>{width}}  {score:7.2%}  {'#' * round(score * BAR_WIDTH)}".rstrip())


def _doctor(command: Doctor) -> int:
    from gatewise.insight.doctor.source import visit

    if not command.targets:
        raise ArgumentError("PATH_OR_MODULE is missing: name what to read; see gatewise doctor --help")
    seen = visit(*command.targets)
    if command.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in seen.findings]))
    else:
        for finding in seen.findings:
            print(finding)
        files = f"{seen.files:,} file{'s' * (seen.files != 1)}"
        print(f"{len(seen.findings) or 'no'} finding{'s' * (len(seen.findings) != 1)} in {files}")
    for line in seen.unread:
        print(f"gatewise: error: {_one_line(line)}", file=sys.stderr)
    return 2 if seen.unread else int(bool(seen.findings))


def _bench(config: BenchConfig) -> int:
    from gatewise.bench.run import run

    run(config)
    return 0


def _means(score: Score) -> str:
    """The loss and whatever else was measured, all shares of 1."""
    return ", ".join([f"loss {_number(score.loss)}", *(f"{name} {mean:.2%}" for name, mean in score.measures.items())])


def _runs(command: Runs) -> int:
    from gatewise.tasks.runs import all_below, standing

    standings = [standing(folder) for folder in all_below(command.folder)]
    if command.json:
        print(json.dumps([each.to_json() for each in standings]))
        return 0
    rows = Table(box=None, pad_edge=False)
    for name in ("run", "task", "state", "epoch", "train", "dev", "test"):
        rows.add_column(name, justify="right" if name == "epoch" else "left", overflow="fold")
    for each in standings:
        scores = [_last_means(each.last(split)) for split in ("train", "dev", "test")]
        rows.add_row(str(each.folder), each.task, each.state, f"{each.epoch:g}/{each.config.epochs}", *scores)
    Console(width=None if sys.stdout.isatty() else 200).print(rows, markup=False, highlight=False)
    return 0


def _last_means(metric: "Metric | None") -> str:
    return "" if metric is None else " ".join([_number(metric.loss), *(f"{m:.2%}" for m in metric.measures.values())])


def _compare(command: Compare) -> int:
    from gatewise.tasks.runs import differing, standing
    from gatewise.train.curves import check_ending, draw_comparison

    check_ending(command.figure)
    standings = [standing(folder) for folder in command.runs]
    names = differing(standings)
    for each in standings:
        if not each.metrics:
            raise RunError(f"{each.folder} has no metrics yet: leave it out, or let it train on")
        settings = dataclasses.asdict(each.config) | {"task": each.task}
        print(f"{each.folder}: {', '.join(f'{name} {settings.get(name)}' for name in names) or 'the same settings'}")
    title = ", ".join(dict.fromkeys(each.task for each in standings))
    draw_comparison(command.figure, {str(each.folder): each.metrics for each in standings}, title)
    print(f"wrote {command.figure}")
    return 0


def _memory(config: MemoryConfig) -> int:
    from gatewise.experiments.grid import run_cases
    from gatewise.experiments.memory_figures import draw_accuracy, draw_losses

    cases = config.cases()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.completed}/{task.total} runs"),
        BarColumn(),
        TextColumn("{task.fields[last]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        row = bar.add_task("", total=len(cases), last="")

        def done(result: Result) -> None:
            bar.update(row, advance=1, last=f"{result.cell} {result.length}: test {result.test:.2%}")

        try:
            results = run_cases(cases, config.run, config.processes, done)
        except KeyboardInterrupt:
            print("gatewise: interrupted: the same command goes on from here", file=sys.stderr)
            return 130
    title = f"Digit sums, recipe {config.recipe}, {config.seeds} seed{'s' * (config.seeds != 1)}"
    figures = {name: [config.run / f"{name}.{ending}" for ending in ("png", "pdf")] for name in ("accuracy", "losses")}
    draw_accuracy(figures["accuracy"], results, title)
    draw_losses(figures["losses"], results, title)
    raw = [dataclasses.asdict(result) for result in results]
    write_whole(config.run / "results.json", json.dumps(raw).encode())
    if config.json:
        print(json.dumps(raw))
        return 0
    for line in table(results):
        print(line)
    seconds = sum(result.seconds for result in results)
    print(f"trained {len(results)} runs in {seconds:,.0f} s of training in all")
    print(f"wrote   {', '.join(str(path) for paths in figures.values() for path in paths)}, {config.run}/results.json")
    return 0


def _tune(command: Tune[Any]) -> int:
    import importlib.util

    if importlib.util.find_spec("optuna") is None:
        raise ArgumentError(
            "gatewise tune needs the package optuna, which is not installed: pip install 'gatewise[tune]'"
        )
    task = next(task for task in tasks().values() if isinstance(command.settings, task.config))
    given = {field.name: getattr(command.settings, field.name) for field in dataclasses.fields(task.config)}
    search = make_search(task, task.config(**given), command.tuning)
    folder = command.tuning.run or Path("runs") / f"tune-{task.name}"
    from gatewise.experiments.search import ranked, run_search
    from gatewise.experiments.tune_figures import draw_history, draw_importances, draw_slices
    from gatewise.train.run import Run

    by = search.base.best_by
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.completed}/{task.total} trials"),
        BarColumn(),
        TextColumn("{task.fields[last]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        row = bar.add_task("", total=search.trials, last="")

        def done(trials: "list[TrialResult]") -> None:
            first = next(iter(ranked(trials, by)), None)
            last = "" if first is None else f"best: dev {by} {_value(first, by)}, trial {first.number}"
            bar.update(row, completed=len(trials), last=last)

        found = run_search(search, folder, done)
    if found.signal:
        over = f"{len(found.trials)} of {search.trials} trials are over"
        print(f"gatewise: interrupted, {over}: the same command goes on from here", file=sys.stderr)
        return 128 + found.signal
    order = ranked(found.trials, by)
    if not order:
        raise RunError(f"{folder}: no trial came to its end, as all losses grew beyond all numbers: search lower rates")
    best = order[0]
    write_config(folder / "best.toml", task.name, search.settings(best.settings))
    figures = [folder / "history.png", folder / "slices.png"]
    draw_history(figures[0], found.trials, best, search)
    draw_slices(figures[1], found.trials, best, search)
    if found.importances:
        figures.append(folder / "importances.png")
        draw_importances(figures[-1], found.importances, search)
    test = task.runner().evaluate(task, search.settings(best.settings), Run(Path(best.folder)), "best")
    if command.tuning.json:
        tested = {"loss": test.loss, **test.measures, "samples": test.samples}
        trials = [trial.to_json() for trial in found.trials]
        print(json.dumps({"by": by, "best": best.to_json(), "test": tested, "trials": trials}))
        return 0
    rows = Table(box=None, pad_edge=False)
    for name in ("trial", f"dev {by}", *(dimension.name for dimension in search.space), "epochs", "run"):
        rows.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    for trial in order[:BEST_TRIALS]:
        values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.settings.values()]
        rows.add_row(str(trial.number), _value(trial, by), *values, str(trial.epochs), trial.folder)
    Console(width=None if sys.stdout.isatty() else 200).print(rows, markup=False, highlight=False)
    counts = Counter(trial.how for trial in found.trials)
    seconds = sum(trial.seconds for trial in found.trials)
    over = ", ".join(f"{counts[how]} {how}" for how in ("finished", "pruned", "diverged") if counts[how])
    print(f"trials  {over}, {seconds:,.0f} s of training in all")
    print(f"best    trial {best.number}: test {_means(test)} of {test.samples:,}")
    print(f"wrote   {', '.join(str(path) for path in (folder / 'best.toml', *figures))}")
    print(f"next    gatewise train {task.name} --config {shlex.quote(str(folder / 'best.toml'))}")
    return 0


def _value(trial: "TrialResult", by: str) -> str:
    """What a trial came to."""
    if trial.value is None:
        return ""
    return f"{trial.value:.2%}" if by == "accuracy" else _number(trial.value)


def _number(loss: float) -> str:
    """Four digits after the point, or the power of ten of what is too large for that."""
    return f"{loss:.4f}" if abs(loss) < 1e6 else f"{loss:.3e}"


def _speed(score: Score) -> str:
    return f"{score.samples / score.seconds:,.0f} samples/s"


def _parse(
    argv: Sequence[str],
) -> Train[Any] | Tune[Any] | Resume | Evaluate | Predict | Runs | Compare | Doctor | MemoryConfig | BenchConfig | None:
    """What the words ask for; None where they ask for help, which is printed.

    Raises
    ------
    ArgumentError
        A command or an option is none, or has no such value.
    """
    train: Any = Train  # a task's class of settings is known only now, so no type checker can follow
    trains = [
        _subcommand(train[_with_defaults(task, argv)], task.name, cleandoc(task.config.__doc__ or ""))
        for task in tasks().values()
    ]
    train_command = dataclasses.make_dataclass("TrainCommand", [("task", functools.reduce(operator.or_, trains))])
    tune: Any = Tune
    tunes = [
        _subcommand(tune[_with_defaults(task, argv)], task.name, TUNE_TASK.format(task.name, _first(task.config)))
        for task in tasks().values()
    ]
    tune_command = dataclasses.make_dataclass("TuneCommand", [("task", functools.reduce(operator.or_, tunes))])
    commands = (
        _subcommand(train_command, "train", TRAIN)
        | _subcommand(tune_command, "tune", TUNE)
        | _subcommand(Resume, "resume", cleandoc(Resume.__doc__ or ""))
        | _subcommand(Evaluate, "evaluate", cleandoc(Evaluate.__doc__ or ""))
        | _subcommand(Predict, "predict", cleandoc(Predict.__doc__ or ""))
        | _subcommand(Runs, "runs", cleandoc(Runs.__doc__ or ""))
        | _subcommand(Compare, "compare", cleandoc(Compare.__doc__ or ""))
        | _subcommand(MemoryConfig, "memory", cleandoc(MemoryConfig.__doc__ or ""))
        | _subcommand(Doctor, "doctor", DOCTOR)
        | _subcommand(BenchConfig, "bench", BENCH)
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command: Any = tyro.cli(
                commands,
                args=argv,
                prog="gatewise",
                description=DESCRIPTION,
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.OmitSubcommandPrefixes,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
    except SystemExit as end:
        if end.code:
            raise ArgumentError(usage_line(said.getvalue(), _command_in(argv))) from end
        return None
    parsed: (
        Train[Any] | Tune[Any] | Resume | Evaluate | Predict | Runs | Compare | Doctor | MemoryConfig | BenchConfig
    ) = getattr(command, "task", command)
    return parsed


def _first(config: type[TrainConfig]) -> str:
    """The first sentence of a task's help."""
    return cleandoc(config.__doc__ or "").split("\n\n")[0]


def _with_defaults(task: Task, argv: Sequence[str]) -> type[TrainConfig]:
    """The class of a task's settings, with the defaults of the recipe and the file that the words name.

    Raises
    ------
    ArgumentError
        The task has no such recipe.
    RunError
        The file is missing or not in order.
    """
    if list(argv[:2]) not in (["train", task.name], ["tune", task.name]):
        return task.config
    recipe, file = _option("--recipe", argv), _option("--config", argv)
    if recipe is not None and recipe not in task.recipes:
        there_are = f"needed is one of {', '.join(task.recipes)}" if task.recipes else f"{task.name} has only its own"
        raise ArgumentError(f"recipe is {recipe!r}, {there_are}: see gatewise {argv[0]} {task.name} --help")
    changes = dict(task.recipes[recipe]) if recipe is not None else {}
    if file is not None:
        changes |= read_settings(Path(file), task.name, task.config)
    if not changes:
        return task.config
    types = typing.get_type_hints(task.config)
    fields: list[Any] = [(name, types[name], dataclasses.field(default=value)) for name, value in changes.items()]
    return dataclasses.make_dataclass(
        task.config.__name__,
        fields,
        bases=(task.config,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": task.config.__doc__},
    )


def _option(name: str, argv: Sequence[str]) -> str | None:
    """The value of the last option of this name."""
    found = None
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == name:
            found = following
        elif word.startswith(f"{name}="):
            found = word.removeprefix(f"{name}=")
    return found


def _subcommand(kind: Any, name: str, description: str) -> Any:
    annotated: Any = Annotated
    return annotated[kind, tyro.conf.subcommand(name, description=description)]


def _command_in(argv: Sequence[str]) -> str:
    """The command that the words begin with, as far as they name one: its --help lists what it takes."""
    words = ["gatewise"]
    known = {
        "train": tasks(),
        "tune": tasks(),
        "resume": {},
        "evaluate": {},
        "predict": {},
        "runs": {},
        "compare": {},
        "memory": {},
        "doctor": {},
        "bench": {},
    }
    if argv and argv[0] in known:
        words.append(argv[0])
        words += [word for word in argv[1:2] if word in known[argv[0]]]
    return " ".join(words)


def usage_line(box: str, command: str) -> str:
    """One line from the box that tyro draws around what is wrong with a command line.

    Parameters
    ----------
    box : str
        A title, then sections with rules between them, in box-drawing characters or, where those cannot be
        printed, in dashes. Sections and deeper lines that are an option's help are left out.
    command : str
        Whose --help says more.

    Returns
    -------
    str
        What was wrong, what may have been meant, and where more is said.

    Examples
    --------
    >>> print(usage_line('''
    ... ╭─ Unrecognized options ─────────────────────╮
    ... │ Unrecognized options: --hiden-size         │
    ... │ ────────────────────────────────────────── │
    ... │ Perhaps you meant:                         │
    ... │     --hidden-size INT                      │
    ... │         Hidden units. (default: 128)       │
    ... │ ────────────────────────────────────────── │
    ... │ For full helptext, run gatewise --help     │
    ... ╰────────────────────────────────────────────╯''', "gatewise train digits"))
    Unrecognized options: --hiden-size; Perhaps you meant: --hidden-size INT; see gatewise train digits --help
    """
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line[2:].rstrip(" │")  # after the frame
        if line.startswith(("╭", "╰")) or set(text) in ({"─"}, {"-"}):
            sections.append([])
        elif text and not text.startswith(" " * 8):  # deeper lines are an option's help
            sections[-1].append(text.strip())
    kept = [" ".join(section).rstrip(".") for section in sections[1:] if section and "helptext" not in section[0]]
    text = "; ".join(kept) or " ".join(box.split())
    text = re.sub(r"Error parsing __tyro\S*: ", "", text)  # the message of a setting's own check says it all
    text = re.sub(r"invalid literal for int\(\) with base 10: ", "needed is a whole number, given ", text)
    text = re.sub(r"could not convert string to float: ", "needed is a number, given ", text)
    return f"{text}; see {command} --help"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
