"""Images read as sequences of rows by an LSTM, and classified after the last row."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from gatewise.data.images import ImageSet, read_image
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.nn import LSTM
from gatewise.tasks.task import Outcome, Prediction, Report, Task
from gatewise.train.config import ImageConfig, write_config
from gatewise.train.keeper import train_in
from gatewise.train.metrics import correct_by_argmax
from gatewise.train.parallel import processes
from gatewise.train.progress import Score
from gatewise.train.run import Run
from gatewise.train.runner import Examples, Runner
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors


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


def train(task: Task, config: ImageConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder, and keep there the settings, the metrics, checkpoints, the weights and the curves.

    Parameters
    ----------
    task : Task
        Has the images.
    config : ImageConfig
        The settings.
    folder : path
        The run folder, new or empty. It is made once the data are read and in order.
    report : Report
        Hears how it goes.
    resume : bool, default False
        Go on in a run folder, from its newest checkpoint.

    Returns
    -------
    Outcome
        How it ended, Ctrl-C and SIGTERM included.

    Raises
    ------
    DataError
        The data are missing or damaged.
    ArgumentError
        Images would be moved by their whole size, or the model does not fit into memory.
    RunError
        The folder is not empty, has no checkpoint to go on from, or the disk is full.
    DivergenceError
        A loss or a gradient is not finite; the weights before the step are kept.
    """
    together = processes()
    config = _with_threads(config)
    sets = task.splits(config)
    splits = {name: examples(images, config) for name, images in sets.items()}
    (rows, columns), classes = sets["train"].size, sets["train"].classes
    if config.max_shift >= min(rows, columns):
        raise ArgumentError(
            f"max_shift is {config.max_shift}, needed is less than the images' {min(rows, columns)} pixels: "
            "make it smaller"
        )
    torch.manual_seed(config.seed)
    model = _build(columns, classes, config)
    run = Run(folder)
    if together.rank == 0 and not resume:
        run = Run.create(folder)
        write_config(run.config, task.name, config)
    mean, deviation = config.normalize

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return random_shift(inputs, config.max_shift, (0 - mean) / deviation, generator)

    runner = Runner(
        model,
        cross_entropy,
        config,
        measures={"accuracy": correct_by_argmax},
        augment=augment if config.max_shift else None,
        processes=together,
    )
    report.about(_description(sets, model, config) | _together(together.count))
    signal = train_in(
        run,
        runner,
        splits.pop("train"),
        splits,
        about={"task": task.name, "rows": str(rows), "columns": str(columns)},
        title=f"{task.name}, seed {config.seed}",
        resume=resume,
        callbacks=[report],
        say=report.say,
    )
    chosen_by = f"{'highest' if config.best_by == 'accuracy' else 'lowest'} {_chooser(splits)} {config.best_by}"
    return Outcome(runner.progress, chosen_by, signal)


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


def predict(config: ImageConfig, run: Run, weights: str, path: Path) -> Prediction:
    """Classify one image file.

    Parameters
    ----------
    config : ImageConfig
        The run's settings.
    run : Run
        The folder.
    weights : {"best", "last"}
        Which ones.
    path : path
        The image, bright ink on a dark ground like those trained on.

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
    pixels = read_image(path, size)
    images = _normalize(torch.from_numpy(pixels[None]), config)
    scores = Runner(model, cross_entropy, config).predict(images)[0].softmax(dim=0)
    return Prediction(int(scores.argmax()), scores.tolist(), pixels)


def _build(input_size: int, classes: int, config: ImageConfig) -> RowClassifier:
    try:
        return RowClassifier(input_size, config.hidden_size, config.num_layers, classes, config.dropout)
    except RuntimeError as error:  # torch's way of saying that there is no memory for the weights
        raise ArgumentError(
            f"hidden_size is {config.hidden_size}, needed is a model that fits into memory ({error}): make it smaller"
        ) from error


def _normalize(pixels: Tensor, config: ImageConfig) -> Tensor:
    mean, deviation = config.normalize
    return (pixels - mean) / deviation


def _with_threads(config: ImageConfig) -> ImageConfig:
    """Set the number of threads, and write down which it is where torch chooses."""
    if config.threads:
        torch.set_num_threads(config.threads)
    return dataclasses.replace(config, threads=torch.get_num_threads())


def _chooser(others: Mapping[str, Examples]) -> str:
    return "dev" if "dev" in others else "training"


def _together(count: int) -> dict[str, str]:
    return {"shared": f"by {count} processes"} if count > 1 else {}


def _description(sets: dict[str, ImageSet], model: RowClassifier, config: ImageConfig) -> dict[str, str]:
    rows, columns = sets["train"].size
    counts = ", ".join(f"{len(images):,} {name}" for name, images in sets.items())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "data": f"{counts} images of {rows}×{columns} pixels, {rows} steps of {columns}",
        "model": (
            f"LSTM {columns}→{config.hidden_size}, {_count(config.num_layers, 'layer')}, "
            f"{sets['train'].classes} classes, {parameters:,} parameters"
        ),
        "recipe": (
            f"{config.optimizer} {config.learning_rate:g}, batches of {config.batch_size}, "
            f"{config.epochs} epochs, seed {config.seed}, {_count(config.threads, 'thread')}"
        ),
    }


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


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
