"""What evaluate and predict do where the task labels sequences."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from gatewise.cli.frames import check_out, give
from gatewise.cli.printing import means, print_table, speed
from gatewise.cli.words import Evaluate, Predict
from gatewise.drawing import check_ending
from gatewise.errors import ArgumentError
from gatewise.tasks.mistakes import SHOWN, Verdicts, draw_mistakes
from gatewise.tasks.sequences import SequencesConfig
from gatewise.tasks.task import Task

if TYPE_CHECKING:
    from gatewise.train.run import Run


def evaluate(command: Evaluate, task: Task, config: SequencesConfig, run: "Run") -> int:
    """Evaluate a run on the test part, class by class, and with a figure draw the confusion matrix."""
    if command.figure is not None:
        check_ending(command.figure)
    verdicts = task.runner().judge(task, config, run, command.weights)
    score = verdicts.score
    if command.figure is not None:
        draw_mistakes(command.figure, verdicts, f"{task.name}, test part: {means(score)}")
    if command.json:
        found = {"loss": score.loss, **score.measures, "samples": score.samples}
        print(json.dumps(found | {"of": verdicts.kind} | verdicts.to_json()))
        return 0
    print(
        f"{command.run}, {command.weights} weights, test part of {task.name}: {means(score)} of {score.samples:,} "
        f"sequences, {speed(score)}"
    )
    _print(verdicts)
    for mistake in verdicts.worst(SHOWN):
        print(mistake)
    if command.figure is not None:
        print(f"wrote {command.figure}")
    return 0


def _print(verdicts: Verdicts) -> None:
    """How many of each class are found, and how many of those taken for it are."""
    matrix = verdicts.confusion
    right, of_class, taken = matrix.diagonal().tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    rows = [
        [name, f"{there:,}", f"{good:,}", _share(good, there), f"{all_taken:,}", _share(good, all_taken)]
        for name, there, good, all_taken in zip(verdicts.names, of_class, right, taken, strict=True)
    ]
    rows.append(["all", f"{sum(of_class):,}", f"{sum(right):,}", _share(sum(right), sum(of_class)), "", ""])
    columns = (f"{verdicts.kind}s", "right", "share (recall)", "taken for it", "right of those (precision)")
    print_table(("class", *columns), columns, rows)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else ""


def predict(command: Predict, config: SequencesConfig, run: "Run") -> int:
    """Label the sequences of a file, or their steps, and write the labels."""
    from gatewise.tasks.labelling import labels_of

    if command.figure is not None:
        raise ArgumentError("figure is for forecasts of series, and sequences have labels: leave it out")
    check_out(command.out)
    give(command, labels_of(config, run, command.weights, Path(command.given)), "labels")
    return 0
