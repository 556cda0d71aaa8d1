"""The commands of experiments: memory, tune, inspect, horizon."""

import dataclasses
import importlib.util
import json
import math
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.cli.parsing import task_and_settings
from gatewise.cli.printing import counting, means, number, print_table
from gatewise.cli.words import Horizon, Inspect, Tune
from gatewise.drawing import check_ending, save
from gatewise.errors import ArgumentError, RunError
from gatewise.experiments.memory import MemoryConfig, Result, table
from gatewise.experiments.tune import make_search
from gatewise.train.config import write_config
from gatewise.whole import write_whole

if TYPE_CHECKING:
    from gatewise.experiments.search import TrialResult

BEST_TRIALS = 5

SHARES = ("accuracy", "coverage")
"""The measures that are shares of 1."""


def memory(config: MemoryConfig) -> int:
    """Run the memory experiment, and print, draw and write what it came to."""
    from gatewise.experiments.grid import run_cases
    from gatewise.experiments.memory_figures import draw_accuracy, draw_losses

    cases = config.cases()
    with counting("runs") as bar:
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


def tune(command: Tune[Any]) -> int:
    """Search for settings, and print, draw and write what was found."""
    if importlib.util.find_spec("optuna") is None:
        raise ArgumentError(
            "gatewise tune needs the package optuna, which is not installed: pip install 'gatewise[tune]'"
        )
    task, settings = task_and_settings(command)
    search = make_search(task, settings, command.tuning)
    folder = command.tuning.run or Path("runs") / f"tune-{task.name}"
    from gatewise.experiments.search import ranked, run_search
    from gatewise.experiments.tune_figures import draw_history, draw_importances, draw_slices
    from gatewise.train.run import Run

    by = search.base.best_by
    with counting("trials") as bar:
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
    names = ("trial", f"dev {by}", *(dimension.name for dimension in search.space), "epochs")
    shown = (
        [str(trial.number), _value(trial, by), *_told(trial), str(trial.epochs), trial.folder]
        for trial in order[:BEST_TRIALS]
    )
    print_table((*names, "run"), names, shown)
    counts = Counter(trial.how for trial in found.trials)
    seconds = sum(trial.seconds for trial in found.trials)
    over = ", ".join(f"{counts[how]} {how}" for how in ("finished", "pruned", "diverged") if counts[how])
    print(f"trials  {over}, {seconds:,.0f} s of training in all")
    print(f"best    trial {best.number}: test {means(test)} of {test.samples:,}")
    print(f"wrote   {', '.join(str(path) for path in (folder / 'best.toml', *figures))}")
    print(f"next    gatewise train {task.name} --config {shlex.quote(str(folder / 'best.toml'))}")
    return 0


def inspect(command: Inspect) -> int:
    """Write the report of a run, and print what was found."""
    from gatewise.experiments.inspection.report import inspect as look_into

    found = look_into(command.run, command.inputs, command.weights, command.out, command.data)
    if command.json:
        print(json.dumps(found.to_json()))
        return 0
    score = ", ".join(
        f"{name} {value:.2%}" if name in SHARES else f"{name} {number(value)}" for name, value in found.score.items()
    )
    print(f"{command.run}, {command.weights} weights: test {score} of {found.samples:,}")
    for line in found.verdicts:
        print(line)
    for layer in found.flow:
        print(layer["sentence"])
    print(f"wrote {found.report}")
    return 0


def horizon(command: Horizon) -> int:
    """Measure how far a run's gradient reaches, and print and draw it."""
    from gatewise.experiments.horizon import horizons
    from gatewise.insight.figures import draw_lags

    if command.figure is not None:
        check_ending(command.figure)
    found = horizons(command.run, command.weights, command.fraction, command.steps)
    if command.figure is not None:
        figure = draw_lags(found.flow, str(command.run), command.fraction, found.reach)
        save(figure, command.figure)
    if command.json:
        print(json.dumps(found.to_json()))
        return 0
    cut = "through whole sequences" if found.reach is None else f"through {_counted(found.reach, 'step')}"
    print(
        f"{command.run}, {command.weights} weights: gradients flowed {cut} in training; looked at on "
        f"{_counted(found.sequences, 'test sequence')} of {_counted(found.steps, found.step)}"
    )
    share = f"below {command.fraction:.3g} after"
    columns = ("layer", share, "meaning")
    rows = []
    for layer, of_layer in zip(found.layers, found.flow.layers, strict=True):
        after = "" if math.isnan(of_layer.horizon(command.fraction)) else f"over {layer.longest}"
        rows.append((f"{layer.layer} ({layer.cell})", str(layer.horizon or after), layer.sentence))
    print_table(columns, (share,), rows)
    if command.figure is not None:
        print(f"wrote {command.figure}")
    return 0


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _told(trial: "TrialResult") -> list[str]:
    """What a trial was told."""
    return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.settings.values()]


def _value(trial: "TrialResult", by: str) -> str:
    """What a trial came to."""
    if trial.value is None:
        return ""
    return f"{trial.value:.2%}" if by == "accuracy" else number(trial.value)
