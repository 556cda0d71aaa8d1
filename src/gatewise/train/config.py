"""What a training is told: a frozen dataclass that is its command line, and its config.toml as well."""

import dataclasses
import difflib
import math
import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import cattrs
import tomlkit
from cattrs.preconf.tomlkit import make_converter

from gatewise.errors import ArgumentError, RunError
from gatewise.train.schedule import ScheduleName
from gatewise.whole import write_whole


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training that every task has; a task's own class gives its recipe as defaults.

    Raises
    ------
    ArgumentError
        A value is out of range.

    Examples
    --------
    >>> TrainConfig(epochs=3).epochs
    3
    >>> TrainConfig(epochs=0)
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: epochs is 0, needed is a number from 1 to below 2^31: change it
    """

    hidden_size: int = 128
    """Hidden units of each LSTM layer."""

    num_layers: int = 2
    """LSTM layers, one reading the other's output."""

    dropout: float = 0.0
    """Share of the units between two LSTM layers that are dropped while training, from 0 to below 1."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """The rule that changes the weights: Adam, or plain stochastic gradient descent."""

    learning_rate: float = 1e-3
    """Step size of the optimizer, at the start if it is scheduled."""

    schedule: ScheduleName = "constant"
    """The learning rate stays, falls to 0 along half a cosine, or first rises from a 25th for 30 % of the steps."""

    clip_norm: float = 0.0
    """A gradient whose L2 norm over all parameters is larger is scaled down to this; 0 leaves all as they are."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in: bfloat16 by torch.autocast, with weights and optimizer in float32."""

    batch_size: int = 100
    """Samples that go through the model at once."""

    accumulate: int = 1
    """Batches whose gradients make one training step together, as one batch of so many times the size would."""

    eval_batch_size: int = 500
    """Samples that are evaluated at once; changes the speed, not the result."""

    epochs: int = 30
    """Times that the training goes through all its samples."""

    dev_fraction: float = 0.0
    """Share of the samples set aside (dev): they choose the best weights; with 0 the training loss does."""

    dev_every: int = 0
    """Training steps between two looks at dev; 0 looks after each epoch."""

    best_by: Literal["loss", "accuracy"] = "loss"
    """What chooses the best weights: the lowest loss or the highest accuracy; the first of equals."""

    patience: int = 0
    """The training ends after so many looks at dev that were no better than the best; 0 goes on to the last epoch."""

    nonfinite: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is not finite ends the training, or its step is left out and counted."""

    seed: int = 0
    """Fixes the first weights, the order of the samples, the dropout and the splits: same seed, same result."""

    log_every: int = 50
    """Steps between two training lines in metrics.jsonl, each the mean over the epoch so far."""

    tensorboard: bool = False
    """Write the metrics for TensorBoard as well, into the run's folder tensorboard."""

    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints, from which gatewise resume goes on; there is one at the end in any case."""

    threads: int = 0
    """CPU threads; 0 takes as many as torch finds. Another number can change the last digits of a result."""

    def __post_init__(self) -> None:
        for name, type_ in typing.get_type_hints(type(self)).items():
            if typing.get_origin(type_) is Literal:
                self._need(name, getattr(self, name) in typing.get_args(type_), _in_words(type_))
        for name in ("hidden_size", "num_layers", "batch_size", "accumulate", "eval_batch_size", "epochs", "log_every"):
            self._need(name, 1 <= getattr(self, name) < 2**31, "a number from 1 to below 2^31")
        for name in ("dropout", "dev_fraction"):
            self._need(name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        self._need("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0")
        for name in ("clip_norm", "checkpoint_seconds"):
            self._need(name, 0 <= getattr(self, name) < math.inf, "a number from 0 on")
        for name in ("dev_every", "patience"):
            self._need(name, 0 <= getattr(self, name) < 2**31, "a number from 0 to below 2^31")
        self._need("seed", 0 <= self.seed < 2**63, "a number from 0 to below 2^63")
        self._need("threads", 0 <= self.threads <= 1024, "a number from 0 to 1024")
        self._need(
            "dropout",
            self.dropout == 0 or self.num_layers > 1,
            "0 with a single layer, as it acts between two",
        )

    @property
    def things(self) -> str:
        """What a score is the mean over, for whoever reads how many there are."""
        return "samples"

    def _need(self, name: str, holds: bool, needed: str) -> None:
        if not holds:
            value = getattr(self, name)
            given = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise ArgumentError(f"{name} is {given}, needed is {needed}: change it")


@dataclass(frozen=True, kw_only=True)
class ImageConfig(TrainConfig):
    """The settings of a training on images.

    Examples
    --------
    >>> ImageConfig(normalize=(0.1307, 0.3081)).normalize
    (0.1307, 0.3081)
    """

    initial: Literal["torch", "orthogonal"] = "torch"
    """The LSTM's first weights: torch's; or Xavier's and orthogonal recurrent ones, with a forget bias of 1."""

    read: Literal["rows", "columns"] = "rows"
    """What a step of the sequence is: a row of the image, from the top, or a column, from the left."""

    normalize: tuple[float, float] = (0.0, 1.0)
    """Mean and deviation: a pixel p from 0 (background) to 1 (full ink) is read as (p - mean) / deviation."""

    max_shift: int = 0
    """Each training image is moved at random by up to so many pixels, along and across, each time it is seen."""

    max_turn: float = 0.0
    """Each training image is turned at random by up to so many degrees, either way, each time it is seen."""

    mirror: bool = False
    """Each time a training image is seen, it is as likely as not that left and right are exchanged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        mean, deviation = self.normalize
        self._need("normalize", math.isfinite(mean) and 0 < deviation < math.inf, "a mean and a deviation above 0")
        self._need("max_turn", 0 <= self.max_turn <= 180, "a number from 0 to 180")
        self._need("max_shift", self.max_shift >= 0, "a number of at least 0")


def write_config(path: Path, task: str, config: TrainConfig) -> None:
    """Write a configuration as TOML, below the name of its task and the version of gatewise.

    Parameters
    ----------
    path : path
        The file; one that exists is replaced.
    task : str
        The task's name.
    config : TrainConfig
        The settings.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "config.toml"
    >>> write_config(path, "digits", TrainConfig(epochs=3))
    >>> read_config(path, {"digits": TrainConfig}) == ("digits", TrainConfig(epochs=3))
    True
    """
    settings = {name: value for name, value in _converter().unstructure(config).items() if value is not None}
    content = {"task": task, "gatewise": metadata.version("gatewise")} | settings  # (TOML has no word for none)
    write_whole(path, tomlkit.dumps(content).encode())


def read_config(path: Path, tasks: Mapping[str, type[TrainConfig]]) -> tuple[str, TrainConfig]:
    """Read what `write_config` wrote.

    Parameters
    ----------
    path : path
        The file.
    tasks : mapping of str to class
        The class of each task's configuration.

    Returns
    -------
    task : str
        Its name, one of the keys of `tasks`.
    config : TrainConfig
        An object of that task's class.

    Raises
    ------
    RunError
        The file is missing or no TOML, names a task or a setting that does not exist, lacks a setting, or has a
        value of the wrong type or range.
    """
    table = _table(path)
    task: Any = table.get("task")
    if task not in tasks:
        raise RunError(f"{path}: the task is {task!r}, needed is one of {', '.join(tasks)}: mend the file")
    cls = tasks[task]
    settings = _settings(path, table, task, cls)
    optional = {name for name, type_ in typing.get_type_hints(cls).items() if type(None) in typing.get_args(type_)}
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in settings and f.name not in optional]
    if missing:  # no default in its place: another version's may differ from what the run was trained with
        written = f" (written by gatewise {table['gatewise']})" if "gatewise" in table else ""
        raise RunError(f"{path}{written} lacks {', '.join(missing)}, which {task} needs: mend the file")
    try:
        return task, cls(**settings)
    except ArgumentError as error:
        raise RunError(f"{path}: {error}") from error


def read_settings(path: Path, task: str, cls: type[TrainConfig]) -> dict[str, Any]:
    """Read some settings of a task, such as its command line may start from.

    Parameters
    ----------
    path : path
        A TOML file of settings, or a config.toml.
    task : str
        The task's name; the file may name no other.
    cls : class
        Of its configuration.

    Returns
    -------
    dict
        The settings that the file has, by name.

    Raises
    ------
    RunError
        The file is missing or no TOML, is of another task, or has a setting that does not exist or is of a wrong type.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mine.toml"
    >>> _ = path.write_text("epochs = 3")
    >>> read_settings(path, "digits", TrainConfig)
    {'epochs': 3}
    """
    table = _table(path)
    if table.get("task", task) != task:
        raise RunError(f"{path} is of the task {table['task']}, needed is {task}: give another file")
    return _settings(path, table, task, cls)


def _table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}): give a TOML file of settings") from error
    if not isinstance(table.get("gatewise", ""), str):
        raise RunError(f"{path}: gatewise is {table['gatewise']!r}, needed is a version in quotes: mend the file")
    return table


def _settings(path: Path, table: Mapping[str, Any], task: str, cls: type[TrainConfig]) -> dict[str, Any]:
    """The settings in a table; beside them it may name the task and the version of gatewise."""
    types = typing.get_type_hints(cls)
    settings = {}
    for name, value in table.items():
        if name in ("task", "gatewise"):
            continue
        if name not in types:
            nearest = difflib.get_close_matches(name, types, n=1, cutoff=0)[0]
            raise RunError(f"{path}: {name} is no setting of {task}, the nearest is {nearest}: mend the file")
        settings[name] = _setting(path, name, value, types[name])
    return settings


def _setting(path: Path, name: str, value: Any, type_: Any) -> Any:
    try:
        return _converter().structure(value, type_)
    except Exception as error:  # cattrs lets each kind of value raise as it likes
        raise RunError(f"{path}: {name} is {value!r}, needed is {_in_words(type_)}: mend the file") from error


def _in_words(type_: Any) -> str:
    """Say what a value of a type looks like in TOML."""
    if type(None) in typing.get_args(type_):  # which TOML leaves out
        return _in_words(next(part for part in typing.get_args(type_) if part is not type(None)))
    if typing.get_origin(type_) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(type_))
    if typing.get_origin(type_) is tuple and typing.get_args(type_)[-1] is Ellipsis:
        return f"an array of which each is {_in_words(typing.get_args(type_)[0])}"
    if typing.get_origin(type_) is tuple:
        return "an array of " + " and ".join(_in_words(part) for part in typing.get_args(type_))
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(type_, "a text in quotes")


def _converter() -> cattrs.Converter:
    """Between dataclasses and TOML's own types, taking no value for one of another type."""

    def exactly(*types: type) -> Any:
        def structure(value: Any, target: Any) -> Any:
            if type(value) not in types:
                raise TypeError(f"{value!r} is no {target.__name__}")
            return target(value)

        return structure

    def is_array(type_: Any) -> bool:
        return typing.get_origin(type_) is tuple

    def array(type_: Any) -> Any:
        parts = typing.get_args(type_)

        def structure(value: Any, target: Any) -> Any:
            if type(value) not in (list, tuple):  # (a text would be taken for an array of its characters)
                raise TypeError(f"{value!r} is no array")
            of = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
            return tuple(converter.structure(each, part) for each, part in zip(value, of, strict=True))

        return structure

    converter = make_converter()
    converter.register_structure_hook_factory(is_array, array)
    converter.register_structure_hook(str, exactly(str))
    converter.register_structure_hook(int, exactly(int))
    converter.register_structure_hook(bool, exactly(bool))
    converter.register_structure_hook(float, exactly(int, float))
    converter.register_structure_hook(Path, exactly(str))
    converter.register_unstructure_hook(Path, os.fspath)
    return converter
