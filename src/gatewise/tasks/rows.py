"""Images read as sequences of rows by an LSTM, and classified after the last row."""

import dataclasses
import math
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from gatewise.data.images import ImageSet, read_image
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.nn import LSTM
from gatewise.tasks.task import Outcome, Prediction, Report, Task
from gatewise.train import loop
from gatewise.train.checkpoint import Run, fill_weights, read_weights, save_weights
from gatewise.train.config import ImageConfig, write_config
from gatewise.train.curves import draw_curves
from gatewise.train.loop import Epoch, Examples, Pass, Score
from gatewise.train.metrics import Metric, MetricsLog, read_metrics


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


def train(task: Task, config: ImageConfig, folder: Path, report: Report) -> Outcome:
    """Train in a new run folder, and keep there the settings, the metrics, the weights and the curves.

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

    Returns
    -------
    Outcome
        How it ended, Ctrl-C included: what the last whole epoch left is kept.

    Raises
    ------
    DataError
        The data are missing or damaged.
    ArgumentError
        Images would be moved by their whole size, or the model does not fit into memory.
    RunError
        The folder is not empty, or the disk is full.
    DivergenceError
        A loss is not finite; the weights of the epochs before are kept.
    """
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
    run = Run.create(folder)
    write_config(run.config, task.name, config)
    report.start(_description(sets, model, config))
    keeper = _Keeper(run, task.name, model, (rows, columns), "dev" in splits)
    mean, deviation = config.normalize

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return random_shift(inputs, config.max_shift, (0 - mean) / deviation, generator)

    optimizer = make_optimizer(model, config)
    schedule = make_schedule(optimizer, config, len(sets["train"]))
    interrupted = False
    start = time.perf_counter()
    with MetricsLog(run.metrics) as log:

        def on_batch(running: Pass) -> None:
            batches = len(running.sizes)
            if batches % config.log_every == 0 and running.samples < running.total:
                step = running.first_step + batches
                log.write(_metric(step, running.epoch, "train", running.score()))
            report.batch(running)

        def on_epoch(epoch: Epoch) -> None:
            is_best = keeper.keep(epoch)
            for split, score in epoch.scores.items():
                log.write(_metric(epoch.step, epoch.number, split, score))
            report.epoch(epoch, is_best)

        try:
            loop.fit(
                model,
                optimizer,
                cross_entropy,
                splits.pop("train"),
                splits,
                epochs=config.epochs,
                batch_size=config.batch_size,
                eval_batch_size=config.eval_batch_size,
                seed=config.seed,
                augment=augment if config.max_shift else None,
                schedule=schedule,
                on_batch=on_batch,
                on_epoch=on_epoch,
            )
        except KeyboardInterrupt:
            interrupted = True
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written ({error.strerror}): make room; whole epochs' weights are kept there"
            ) from error
    seconds = time.perf_counter() - start
    if keeper.best is not None:
        whole = [metric for metric in read_metrics(run.metrics) if metric.epoch <= keeper.epochs]
        draw_curves(run.curves, whole, keeper.best.number, title=f"{task.name}, seed {config.seed}")
    return Outcome(keeper.epochs, keeper.best, keeper.chosen_by, seconds, interrupted)


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
    return loop.evaluate(model, cross_entropy, examples(images, config), config.eval_batch_size)


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
    scores = loop.predict(model, images, batch_size=1)[0].softmax(dim=0)
    return Prediction(int(scores.argmax()), scores.tolist(), pixels)


def make_optimizer(model: nn.Module, config: ImageConfig) -> torch.optim.Optimizer:
    """The optimizer of the settings, in torch's fused form."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=config.learning_rate, fused=True)
    return torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, config: ImageConfig, samples: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """The schedule of the settings for so many training samples; None where the learning rate stays."""
    if config.schedule == "constant":
        return None
    steps = config.epochs * math.ceil(samples / config.batch_size)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


class _Keeper:
    """Writes the weights after each epoch, and those of the best epoch so far once more."""

    def __init__(self, run: Run, task: str, model: nn.Module, size: tuple[int, int], has_dev: bool) -> None:
        self.run = run
        self.model = model
        self.metadata = {
            "task": task,
            "gatewise": metadata.version("gatewise"),
            "rows": str(size[0]),
            "columns": str(size[1]),
        }
        self.has_dev = has_dev
        self.chosen_by = "lowest dev loss" if has_dev else "lowest training loss"
        self.best: Epoch | None = None
        self.epochs = 0

    def keep(self, epoch: Epoch) -> bool:
        """Write the weights of an epoch, and tell whether it is the best so far."""
        self._save("last", epoch)
        self.epochs = epoch.number
        is_best = self.best is None or self._loss(epoch) < self._loss(self.best)
        if is_best:
            self._save("best", epoch)
            self.best = epoch
        return is_best

    def _save(self, which: str, epoch: Epoch) -> None:
        save_weights(self.run.weights(which), self.model, self.metadata | {"epoch": str(epoch.number)})

    def _loss(self, epoch: Epoch) -> float:
        """What chooses: a loss, as the accuracy of a small split moves in steps of a whole sample. Never the test's."""
        return epoch.scores["dev" if self.has_dev else "train"].loss


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


def _metric(step: int, epoch: int, split: str, score: Score) -> Metric:
    return Metric(step, epoch, split, score.loss, score.accuracy, round(score.seconds, 3))


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
    tensors, kept = read_weights(path)
    try:
        size = int(kept["rows"]), int(kept["columns"])
        classes = len(tensors["linear.bias"])
    except (KeyError, ValueError) as error:
        raise RunError(f"{path} is not of a model that reads images by rows: take the run's own file") from error
    model = _build(size[1], classes, config)
    fill_weights(model, tensors, path)
    return model, size
