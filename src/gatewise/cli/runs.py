"""The commands about runs: train, resume, evaluate, predict, runs, compare."""

import dataclasses
import datetime
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from gatewise.cli import forecasts, labels, texts
from gatewise.cli.parsing import task_and_settings
from gatewise.cli.printing import Printer, means, measure, number, print_table, speed
from gatewise.cli.words import Compare, Evaluate, Predict, Resume, Runs, Train
from gatewise.drawing import check_ending
from gatewise.errors import RunError
from gatewise.tasks.mistakes import SHOWN, draw_mistakes
from gatewise.tasks.sequences import SequencesConfig
from gatewise.tasks.series import SeriesConfig
from gatewise.tasks.task import Outcome, Prediction, Task, task_of
from gatewise.tasks.text import TextConfig
from gatewise.train.config import TrainConfig
from gatewise.train.progress import Evaluation

if TYPE_CHECKING:
    from gatewise.tasks.runs import Standing
    from gatewise.train.metrics import Metric

BAR_WIDTH = 30


def train(command: Train[Any]) -> int:
    """Train in a new run folder."""
    task, settings = task_and_settings(command)
    now = datetime.datetime.now()
    folder = command.run or Path("runs") / f"{task.name}-{now:%Y-%m-%d-%H%M%S}"
    return _run_task(task, settings, folder)


def resume(command: Resume) -> int:
    """Go on in a run folder."""
    from gatewise.train.run import Run

    task, config = task_of(Run.open(command.run))
    return _run_task(task, config, command.run, resume=True)


def _run_task(task: Task, config: TrainConfig, folder: Path, resume: bool = False) -> int:
    first = os.environ.get("RANK", "0") == "0"  # under torchrun one process speaks
    printer = Printer(Console(quiet=not first), config.things)
    with printer.bar:
        outcome = task.runner().train(task, config, folder, printer, resume)
    if first:
        _print_outcome(task, outcome, config, folder)
    return 128 + outcome.signal if outcome.signal else 0


def _print_outcome(task: Task, outcome: Outcome, config: TrainConfig, folder: Path) -> None:
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
        print(f"stopped by {name} after step {progress.step}, {progress.epoch} whole epochs of {config.epochs}")
        print(f"next    gatewise resume {typed}")
        return
    if progress.epoch < config.epochs and config.patience:
        print(f"stopped early, {progress.since_best} evaluations after the best")
    print(f"next    gatewise evaluate {typed}")
    print(f"        gatewise {task.command} {typed} {task.sample}")


def _of_splits(evaluation: Evaluation) -> str:
    """The scores of the test split, or where it was not looked at, of the others."""
    named = {"test": evaluation.scores["test"]} if "test" in evaluation.scores else evaluation.scores
    return "; ".join(f"{name} {means(score)} of {score.samples:,}" for name, score in named.items())


def evaluate(command: Evaluate) -> int:
    """Evaluate a run, and with a figure show what it mistakes or forecasts."""
    from gatewise.train.run import Run

    run = Run.open(command.run)
    task, config = task_of(run)
    if command.data is not None:
        config = task.with_data(config, command.data)
    if isinstance(config, SeriesConfig):
        return forecasts.evaluate(command, config, run)
    if isinstance(config, TextConfig) and command.figure is None:
        return texts.evaluate(command, config, run)
    if isinstance(config, SequencesConfig):
        return labels.evaluate(command, task, config, run)
    if command.figure is not None:
        check_ending(command.figure)
        verdicts = task.runner().judge(task, config, run, command.weights)
        score = verdicts.score
    else:
        verdicts = None
        score = task.runner().evaluate(task, config, run, command.weights)
    if verdicts is not None and command.figure is not None:
        draw_mistakes(command.figure, verdicts, f"{task.name}, test split: {means(score)}")
    if command.json:
        found = {"loss": score.loss, **score.measures, "samples": score.samples}
        print(json.dumps(found if verdicts is None else found | verdicts.to_json()))
    else:
        print(
            f"{command.run}, {command.weights} weights, test split of {task.name}: {means(score)} of "
            f"{score.samples:,} samples, {speed(score)}"
        )
        if verdicts is not None:
            for mistake in verdicts.worst(SHOWN):
                print(mistake)
            print(f"wrote {command.figure}")
    return 0


def predict(command: Predict) -> int:
    """Apply a run to one sample, or to a file of series or sequences."""
    from gatewise.train.run import Run

    run = Run.open(command.run)
    task, config = task_of(run)
    if isinstance(config, SeriesConfig):
        return forecasts.predict(command, config, run)
    if isinstance(config, SequencesConfig):
        return labels.predict(command, config, run)
    forecasts.refuse_files(command, task.name)
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


def runs(command: Runs) -> int:
    """List the runs below a folder; of damaged ones, what is wrong with them."""
    from gatewise.tasks.runs import all_below, standing

    standings, damaged = [], []
    for folder in all_below(command.folder):
        try:
            standings.append(standing(folder))
        except RunError as error:
            damaged.append(str(error))
    if command.json:
        print(json.dumps([each.to_json() for each in standings]))
    else:
        _print_standings(standings)
    for message in damaged:
        print(f"gatewise: error: {message}", file=sys.stderr)
    return 2 if damaged else 0


def _print_standings(standings: "list[Standing]") -> None:
    print_table(
        ("run", "task", "state", "epoch", "train", "dev", "test"),
        ("epoch",),
        (
            [str(each.folder), each.task, each.state, f"{each.epoch:g}/{each.config.epochs}"]
            + [_last_means(each.last(split)) for split in ("train", "dev", "test")]
            for each in standings
        ),
    )


def _last_means(metric: "Metric | None") -> str:
    if metric is None:
        return ""
    named = (measure(name, value) + " bits" * name.startswith("bits ") for name, value in metric.measures.items())
    return " ".join([number(metric.loss), *named])


def compare(command: Compare) -> int:
    """Draw several runs together, and say what differs."""
    from gatewise.tasks.runs import differing, standing
    from gatewise.train.curves import draw_comparison

    check_ending(command.figure)
    standings = [standing(folder) for folder in command.runs]
    names = differing(standings)
    for each in standings:
        if not each.metrics:
            raise RunError(f"{each.folder} has no metrics yet: leave it out, or let it train on")
        settings = dataclasses.asdict(each.config) | {"task": each.task}
        print(f"{each.folder}: {', '.join(f'{name} {settings.get(name)}' for name in names) or 'the same settings'}")
    title = ", ".join(dict.fromkeys(each.task for each in standings))
    units = {_unit(each.config) for each in standings}
    unit = units.pop() if len(units) == 1 else "loss (each of its own kind)"
    draw_comparison(command.figure, {str(each.folder): each.metrics for each in standings}, title, unit)
    print(f"wrote {command.figure}")
    return 0


def _unit(config: TrainConfig) -> str:
    """What the loss of a run is."""
    if isinstance(config, SeriesConfig):
        return "loss (of scaled targets)"
    return f"cross-entropy loss (nats per {config.things.removesuffix('s')})"
