"""What can be typed: each command's options and help, and what the words of a command line ask for."""

import contextlib
import dataclasses
import functools
import io
import operator
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from gatewise.bench.config import VARIANTS, BenchConfig
from gatewise.errors import ArgumentError
from gatewise.experiments.memory import MemoryConfig
from gatewise.experiments.tune import TuneConfig
from gatewise.insight.doctor.findings import CODES
from gatewise.tasks.task import Task, tasks
from gatewise.train.config import TrainConfig, read_settings

FOUND = "\n".join(f"  {code:<25} {says}" for code, says in CODES.items() if code != "no-gradient")
"""What the source shows; a parameter without a gradient is seen in a live model only."""

DESCRIPTION = """Train, evaluate and use LSTMs on sequences.

Example:
  gatewise train digits --run runs/digits   (about half a minute, nothing is fetched)
  gatewise evaluate runs/digits
  gatewise predict runs/digits image.png
  gatewise inspect runs/digits              (a page to look into it: curves, mistakes, gates, gradients)

  gatewise tune digits --trials 30          (search for settings)
  gatewise memory                           (how far back do an SRN and an LSTM remember?)
  gatewise doctor train.py                  (mistakes with sequences, without running the file)
  gatewise bench --quick                    (beside torch.nn.LSTM)

gatewise COMMAND --help says more, gatewise --version which version this is."""

TRAIN = """Train a model for one of the tasks below, each with a recipe as its defaults.

A run folder keeps the settings (config.toml), the metrics (metrics.jsonl), two checkpoints, the best and the last
weights (safetensors) and a figure (curves.png). Ctrl-C and SIGTERM end a training after the step under way; gatewise
resume goes on with it, as it does after a kill -9, a full disk or a power cut.

Example:
  gatewise train digits --run runs/digits
  gatewise train mnist --data mnist/ --epochs 3 --seed 1
  gatewise train images --data photos/ --size 32 32   (a folder for each class in photos/)
  gatewise train digit-sum --recipe remember --length 100
  gatewise train series --data load.csv --target kw --time at --window 48 --horizon 12   (forecast a column)
  gatewise train text --data book.txt   (learn a text, character by character)
  gatewise train sequences --data taps.csv --id tap --step at --target who   (label sequences of different length)
  gatewise train digits --config runs/digits/config.toml --seed 1

gatewise train TASK --help lists a task's settings."""

TUNE = """Search for settings of a task: many trainings, each with other settings, the promising ones to their end.

All options of gatewise train TASK are there, for what is the same in all trials; --search names what is not. A trial is
good if its dev split comes to a low loss or a high accuracy (--best-by); the test split is looked at once, in the end,
with the best trial's weights. The first trial is the recipe, if it lies in what is searched; the next ones are drawn,
later ones where earlier ones were good (Optuna's TPE). With one layer, dropout is 0.

Each trial is a run folder. After Ctrl-C, a kill -9 or a power cut the same command goes on, trials under way from their
checkpoints. In the end there are a table of the best, best.toml and three figures (history.png, slices.png,
importances.png).

Example:
  gatewise tune digits --trials 30
  gatewise tune digits --epochs 20 --search learning_rate=1e-4..1e-1:log batch_size=16,32,64 dropout=0..0.5:0.1
  gatewise tune mnist --data mnist/ --dev-fraction 0.1 --best-by accuracy --trials 20 --run runs/search
  gatewise train digits --config runs/tune-digits/best.toml

gatewise tune TASK --help lists everything."""

TUNE_TASK = """Search for settings of {0}: {1}

Example:
  gatewise tune {0} --search hidden_size=32..256:32 learning_rate=1e-4..1e-2:log optimizer=adam,sgd --trials 30"""

DOCTOR = f"""Look for mistakes with sequences in Python source, which is read and never run.

Each finding is a line with its place, its code and why it is one, and the code that mends it:
{FOUND}

Example:
  gatewise doctor train.py
  gatewise doctor package.model
  gatewise doctor . --json

The exit status is 0 if nothing was found, 1 if something was, and 2 if there is no such file or one cannot be read."""

BENCH = f"""Time gatewise.LSTM beside its peers over a grid of sizes, in one process, in turns.

All outputs and gradients are compared before anything is timed. The times of a machine that others use are worth
little; the ratios within a run are worth more.

With --variants a training step of changed cells: over that of gatewise's plain cell, and the same cell as a loop in
Python over gatewise's; --sizes all is 8,20,32,32,1 and 64,100,128,128,1. There are
{", ".join(VARIANTS[:9])},
{", ".join(VARIANTS[9:])}.

Example:
  gatewise bench --quick                    (seconds: shows that it works, not how fast it is)
  gatewise bench --sizes 1 2 8,100,64,128,1 --kinds training
  gatewise bench --variants all             (or some: --variants peephole+coupled layer-norm)
  gatewise bench --peers all --forms all --malloc both --json bench.json --figure bench.png"""

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


def usage_line(box: str, command: str) -> str:
    """One line from the box that tyro draws around what is wrong with a command line.

    Parameters
    ----------
    box : str
        A title, then sections with rules between them, in box-drawing characters or, where those cannot be
        printed, in dashes. Sections and deeper lines that are an option's help are left out.
    command : str
        Whose --help says more.

    Returns
    -------
    str
        What was wrong, what may have been meant, and where more is said.

    Examples
    --------
    >>> print(usage_line('''
    ... ╭─ Unrecognized options ─────────────────────╮
    ... │ Unrecognized options: --hiden-size         │
    ... │ ────────────────────────────────────────── │
    ... │ Perhaps you meant:                         │
    ... │     --hidden-size INT                      │
    ... │         Hidden units. (default: 128)       │
    ... │ ────────────────────────────────────────── │
    ... │ For full helptext, run gatewise --help     │
    ... ╰────────────────────────────────────────────╯''', "gatewise train digits"))
    Unrecognized options: --hiden-size; Perhaps you meant: --hidden-size INT; see gatewise train digits --help
    """
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line[2:].rstrip(" │")  # after the frame
        if line.startswith(("╭", "╰")) or set(text) in ({"─"}, {"-"}):
            sections.append([])
        elif text and not text.startswith(" " * 8):  # deeper lines are an option's help
            sections[-1].append(text.strip())
    kept = [" ".join(section).rstrip(".") for section in sections[1:] if section and "helptext" not in section[0]]
    text = "; ".join(kept) or " ".join(box.split())
    text = re.sub(
        r"no type matching .* could be instantiated from \[(.*?)\].*?`\[bold\](.*?)\[/bold\]`.*",
        r"given is \1, needed is \2",
        text,
    )
    text = re.sub(r"Error parsing (__tyro\S*|[A-Z]\w*): ", "", text)  # the message of a setting's own check says it all
    text = re.sub(r"invalid literal for int\(\) with base 10: ", "needed is a whole number, given ", text)
    text = re.sub(r"could not convert string to float: ", "needed is a number, given ", text)
    return f"{text}; see {command} --help"
