"""From the words of a command line to the command that they ask for."""

import contextlib
import dataclasses
import functools
import io
import operator
import typing
from collections.abc import Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import tyro

from gatewise.bench.config import BenchConfig
from gatewise.cli.help import BENCH, DESCRIPTION, DOCTOR, TRAIN, TUNE, TUNE_TASK
from gatewise.cli.refusal import usage_line
from gatewise.cli.words import (
    Command,
    Compare,
    Doctor,
    Evaluate,
    Generate,
    Horizon,
    Inspect,
    Predict,
    Resume,
    Runs,
    Train,
    Tune,
)
from gatewise.errors import ArgumentError
from gatewise.experiments.memory import MemoryConfig
from gatewise.tasks.task import Task, tasks
from gatewise.train.config import TrainConfig, read_settings


def parse(argv: Sequence[str]) -> Command | None:
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
        | _subcommand(Generate, "generate", cleandoc(Generate.__doc__ or ""))
        | _subcommand(Inspect, "inspect", cleandoc(Inspect.__doc__ or ""))
        | _subcommand(Horizon, "horizon", cleandoc(Horizon.__doc__ or ""))
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
    parsed: Command = getattr(command, "task", command)
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
        "generate": {},
        "inspect": {},
        "runs": {},
        "compare": {},
        "memory": {},
        "horizon": {},
        "doctor": {},
        "bench": {},
    }
    if argv and argv[0] in known:
        words.append(argv[0])
        words += [word for word in argv[1:2] if word in known[argv[0]]]
    return " ".join(words)


def task_and_settings(command: Train[Any] | Tune[Any]) -> tuple[Task, TrainConfig]:
    """The task that a command is about, and its settings, of the task's own class again."""
    task = next(task for task in tasks().values() if isinstance(command.settings, task.config))
    given = {field.name: getattr(command.settings, field.name) for field in dataclasses.fields(task.config)}
    return task, task.config(**given)
