"""Images read as sequences of rows by an LSTM, and classified after the last row."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from gatewise.data.images import ImageSet, read_image
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.nn import LSTM
from gatewise.tasks.task import Outcome, Prediction, Report, Task
from gatewise.tasks.training import Problem, built, counted, train_problem
from gatewise.train.config import ImageConfig
from gatewise.train.metrics import correct_by_argmax
from gatewise.train.progress import Score
from gatewise.train.run import Run
from gatewise.train.runner import Examples, Runner
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

SHADES = " .:-=+*#%@"


class RowClassifier(nn.Module):
    """An LSTM over the rows of an image, and a linear layer on its output at the last row.

    Parameters
    ----------
    input_size : int
        Pixels in a row.
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

    Examples
    --------
    >>> model = RowClassifier(28, 128, 2, 10)
    >>> model(torch.zeros(5, 28, 28)).shape
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
    ) -> None:
        super().__init__()
        self.lstm = lstm(input_size, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.linear = nn.Linear(hidden_size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, rows, columns) to logits (B, classes); the state before the first row is zero."""
        output, _ = self.lstm(images)
        logits: Tensor = self.linear(output[:, -1])
        return logits


def examples(images: ImageSet, config: ImageConfig) -> Examples:
    """Normalized images (N, rows, columns) as float32, and their classes (N,) as int64."""
    pixels = torch.from_numpy(images.pixels())
    return Examples(_normalize(pixels, config), torch.from_numpy(images.labels.astype(np.int64)))


def random_shift(images: Tensor, most: int, background: float, generator: torch.Generator) -> Tensor:
    """Move each image by a random number of pixels along and across.

    Parameters
    ----------
    images : tensor, shape (B, rows, columns)
        Are not changed.
    most : int
        The largest move each way, in pixels; all moves are equally likely.
    background : float
        What comes in at the edges.
    generator : Generator
        Draws the moves.

    Returns
    -------
    tensor, shape (B, rows, columns)
        The moved images.

    Examples
    --------
    >>> moved = random_shift(torch.eye(3)[None], 1, 0.0, torch.Generator().manual_seed(0))
    >>> moved.shape
    torch.Size([1, 3, 3])
    """
    count, rows, columns = images.shape
    padded = pad(images, (most, most, most, most), value=background)
    down, right = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
    image = torch.arange(count)[:, None, None]
    row = (torch.arange(rows) + down)[:, :, None]
    column = (torch.arange(columns) + right)[:, None, :]
    return padded[image, row, column]


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
    model = _build(columns, classes, config)
    mean, deviation = config.normalize

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return random_shift(inputs, config.max_shift, (0 - mean) / deviation, generator)

    return Problem(
        model,
        cross_entropy,
        {"accuracy": correct_by_argmax},
        {name: examples(images, config) for name, images in sets.items()},
        about={"rows": str(rows), "columns": str(columns)},
        description=_description(sets, model, config),
        augment=augment if config.max_shift else None,
    )


def train(task: Task, config: ImageConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder: see `train_problem`."""
    return train_problem(task.name, config, partial(problem, task), folder, report, resume)


def evaluate(task: Task, config: ImageConfig, run: Run, weights: str) -> Score:
    """Evaluate a run's weights on the task's test images.

    Parameters
    ----------
    task : Task
        Has the images.
    config : ImageConfig
        The run's settings.
    run : Run
        The folder.
    weights : {"best", "last"}
        Which ones.

    Returns
    -------
    Score
        Loss (cross-entropy, a mean over samples) and accuracy.

    Raises
    ------
    RunError
        The weights are missing, damaged, or not those of the settings.
    DataError
        The data are missing or damaged, or the images of another size than those trained on.
    """
    model, size = _load(config, run.weights(weights))
    images = task.test_set(config)
    if images.size != size:
        raise DataError(
            f"{images.source}: the images have {images.size[0]}×{images.size[1]} pixels (rows × columns), "
            f"needed are {size[0]}×{size[1]}: give the data that it was trained on"
        )
    runner = Runner(model, cross_entropy, config, measures={"accuracy": correct_by_argmax})
    return runner.evaluate(examples(images, config))


def predict(config: ImageConfig, run: Run, weights: str, given: str) -> Prediction:
    """Classify one image file.

    Parameters
    ----------
    config : ImageConfig
        The run's settings.
    run : Run
        The folder.
    weights : {"best", "last"}
        Which ones.
    given : str
        The path of the image, bright ink on a dark ground like those trained on.

    Returns
    -------
    Prediction
        The label, and the probability of each class.

    Raises
    ------
    RunError
        The weights are missing, damaged, or not those of the settings.
    DataError
        The image is missing, or of another size or kind.
    """
    model, size = _load(config, run.weights(weights))
    pixels = read_image(given, size)
    images = _normalize(torch.from_numpy(pixels[None]), config)
    scores = Runner(model, cross_entropy, config).predict(images)[0].softmax(dim=0)
    shown = ["".join(2 * SHADES[round(pixel * (len(SHADES) - 1))] for pixel in row).rstrip() for row in pixels.tolist()]
    return Prediction(int(scores.argmax()), scores.tolist(), shown)


def _build(input_size: int, classes: int, config: ImageConfig) -> RowClassifier:
    return built(
        config, lambda: RowClassifier(input_size, config.hidden_size, config.num_layers, classes, config.dropout)
    )


def _normalize(pixels: Tensor, config: ImageConfig) -> Tensor:
    mean, deviation = config.normalize
    return (pixels - mean) / deviation


def _description(sets: Mapping[str, ImageSet], model: RowClassifier, config: ImageConfig) -> dict[str, str]:
    rows, columns = sets["train"].size
    counts = ", ".join(f"{len(images):,} {name}" for name, images in sets.items())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "data": f"{counts} images of {rows}×{columns} pixels, {rows} steps of {columns}",
        "model": (
            f"LSTM {columns}→{config.hidden_size}, {counted(config.num_layers, 'layer')}, "
            f"{sets['train'].classes} classes, {parameters:,} parameters"
        ),
    }


def _load(config: ImageConfig, path: Path) -> tuple[RowClassifier, tuple[int, int]]:
    """The model of a run with its weights, and the rows and columns that it was trained on."""
    tensors, kept = read_tensors(path)
    try:
        size = int(kept["rows"]), int(kept["columns"])
        classes = len(tensors["linear.bias"])
    except (KeyError, ValueError) as error:
        raise RunError(f"{path} is not of a model that reads images by rows: take the run's own file") from error
    model = _build(size[1], classes, config)
    fill_weights(model, tensors, path)
    return model, size
