"""Images read as sequences of rows or columns by an LSTM, and classified after the last."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gatewise.data.images import ImageSet, read_image
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.nn import LSTM
from gatewise.nn.initial import orthogonal_
from gatewise.tasks.augment import random_mirror, random_shift, random_turn
from gatewise.tasks.mistakes import Verdicts
from gatewise.tasks.task import Outcome, Prediction, Probe, Report, Sample, Subject, Task, probe_of, task_of
from gatewise.tasks.training import Problem, built, counted, train_problem
from gatewise.train.config import ImageConfig
from gatewise.train.metrics import correct_by_argmax
from gatewise.train.progress import Score
from gatewise.train.run import Run
from gatewise.train.runner import Runner
from gatewise.train.samples import Examples
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

SHADES = " .:-=+*#%@"
WIDEST = 64
"""Pixels of a row that are shown in characters; of wider images every second, third … is."""


class RowClassifier(nn.Module):
    """An LSTM over the rows or columns of an image, and a linear layer on its output at the last.

    Parameters
    ----------
    input_size : int
        Numbers in a row, or in a column if those are read: one a pixel, or three in colour.
    hidden_size : int
        Hidden units of each LSTM layer.
    num_layers : int
        LSTM layers.
    num_classes : int
        Classes.
    dropout : float, default 0
        Share of the units between two LSTM layers that are dropped while training.
    lstm : callable, default gatewise.nn.LSTM
        Makes the LSTM from the arguments of `torch.nn.LSTM`, such as that class itself.
    read : {"rows", "columns"}, default "rows"
        What a step is.

    Examples
    --------
    >>> model = RowClassifier(28, 128, 2, 10)
    >>> model(torch.zeros(5, 28, 28)).shape
    torch.Size([5, 10])
    >>> RowClassifier(3 * 20, 128, 2, 10, read="columns")(torch.zeros(5, 20, 30, 3)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_classes: int,
        dropout: float = 0.0,
        lstm: Callable[..., nn.Module] = LSTM,
        read: Literal["rows", "columns"] = "rows",
    ) -> None:
        super().__init__()
        self.read = read
        self.lstm = lstm(input_size, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.linear = nn.Linear(hidden_size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, rows, columns) or (B, rows, columns, 3) to logits (B, classes); the first state is zero."""
        steps = images.transpose(1, 2) if self.read == "columns" else images
        output, _ = self.lstm(steps.flatten(2))
        logits: Tensor = self.linear(output[:, -1])
        return logits


def examples(images: ImageSet, config: ImageConfig) -> Examples:
    """Normalized images (N, rows, columns) or (N, rows, columns, 3) as float32, and their classes (N,) as int64."""
    pixels = torch.from_numpy(images.pixels())
    return Examples(_normalize(pixels, config), torch.from_numpy(images.labels.astype(np.int64)))


def problem(task: Task, config: ImageConfig) -> Problem:
    """What the settings train.

    Raises
    ------
    ArgumentError
        Images would be moved by their whole size.
    """
    sets = task.splits(config)
    (rows, columns), classes = sets["train"].size, sets["train"].classes
    if config.max_shift >= min(rows, columns):
        raise ArgumentError(
            f"max_shift is {config.max_shift}, needed is less than the images' {min(rows, columns)} pixels: "
            "make it smaller"
        )
    form = Form(rows, columns, sets["train"].colour, sets["train"].names)
    model = _build(form, classes, config)
    if config.initial == "orthogonal":
        orthogonal_(model.lstm)
    mean, deviation = config.normalize

    background = (0 - mean) / deviation

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        if config.mirror:
            inputs = random_mirror(inputs, generator)
        if config.max_turn:
            inputs = random_turn(inputs, config.max_turn, background, generator)
        if config.max_shift:
            inputs = random_shift(inputs, config.max_shift, background, generator)
        return inputs

    return Problem(
        model,
        cross_entropy,
        {"accuracy": correct_by_argmax},
        {name: examples(images, config) for name, images in sets.items()},
        about={**form.to_metadata(), "test": sets["test"].sha256()},
        description=_description(sets, model, config),
        augment=augment if config.max_shift or config.max_turn or config.mirror else None,
    )


def train(task: Task, config: ImageConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder: see `train_problem`."""
    return train_problem(task.name, config, partial(problem, task), folder, report, resume)


def evaluate(task: Task, config: ImageConfig, run: Run, weights: str) -> Score:
    """Evaluate a run's weights on the task's test images."""
    runner, images = _tested(task, config, run, weights)
    return runner.evaluate(examples(images, config))


def judge(task: Task, config: ImageConfig, run: Run, weights: str) -> Verdicts:
    """Evaluate as `evaluate` does, and keep what each test image was taken for."""
    runner, images = _tested(task, config, run, weights)
    given = examples(images, config)
    score = runner.evaluate(given)
    log_scores = runner.predict(given.inputs).float().log_softmax(dim=1)
    return Verdicts(
        score,
        images.labels.astype(np.intp),
        log_scores.numpy(),
        _names(images),
        images.pixels(),
        images.files,
    )


def predict(config: ImageConfig, run: Run, weights: str, given: str) -> Prediction:
    """Classify one image file."""
    model, form, _ = _load(config, run.weights(weights))
    task, _ = task_of(run)
    pixels = _read(task, config, given, (form.rows, form.columns))
    images = _normalize(torch.from_numpy(pixels[None]), config)
    scores = Runner(model, cross_entropy, config).predict(images)[0].float().softmax(dim=0)
    return Prediction(int(scores.argmax()), scores.tolist(), _shown(pixels), list(form.names))


def model(config: ImageConfig, run: Run, weights: str) -> nn.Module:
    """Make a run's model."""
    return _load(config, run.weights(weights))[0]


def look(task: Task, config: ImageConfig, run: Run, weights: str, given: Sequence[str]) -> Subject:
    """Load a run's model, and what it can be looked at with."""
    runner, images = _tested(task, config, run, weights)
    own = [_read(task, config, path, images.size) for path in given]
    tested = examples(images, config)
    score = runner.evaluate(tested)
    log_scores = runner.predict(tested.inputs).float().log_softmax(dim=1).numpy()

    def test_sample(place: int) -> Sample:
        name = "/".join(Path(images.files[place]).parts[-2:]) if images.files else f"test image {place}"  # class, file
        alone = images.take(np.array([place]))
        label = int(images.labels[place])
        return Sample(name, tested.inputs[place : place + 1], log_scores[place], label, alone.pixels()[0])

    def given_sample(path: str, pixels: NDArray[np.float32]) -> Sample:
        read = _normalize(torch.from_numpy(pixels[None]), config)
        return Sample(path, read, runner.predict(read)[0].float().log_softmax(dim=0).numpy(), None, pixels)

    return Subject(
        runner.model.eval(),
        cross_entropy,
        score,
        _names(images),
        tested.inputs,
        images.labels.astype(np.intp),
        log_scores,
        config.read.removesuffix("s"),
        test_sample,
        [given_sample(*pair) for pair in zip(given, own, strict=True)],
    )


def probe(task: Task, config: ImageConfig, run: Run, weights: str, steps: int | None) -> Probe:
    """Load the model, and some of the test images."""
    subject = look(task, config, run, weights, ())
    return probe_of(subject, subject.inputs.size(1 if config.read == "rows" else 2), steps)


def _read(task: Task, config: ImageConfig, path: str, size: tuple[int, int]) -> NDArray[np.float32]:
    """One image as those trained on were read."""
    return read_image(path, size) if task.read_image is None else task.read_image(config, path, size)


def _names(images: ImageSet) -> tuple[str, ...]:
    """What each class is called."""
    return images.names or tuple(str(label) for label in range(images.classes))


def _shown(pixels: NDArray[np.float32]) -> list[str]:
    """An image in characters, two a pixel; in colour, its brightness."""
    every = -(-pixels.shape[1] // WIDEST)
    grey = pixels[::every, ::every] if pixels.ndim == 2 else pixels[::every, ::every].mean(axis=-1)
    return ["".join(2 * SHADES[round(pixel * (len(SHADES) - 1))] for pixel in row).rstrip() for row in grey.tolist()]


@dataclass(frozen=True)
class Form:
    """What the images of a model are like: it is kept with the weights.

    Examples
    --------
    >>> form = Form(20, 30, True, ("cat", "dog"))
    >>> form.steps("rows"), form.steps("columns")
    ((20, 90), (30, 60))
    >>> Form.from_metadata(form.to_metadata()) == form
    True
    """

    rows: int
    columns: int
    colour: bool = False
    names: tuple[str, ...] = ()

    def steps(self, read: str) -> tuple[int, int]:
        """How many steps there are, and the numbers in each."""
        steps, pixels = (self.rows, self.columns) if read == "rows" else (self.columns, self.rows)
        return steps, pixels * (3 if self.colour else 1)

    def to_metadata(self) -> dict[str, str]:
        """As safetensors keep it."""
        size = {"rows": str(self.rows), "columns": str(self.columns)}
        return {**size, "colour": json.dumps(self.colour), "names": json.dumps(self.names)}

    @classmethod
    def from_metadata(cls, kept: Mapping[str, str]) -> "Form":
        """What `to_metadata` gave."""
        colour, names = json.loads(kept["colour"]), json.loads(kept["names"])
        return cls(int(kept["rows"]), int(kept["columns"]), colour, tuple(names))


def _tested(task: Task, config: ImageConfig, run: Run, weights: str) -> tuple[Runner, ImageSet]:
    """A run's model, and the test images that it takes."""
    model, form, kept = _load(config, run.weights(weights))
    images = task.test_set(config)
    if images.size != (form.rows, form.columns):
        raise DataError(
            f"{images.source}: the images have {images.size[0]}×{images.size[1]} pixels (rows × columns), "
            f"needed are {form.rows}×{form.columns}: give the data that it was trained on"
        )
    if images.names != form.names:
        raise DataError(
            f"{images.source}: the classes are {', '.join(images.names)}, needed are {', '.join(form.names)}: "
            "give the data that it was trained on"
        )
    if hasattr(config, "test_fraction") and kept["test"] != images.sha256():
        # Drawn from the same folder as the training's: with others in it some would have been trained on.
        raise DataError(
            f"{images.source}: the test split has other images than at the training, and may have some that were "
            "trained on: restore the folder, or train again"
        )
    return Runner(model, cross_entropy, config, measures={"accuracy": correct_by_argmax}), images


def _build(form: Form, classes: int, config: ImageConfig) -> RowClassifier:
    _, input_size = form.steps(config.read)
    hidden_size, layers, dropout = config.hidden_size, config.num_layers, config.dropout
    return built(config, lambda: RowClassifier(input_size, hidden_size, layers, classes, dropout, read=config.read))


def _normalize(pixels: Tensor, config: ImageConfig) -> Tensor:
    mean, deviation = config.normalize
    return (pixels - mean) / deviation


def _description(sets: Mapping[str, ImageSet], model: RowClassifier, config: ImageConfig) -> dict[str, str]:
    train = sets["train"]
    rows, columns = train.size
    steps, numbers = Form(rows, columns, train.colour).steps(config.read)
    counts = ", ".join(f"{len(images):,} {name}" for name, images in sets.items())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    colour = " in colour" if train.colour else ""
    named = {"classes": ", ".join(train.names)} if train.names else {}
    noted = {"read": train.note} if train.note else {}
    return {
        "data": f"{counts} images of {rows}×{columns} pixels{colour}, {steps} steps of {numbers}",
        **noted,
        **named,
        "model": (
            f"LSTM {numbers}→{config.hidden_size}, {counted(config.num_layers, 'layer')}, "
            f"{train.classes} classes, {parameters:,} parameters"
        ),
    }


def _load(config: ImageConfig, path: Path) -> tuple[RowClassifier, Form, dict[str, str]]:
    """The model of a run with its weights, what the images were like that it was trained on, and what else was kept."""
    tensors, kept = read_tensors(path)
    try:
        form = Form.from_metadata(kept)
        classes = len(tensors["linear.bias"])
    except (KeyError, ValueError) as error:
        raise RunError(f"{path} is not of a model that reads images by rows: take the run's own file") from error
    model = _build(form, classes, config)
    fill_weights(model, tensors, path)
    return model, form, kept
