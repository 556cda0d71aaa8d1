"""The search for settings: what is searched, and what each trial then is told. Neither torch nor Optuna is needed."""

import dataclasses
import difflib
import itertools
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from gatewise.errors import ArgumentError
from gatewise.tasks.task import Task
from gatewise.train.config import TrainConfig

Config = TypeVar("Config", bound=TrainConfig)
Value = int | float | str | bool

DEFAULT_SEARCH = ("hidden_size=32..256:32", "num_layers=1..3", "learning_rate=1e-4..1e-2:log")

FIXED = {
    "seed": "draws the splits, and trials of different splits cannot be compared",
    "test_fraction": "draws the splits, and trials of different splits cannot be compared",
    "dev_fraction": "makes the dev split, and trials of different splits cannot be compared",
    "best_by": "says what is searched for",
    **dict.fromkeys(("target", "horizon", "stride"), "says what is forecast, and other losses cannot be compared"),
    **dict.fromkeys(("point", "scaling", "unit", "per_step"), "says what the loss is, and others cannot be compared"),
    "eval_batch_size": "changes no result",
    "log_every": "changes no result",
    "tensorboard": "changes no result",
    "checkpoint_seconds": "changes no result",
    "threads": "changes no result worth searching for",
    "nonfinite": "says what to do with a training that fails",
}
"""Settings that are the same in all trials, and why."""

MOST_CORNERS = 4096
"""Combinations of extremes that are checked before anything runs."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How settings are searched for.

    Raises
    ------
    ArgumentError
        A value is out of range.
    """

    search: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=RANGE...")] = DEFAULT_SEARCH
    """What is searched: any setting, as LOW..HIGH, as LOW..HIGH:STEP, as LOW..HIGH:log (small and large ones equally
    likely), or as values with commas between them: batch_size=16,32,64 optimizer=adam,sgd."""

    trials: int = 50
    """Trials in all, those of earlier calls included: with a larger number the same command goes on."""

    pruner: Literal["median", "none"] = "median"
    """A trial that has come less far than half of the others at the same point ends there; or none does."""

    processes: int = 0
    """Trials at a time, each on one thread; 0 takes as many as there are cores."""

    run: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where the trials and the results are kept; the same command goes on there. Without it: runs/tune-TASK."""

    json: bool = False
    """Print one JSON object instead of the table: trials, best, test."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("processes", 0)):
            if getattr(self, name) < least:
                raise ArgumentError(f"{name} is {getattr(self, name)}, needed is a number from {least} on: change it")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Parameters
    ----------
    name : str
        The setting's.
    low, high : int or float
        Of the setting's type.
    step : int or float or None
        Only these many apart; None for any in between (a whole number's step is 1).
    log : bool
        Drawn by their logarithms.

    Examples
    --------
    >>> print(Range("hidden_size", 32, 256, 32))
    hidden_size=32..256:32
    >>> Range("hidden_size", 32, 256, 32).holds(100)
    False
    """

    name: str
    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def extremes(self) -> Sequence[Value]:
        """The values that are checked before anything runs."""
        return (self.low, self.high)

    def holds(self, value: object) -> bool:
        """Whether the value is one of them."""
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or _is_whole((value - self.low) / self.step)

    def __str__(self) -> str:
        rest = ":log" if self.log else f":{self.step}" if self.step is not None else ""
        return f"{self.name}={self.low}..{self.high}{rest}"


@dataclass(frozen=True)
class Choice:
    """Some values of a setting, in no order.

    Examples
    --------
    >>> print(Choice("optimizer", ("adam", "sgd")))
    optimizer=adam,sgd
    """

    name: str
    values: tuple[Value, ...]

    @property
    def extremes(self) -> Sequence[Value]:
        """The values that are checked before anything runs: all."""
        return self.values

    def holds(self, value: object) -> bool:
        """Whether the value is one of them."""
        return value in self.values

    def __str__(self) -> str:
        return f"{self.name}={','.join(_typed(value) for value in self.values)}"


Dimension = Range | Choice


@dataclass(frozen=True)
class Search:
    """A search: what is the same in all trials, and what is not.

    Parameters
    ----------
    task : str
        The task's name.
    base : TrainConfig
        The settings of all trials.
    space : tuple of Range or Choice
        What differs.
    trials : int
        In all.
    pruner : {"median", "none"}
        What ends trials early.
    processes : int
        At a time; 0 takes as many as there are cores.

    Raises
    ------
    ArgumentError
        Some settings in the space are none that the task takes.
    """

    task: str
    base: TrainConfig
    space: tuple[Dimension, ...]
    trials: int
    pruner: str
    processes: int

    def __post_init__(self) -> None:
        for values in itertools.islice(self._corners(), MOST_CORNERS):
            self.settings(values)

    def settings(self, values: Mapping[str, Value]) -> TrainConfig:
        """What a trial is told.

        Raises
        ------
        ArgumentError
            The task takes no such settings.
        """
        changes: dict[str, Any] = {"threads": self.base.threads or 1, **values}
        if values.get("num_layers") == 1:  # dropout acts between two layers
            changes["dropout"] = 0.0
        try:
            return dataclasses.replace(self.base, **changes)
        except ArgumentError as error:
            told = ", ".join(f"{name}={_typed(value)}" for name, value in values.items())
            raise ArgumentError(f"search has {told}: {error}") from error

    @property
    def recipe(self) -> dict[str, Value] | None:
        """The settings of all trials as a trial of their own; None if they lie outside of the space."""
        values = {dimension.name: getattr(self.base, dimension.name) for dimension in self.space}
        return values if all(dimension.holds(values[dimension.name]) for dimension in self.space) else None

    def identity(self) -> dict[str, str]:
        """All that makes trials comparable, by name."""
        settings = {f.name: getattr(self.base, f.name) for f in dataclasses.fields(self.base)}
        for name in ("checkpoint_seconds", "eval_batch_size", "tensorboard"):
            del settings[name]
        space = " ".join(map(str, self.space))
        values = {"task": self.task, "search": space, "pruner": self.pruner, **settings}
        return {name: _typed(value) for name, value in values.items()}

    def _corners(self) -> Iterator[dict[str, Value]]:
        """Combinations of extreme values; all of them, where the space is small."""
        names = [dimension.name for dimension in self.space]
        for values in itertools.product(*(dimension.extremes for dimension in self.space)):
            yield dict(zip(names, values, strict=True))


def make_search(task: Task, base: TrainConfig, config: TuneConfig) -> Search:
    """Read what is searched, and see to it that there is something to choose by.

    Parameters
    ----------
    task : Task
        Its data are read.
    base : TrainConfig
        The settings of all trials.
    config : TuneConfig
        How to search.

    Raises
    ------
    ArgumentError
        Something in it is no setting, is no range, or lies outside of what the task takes; there is no dev split.
    DataError
        The data are missing or damaged.

    Examples
    --------
    >>> from gatewise.tasks.digits import TASK, DigitsConfig
    >>> search = make_search(TASK, DigitsConfig(), TuneConfig(search=("num-layers=1..3", "dropout=0,0.3")))
    >>> print(*search.space)
    num_layers=1..3 dropout=0.0,0.3
    """
    space = tuple(read_dimension(text, task.name, type(base)) for text in config.search)
    twice = [dimension.name for dimension in space if sum(other.name == dimension.name for other in space) > 1]
    if twice or not space:
        what = f"has {twice[0]} twice" if twice else "is empty"
        raise ArgumentError(f"search {what}, needed are settings, each once: change it")
    search = Search(task.name, base, space, config.trials, config.pruner, config.processes)
    if "dev" not in task.splits(base):
        raise ArgumentError(
            f"dev_fraction is {base.dev_fraction:g}, needed is a dev split, as the test split never chooses: give "
            "--dev-fraction 0.1"
        )
    return search


def read_dimension(text: str, task: str, cls: type[TrainConfig]) -> Dimension:
    """Read a setting and its values, such as ``hidden_size=32..256:32``, ``learning_rate=1e-4..1e-2:log``.

    Parameters
    ----------
    text : str
        As it is typed.
    task : str
        The task's name, for messages.
    cls : class
        Of its configuration.

    Raises
    ------
    ArgumentError
        It is none.

    Examples
    --------
    >>> read_dimension("batch_size=16,32", "digits", TrainConfig)
    Choice(name='batch_size', values=(16, 32))
    >>> read_dimension("hiden-size=8..64", "digits", TrainConfig)
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: search has hiden_size, which is no setting of digits: the nearest is hidden_size
    """
    types = typing.get_type_hints(cls)
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if name not in types:
        nearest = difflib.get_close_matches(name, types, n=1, cutoff=0)[0]
        raise ArgumentError(f"search has {name}, which is no setting of {task}: the nearest is {nearest}")
    if name in FIXED:
        raise ArgumentError(f"search has {name}, which {FIXED[name]}: give it once for all, as --{_dashed(name)}")
    type_ = types[name]
    if type_ not in (int, float, bool, str) and typing.get_origin(type_) is not Literal:
        raise ArgumentError(f"search has {name}, which is no number and no choice: give it as --{_dashed(name)}")
    if not equals or not values:
        raise ArgumentError(f"search has {text!r}, needed is {name}=LOW..HIGH or {name}=VALUE,VALUE: change it")
    if ".." in values:
        return _range(name, values, type_)
    chosen = tuple(_read(name, value.strip(), type_) for value in values.split(","))
    if len(set(chosen)) < len(chosen):
        raise ArgumentError(f"search has a value of {name} twice ({values}), needed is each once: change it")
    if len(chosen) < 2:
        raise ArgumentError(f"search has one value of {name}, needed are several: give it as --{_dashed(name)}")
    return Choice(name, chosen)


def _range(name: str, text: str, type_: Any) -> Range:
    if type_ not in (int, float):
        raise ArgumentError(f"search has {name}={text}, needed are values with commas between them: change it")
    numbers, _, rest = text.partition(":")
    low, high = (_read(name, value, type_) for value in numbers.split("..", 1))
    assert isinstance(low, int | float) and isinstance(high, int | float)
    log = rest == "log"
    step = _read(name, rest, type_) if rest and not log else None
    assert step is None or isinstance(step, int | float)
    if not low < high:
        raise ArgumentError(f"search has {name}={text}, needed is a range from low to high: change it")
    if log and low <= 0:
        raise ArgumentError(f"search has {name}={text}, needed is a range above 0 for log: change it")
    if step is not None and not (step > 0 and _is_whole((high - low) / step)):
        raise ArgumentError(f"search has {name}={text}, needed is a step that leads from {low} to {high}: change it")
    return Range(name, low, high, step, log)


def _read(name: str, text: str, type_: Any) -> Value:
    """A value of a setting's type."""
    if typing.get_origin(type_) is Literal:
        if text in typing.get_args(type_):
            return text
        needed = f"one of {', '.join(typing.get_args(type_))}"
    elif type_ is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        needed = "true or false"
    elif type_ is str:
        return text
    else:
        needed = "a whole number" if type_ is int else "a number"
        with suppress(ValueError):  # what is none is refused below
            value: int | float = type_(text)
            if math.isfinite(value):
                return value
    raise ArgumentError(f"search has {text!r} for {name}, needed is {needed}: change it")


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=1e-9)


def _typed(value: object) -> str:
    """A value as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
