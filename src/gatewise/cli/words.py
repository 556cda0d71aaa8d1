"""What can be typed: each command's options and their help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from gatewise.bench.config import BenchConfig
from gatewise.experiments.memory import MemoryConfig
from gatewise.experiments.tune import TuneConfig
from gatewise.train.config import TrainConfig

Config = TypeVar("Config", bound=TrainConfig)


@dataclass(frozen=True)
class Train(Generic[Config]):
    """A task's settings and where to keep the run."""

    settings: Annotated[Config, tyro.conf.arg(help="The defaults are the recipe.")]

    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Other defaults, by the name of the task's recipe."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A TOML file of settings in place of the defaults, such as the config.toml of a run."""

    run: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder to make, new or empty. Without it: runs/TASK-DATE-TIME."""


@dataclass(frozen=True)
class Tune(Generic[Config]):
    """What is searched, and the settings of all trials."""

    tuning: TuneConfig

    settings: Annotated[Config, tyro.conf.arg(help="The defaults are the recipe.")]

    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Other defaults, by the name of the task's recipe."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A TOML file of settings in place of the defaults, such as the config.toml of a run."""


@dataclass(frozen=True)
class Resume:
    """Go on with a training that was interrupted, from its newest checkpoint that is whole.

    It ends with the same weights, byte for byte, as if it had never been interrupted.

    Example:
      gatewise train digits --run runs/digits   (interrupted by Ctrl-C, SIGTERM, kill -9, a full disk, a power cut)
      gatewise resume runs/digits
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a trained model on its task's test samples: mean loss, accuracy, number of samples.

    The figure shows, for tasks with images, the confusion matrix (how many of each class were taken for each) and as
    pictures the mistakes of the highest loss; --json then has both in numbers.

    A forecast of series is backtested: from each origin in the test part, MAE, RMSE, MASE (scaled by the seasonal naive
    forecast's error over the training part), sMAPE and the quantiles' coverage, beside a naive, a seasonal naive and a
    linear forecast, over the whole horizon and parts of it. Its figure shows some origins.

    A text's test part is read once from its beginning to its end, from a fresh state: bits per character or byte, the
    loss in nats, and the perplexity, 2 to the bits.

    Labelled sequences have a table by class as well, and the confusion matrix as the figure. Where each step has a
    label, loss and accuracy are means over sequences of the means over their steps, and the table counts steps.

    Example:
      gatewise evaluate runs/digits
      gatewise evaluate runs/load --figure backtest.png
      gatewise evaluate runs/digits --figure mistakes.png
      gatewise evaluate runs/mnist --data mnist/ --json
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder or file of the data, where they have moved since the training; of the test part, if it has its own."""

    weights: Literal["best", "last"] = "best"
    """Which epoch's weights."""

    json: bool = False
    """Print one JSON object: loss, accuracy (a share of 1), samples; with --figure, and of labelled sequences always,
    classes, confusion, mistakes. Of a forecast: target, origins, series, season, interval, errors. Of text: loss (in
    nats), bits_per_character or bits_per_byte, perplexity, unknown (characters never seen in training), samples."""

    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the confusion matrix and the worst mistakes, or some forecasts: .png, .pdf or .svg."""


@dataclass(frozen=True)
class Predict:
    """Apply a trained model to one sample: an image file, for digit-sum digits, for series and sequences a file.

    The image must have the size of those trained on (8×8 for digits, 28×28 for MNIST) and be like them: bright
    ink on a dark ground, black read as 0 and white as full ink. Grey of 1, 8 or 16 bits is taken; colour only if
    red, green and blue are equal in each pixel; nothing transparent. A model of gatewise train images takes what it was
    trained on: with --size any size, and colour as the training read it.

    A model of gatewise train series forecasts what comes after the last target of each series in a file that has the
    columns of the training, as CSV or Parquet. What is known in advance is in rows whose target is empty.

    A model of gatewise train sequences labels each sequence of a file such as it was trained on, or each of its steps,
    and says how probable the label is. The file needs no labels.

    Example:
      gatewise predict runs/mnist seven.png
      gatewise predict runs/photos one.jpg
      gatewise predict runs/mnist seven.png --json
      gatewise predict runs/sum "6 7 0 0 1 0 0 0 0 0"
      gatewise predict runs/load load.csv --out forecast.csv --figure forecast.png
      gatewise predict runs/taps new.csv --out labels.csv
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""

    given: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IMAGE|DIGITS|FILE")]
    """The image, such as a PNG file; the digits, in quotes, with spaces between; or the file of series or sequences."""

    weights: Literal["best", "last"] = "best"
    """Which epoch's weights."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the forecast of series, or the labels, here: .csv or .parquet. Without it, they are printed as CSV."""

    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the forecast of series and what was before it: .png, .pdf or .svg."""

    json: bool = False
    """Print one JSON object: label, and scores, the probability of each class (softmax, together 1); and where classes
    have names, name and names. Of series forecast, of sequences labels: a list with an object for each row."""


@dataclass(frozen=True)
class Generate:
    """Go on with a text, by a model that gatewise train text made.

    Each character is printed as it is drawn, after the prompt; the model's state is carried on from one to the next.
    The same seed gives the same text. Bytes that are no UTF-8 are printed as U+FFFD.

    Example:
      gatewise generate runs/book --prompt "In the beginning"
      gatewise generate runs/book --prompt "And God" --length 2000 --temperature 0.7 --top-p 0.9 --seed 3
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train text made."""

    prompt: Annotated[str, tyro.conf.arg(metavar="TEXT")]
    """What the model reads first, from a fresh state: at least one character, all of them known to it."""

    length: int = 500
    """Characters, or bytes, that are drawn."""

    temperature: float = 1.0
    """Below 1 the likely becomes likelier, above 1 less likely; 0 always takes the likeliest."""

    top_p: float = 1.0
    """Only the likeliest are drawn from: as few as have this probability together; above 0 and up to 1."""

    seed: int = 0
    """Fixes what is drawn."""

    weights: Literal["best", "last"] = "best"
    """Which epoch's weights."""

    json: bool = False
    """Print one JSON object in the end: prompt, text (what was drawn), length, temperature, top_p, seed."""


@dataclass(frozen=True)
class Inspect:
    """Look into a run: one HTML file that opens from disk, without a network.

    It shows the settings and the curves, the results by class or by horizon, the worst mistakes or forecasts, the gates
    and the memory of an LSTM for a few sequences (choose the sequence, the layer and the unit; hover for values), and
    how far back the loss's gradient reaches. The sequences are some of the test samples, wrong and right ones, after
    what is given here; of series those that end in the worst, the best and the last origins of the backtest, after the
    forecast of what comes after the last rows in a file that is given.

    Example:
      gatewise inspect runs/digits
      gatewise inspect runs/mnist seven.png four.png --out seven.html
      gatewise inspect runs/sum "6 7 0 0 1 0 0 0 0 0" "9 9 0 0 0 0 0 5 0 0"
      gatewise inspect runs/load load.csv
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""

    inputs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[IMAGE|DIGITS|FILE...]")] = ()
    """Up to 8 images like those trained on; or sequences of digits, each in quotes, with spaces between them; or files
    of up to 8 series, as gatewise predict takes them."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file to write. Without it: report.html in the run's folder."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """The folder, or the file, of the data, where they have moved since the training."""

    weights: Literal["best", "last"] = "best"
    """Which epoch's weights."""

    json: bool = False
    """Print one JSON object: report (the file), score, sequences, mistakes, flow (the horizon of each layer), verdicts
    (of forecasts, beside each baseline)."""


@dataclass(frozen=True)
class Horizon:
    """Measure how far back a run's gradient reaches, and whether training cut it off too soon.

    On some of the test sequences the gradient of the task's loss at their end is followed back through each recurrent
    layer. The horizon is how many steps back it has fallen below a share of what it was, for good. Where training let
    gradients flow through so many steps only (--bptt, or a window), it says what is left of the gradient there.

    Example:
      gatewise horizon runs/book --figure horizon.png
      gatewise horizon runs/load --fraction 0.01 --steps 500
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that gatewise train made."""

    fraction: float = 0.1
    """The share of the gradient that counts as nothing."""

    steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """How long the sequences are, where the state was carried on: without it, four times as long as the truncation."""

    weights: Literal["best", "last"] = "best"
    """Which epoch's weights."""

    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the gradient over the steps back, path by path: .png, .pdf or .svg."""

    json: bool = False
    """Print one JSON object: reach (of training), and for each of layers the horizon, and left, the share at reach."""


@dataclass(frozen=True)
class Runs:
    """List the runs below a folder: what was trained, how far it has come, and the last scores.

    Example:
      gatewise runs
      gatewise runs runs/mnist --json
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")] = Path("runs")
    """The folder that holds them."""

    json: bool = False
    """Print one JSON list of objects: folder, task, state, settings, and the last line of train, dev and test."""


@dataclass(frozen=True)
class Compare:
    """Draw the curves of several runs together, and list the settings in which they differ.

    Example:
      gatewise compare runs/one runs/two
      gatewise compare runs/digits-* --figure digits.pdf
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN RUN...")]
    """Folders that gatewise train made."""

    figure: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("compare.png")
    """The figure: .png, .pdf or .svg."""


@dataclass(frozen=True)
class Doctor:
    """What to read."""

    targets: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PATH_OR_MODULE...")]
    """Files, .py or .ipynb; folders, for all of them below; or modules' names, such as package.model."""

    json: bool = False
    """Print one JSON list of objects: where, line, column, code, what, mend."""


Command = (
    Train[Any]
    | Tune[Any]
    | Resume
    | Evaluate
    | Predict
    | Generate
    | Inspect
    | Horizon
    | Runs
    | Compare
    | Doctor
    | MemoryConfig
    | BenchConfig
)
"""What a command line may ask for."""
