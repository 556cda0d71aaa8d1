"""Look into a run: gather what it and its task have to show, as one HTML page."""

import dataclasses
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gatewise.errors import ArgumentError
from gatewise.tasks.runs import Standing, standing
from gatewise.tasks.task import Sample, Subject, Task, task_of
from gatewise.train.curves import UNITS
from gatewise.train.metrics import Metric
from gatewise.train.run import Run
from gatewise.whole import write_whole

if TYPE_CHECKING:
    from gatewise.insight.gradient_flow import GradientFlow

SEQUENCES = 8
"""Sequences whose gates are shown, at most."""

WRONG = 4
"""Of them, mistakes that nobody asked for, at most."""

MISTAKES = 12
"""Mistakes that are shown as pictures or digits, at most."""

LONGEST = 40
"""Characters of the name of what is given, in a list to choose from."""

SIDE = 256
"""Pixels of the longer side to which larger pictures are shrunk."""

TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""The characters that turn writing round: with them a name reads as another."""

FLOW_BATCH = 64
"""Test samples on which the gradient is followed, at most."""

FLOW_NUMBERS = 2_000_000
"""Steps times units times samples of a layer, at most: the gradient's paths take about 80 bytes for each."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a run, and where it is written.

    Parameters
    ----------
    report : Path
        The HTML file.
    run : Path
        The run's folder.
    task, weights : str
        What it was trained to do, and which weights were looked at.
    score : mapping of str to float
        The loss and the measures of all test samples.
    samples : int
        How many there are.
    sequences : sequence of mapping
        Those whose gates are shown: name, truth (None where unknown), and what it was taken for.
    mistakes : sequence of mapping
        Those shown, the worst first: the same, and the loss.
    flow : sequence of mapping
        Of each recurrent layer: its name and cell, the horizon in steps (None: beyond the sequences, or no gradient)
        and the sentence that says so.
    """

    report: Path
    run: Path
    task: str
    weights: str
    score: Mapping[str, float]
    samples: int
    sequences: Sequence[Mapping[str, Any]]
    mistakes: Sequence[Mapping[str, Any]]
    flow: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """As JSON knows it."""
        return dataclasses.asdict(self) | {"report": str(self.report), "run": str(self.run)}


def inspect(
    folder: Path, given: Sequence[str] = (), weights: str = "best", out: Path | None = None, data: Path | None = None
) -> Inspection:
    """Look into a run, and write the report.

    Parameters
    ----------
    folder : path
        Of the run.
    given : sequence of str, default: none
        What else its gates are shown for: paths of images, or sequences of digits.
    weights : {"best", "last"}, default "best"
        Which ones.
    out : path, default: report.html in the folder
        The file; one that exists is replaced.
    data : path, default: where they were at the training
        The folder of the data.

    Returns
    -------
    Inspection
        What was found.

    Raises
    ------
    ArgumentError
        More is given than is shown at once, the task's data come with gatewise, or altair or vl-convert-python is not
        installed.
    RunError, DataError
        The run, its data or what is given is missing or not in order.
    """
    missing = [name for name in ("altair", "vl_convert", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(
            f"gatewise inspect needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'gatewise[report]'"
        )
    if len(given) > SEQUENCES:
        raise ArgumentError(f"{len(given)} inputs are given, a report shows at most {SEQUENCES}: give fewer")
    from gatewise.insight.report.page import render

    own = standing(folder)
    task, config = task_of(Run.open(folder))
    if data is not None:
        config = task.with_data(config, data)
    subject = task.runner().look(task, config, Run(folder), weights, given)
    subject = dataclasses.replace(subject, names=[visible(name) for name in subject.names])
    chosen = [*subject.given, *(subject.test_sample(place) for place in choose(subject, SEQUENCES - len(given)))]
    wrong = [subject.test_sample(place) for place in worst(subject)[:MISTAKES]]
    flow, followed = _follow(subject)
    path = out if out is not None else folder / "report.html"
    found = Inspection(
        path,
        folder,
        task.name,
        weights,
        {"loss": subject.score.loss, **subject.score.measures},
        subject.score.samples,
        [_said(subject, sample) for sample in chosen],
        [_said(subject, sample) | {"loss": round(_loss(sample), 6)} for sample in wrong],
        _horizons(flow),
    )
    write_whole(path, render(_page(found, own, task, subject, chosen, wrong, flow, followed)))
    return found


def choose(subject: Subject, room: int) -> list[int]:
    """The places of a few test samples: the worst mistakes, then right ones of as many classes as there is room for.

    Examples
    --------
    >>> scores = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], dtype=np.float32))
    >>> subject = Subject(None, None, None, ["a", "b"], None, np.array([0, 0, 1]), scores, "row", None, [])
    >>> choose(subject, 2), choose(subject, 8)
    ([2, 0], [2, 0, 1])
    """
    right = np.flatnonzero(subject.log_scores.argmax(axis=1) == subject.truth)
    of_class: dict[int, int] = {}
    turn = []  # how many of its class come before each
    for place in right:
        label = int(subject.truth[place])
        turn.append(of_class.get(label, 0))
        of_class[label] = turn[-1] + 1
    right = right[np.argsort(turn, kind="stable")]
    wrong = worst(subject)
    most = max(min(WRONG, room // 2), room - len(right))
    mistakes = wrong[:most]
    return [*mistakes, *(int(place) for place in right[: room - len(mistakes)])]


def worst(subject: Subject) -> list[int]:
    """The places of all mistakes among the test samples, those of the highest loss first."""
    losses = -subject.log_scores[np.arange(len(subject.truth)), subject.truth]
    wrong = subject.log_scores.argmax(axis=1) != subject.truth
    return [int(place) for place in np.argsort(-losses, kind="stable") if wrong[place]]


def picture_of(pixels: NDArray[np.float32]) -> bytes:
    """A PNG file of pixels (rows, columns) or (rows, columns, 3) from 0 to 1, shrunk if it is large.

    Examples
    --------
    >>> picture_of(np.zeros((8, 8), dtype=np.float32))[1:4]
    b'PNG'
    """
    image = Image.fromarray(np.round(pixels * 255).astype(np.uint8))
    image.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    image.save(written, format="PNG")
    return written.getvalue()


def visible(name: str) -> str:
    r"""A name in which the characters that turn the direction of writing round stand as what they are.

    Examples
    --------
    >>> print(visible("cat\u202egnp.jpg"))
    cat\u202egnp.jpg
    """
    return name.translate({place: f"\\u{place:04x}" for place in TURNING})


def _follow(subject: Subject) -> "tuple[GradientFlow, int]":
    """The gradient of the task's loss on some test samples, taken evenly from all; and how many they are."""
    import torch

    from gatewise.insight.gradient_flow import gradient_flow

    widest = max(module.hidden_size for module in subject.model.modules() if isinstance(module, torch.nn.RNNBase))
    most = min(FLOW_BATCH, len(subject.truth), max(1, FLOW_NUMBERS // (subject.inputs.size(1) * widest)))
    places = torch.from_numpy(np.linspace(0, len(subject.truth) - 1, most).round().astype(np.int64))
    targets = torch.from_numpy(subject.truth.astype(np.int64))[places]
    given = (subject.inputs[places], *(() if subject.lengths is None else (subject.lengths[places],)))
    return gradient_flow(subject.model, given, lambda out: subject.loss(out, targets)), most


def _page(
    found: Inspection,
    own: Standing,
    task: Task,
    subject: Subject,
    chosen: Sequence[Sample],
    wrong: Sequence[Sample],
    flow: "GradientFlow",
    followed: int,
) -> Any:
    from gatewise.insight.report.flow import flow_blocks
    from gatewise.insight.report.page import Page, Section, Text

    right = len(subject.truth) - len(worst(subject))
    result = (
        f"Task {task.name}: {right:,} of {len(subject.truth):,} test samples are right "
        f"({right / len(subject.truth):.2%}), mean loss {subject.score.loss:.4f}."
    )
    best = _best_epoch(own.metrics, own.config.best_by)
    last = f"trained for {own.epoch:g} of {own.config.epochs} epochs"
    weights = f"best weights{f', of epoch {best:g}' if best is not None else ''}" if found.weights == "best" else "last"
    about = f"Gradients are those of the task's loss on {followed} of the test samples, spread evenly over all."
    return Page(
        str(own.folder.name or own.folder),
        [result, f"The {weights}, {last}." if found.weights == "best" else f"The weights at the end, {last}."],
        [
            Section("Settings and curves", _settings(own, task) + _curves(own.metrics, best)),
            Section("Results by class" if subject.step != "digit" else "Results by sum", _by_class(subject)),
            Section("Worst mistakes", _mistakes(subject, wrong)),
            Section("Gates and memory", _gates(subject, chosen, flow)),
            Section("How far back the gradient reaches", [Text(about), *flow_blocks(flow)]),
        ],
    )


def _settings(own: Standing, task: Task) -> list[Any]:
    """What differs from the task's defaults, and the rest."""
    from gatewise.insight.report.page import Folded, Table, Text

    differing, rest = [], []
    for field in dataclasses.fields(task.config):
        value = getattr(own.config, field.name)
        if field.default is dataclasses.MISSING:
            differing.append((field.name, _shown(value), "none"))
        elif value != field.default:
            differing.append((field.name, _shown(value), _shown(field.default)))
        else:
            rest.append((field.name, _shown(value)))
    own_settings = (
        Table("Settings that differ from the task's defaults", ("setting", "value", "default"), differing)
        if differing
        else Text("All settings are the task's defaults.")
    )
    folded = Folded(
        f"The other {len(rest)} settings, as the task has them",
        [Table("Settings as the task has them", ("setting", "value"), rest)],
    )
    return [own_settings, *([folded] if rest else [])]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _curves(metrics: Sequence[Metric], best: float | None) -> list[Any]:
    from gatewise.insight.report.charts import curve
    from gatewise.insight.report.page import Charts, Text

    if not metrics:
        return [Text("The run has no metrics yet.")]
    quantities = ["loss", *dict.fromkeys(name for metric in metrics for name in metric.measures)]
    charts = []
    for quantity in quantities:
        lines = {split: _points(metrics, split, quantity) for split in ("train", "dev", "test")}
        lines = {split: points for split, points in lines.items() if points}
        charts.append(curve(quantity, UNITS.get(quantity, quantity), lines, best))
    return [Charts(charts)]


def _points(metrics: Sequence[Metric], split: str, quantity: str) -> list[tuple[float, float]]:
    """A split's quantity over epochs; of training at whole epochs, if there are any, as its means begin anew."""
    of_split = [m for m in metrics if m.split == split and (quantity == "loss" or quantity in m.measures)]
    points = [(metric.epoch, metric[quantity]) for metric in of_split]
    whole = [(epoch, value) for epoch, value in points if epoch == int(epoch)]
    return whole if split == "train" and whole else points


def _best_epoch(metrics: Sequence[Metric], by: str) -> float | None:
    """Where dev, or without one training, was at its best; the first of equals. None where there are no metrics."""
    for split in ("dev", "train"):
        points = _points(metrics, split, by)
        if points:
            sign = 1 if by == "loss" else -1
            return min(points, key=lambda point: sign * point[1])[0]
    return None


def _by_class(subject: Subject) -> list[Any]:
    from gatewise.insight.report.charts import class_bars, confusion
    from gatewise.insight.report.page import Charts, Folded, Table

    classes = len(subject.names)
    matrix = np.zeros((classes, classes), dtype=np.intp)
    np.add.at(matrix, (subject.truth, subject.log_scores.argmax(axis=1)), 1)
    right, count = np.diag(matrix).tolist(), matrix.sum(axis=1).tolist()
    kind = "sum" if subject.step == "digit" else "class"
    rows = [
        (name, f"{all_of:,}", f"{good:,}", f"{good / all_of:.2%}" if all_of else "")
        for name, good, all_of in zip(subject.names, right, count, strict=True)
    ]
    columns = (kind, "test samples", "right", "share right")
    return [
        Charts(
            [
                class_bars(f"Right by {kind}", kind, subject.names, right, count),
                confusion(kind, subject.names, matrix),
            ]
        ),
        Folded("The same in numbers", [Table(f"Right by {kind}", columns, rows, columns[1:])]),
    ]


def _mistakes(subject: Subject, wrong: Sequence[Sample]) -> list[Any]:
    from gatewise.insight.report.page import Cards, Text

    every = len(worst(subject))
    if not wrong:
        return [Text(f"None of the {len(subject.truth):,} test samples is taken for another class than its own.")]
    total = f"{every:,} of {len(subject.truth):,} test samples are wrong"
    shown = "all of them, those" if every == len(wrong) else f"the {len(wrong)}"
    return [
        Text(f"{total}; {shown} of the highest loss first."),
        Cards([_card(subject, sample) for sample in wrong]),
    ]


def _gates(subject: Subject, chosen: Sequence[Sample], flow: "GradientFlow") -> list[Any]:
    import torch

    from gatewise.insight.report.gates import Looked, gate_blocks
    from gatewise.insight.report.page import Cards, Text
    from gatewise.insight.trace import record

    cells = {layer.cell for layer in flow.layers}
    if "lstm" not in cells:
        kind = {"gru": "a GRU", "srn": "a simple recurrent network (SRN)"}[next(iter(cells))]
        given = [_card(subject, sample) for sample in chosen if sample.truth is None]
        return [
            Text(
                f"The network is {kind}: it has no gates i, f, g and o and no cell state c as an LSTM has, so none are "
                "shown here. How its gradient travels is shown all the same, below."
            ),
            *([Text("What was given, and what it is taken for:"), Cards(given)] if given else []),
        ]
    looked = []
    for sample in chosen:
        with record(subject.model) as traces, torch.no_grad():
            subject.model(sample.input)
        looked.append(Looked(_listed(subject, sample), _card(subject, sample), traces, sample.reads))
    return gate_blocks(looked)


def _card(subject: Subject, sample: Sample) -> Any:
    from gatewise.insight.report.page import Card

    taken_for = subject.names[sample.taken_for]
    lines = [visible(sample.name)] if not sample.reads or sample.truth is not None else []
    if sample.truth is None:
        alt = f"Picture that was given, taken for {taken_for}"
    else:
        alt = f"Picture of class {subject.names[sample.truth]}, taken for {taken_for}"
        lines.append(f"is {subject.names[sample.truth]}")
    lines.append(f"taken for {taken_for} with {np.exp(sample.log_scores.max()):.2%}")
    if sample.truth is not None:
        lines.append(f"loss {_loss(sample):.4g}")
    picture = picture_of(sample.picture) if sample.picture is not None else b""
    return Card(lines, picture, alt if picture else "", " ".join(sample.reads))


def _listed(subject: Subject, sample: Sample) -> str:
    """A sample's name in a list to choose from."""
    taken_for, name = subject.names[sample.taken_for], visible(sample.name)
    if sample.truth is None:
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"  # whole below the list
        return f"given: {name}, taken for {taken_for}"
    if sample.truth == sample.taken_for:
        return f"right: {name}, {taken_for}"
    return f"wrong: {name}, {subject.names[sample.truth]} taken for {taken_for}"


def _said(subject: Subject, sample: Sample) -> dict[str, Any]:
    truth = None if sample.truth is None else subject.names[sample.truth]
    probability = round(float(np.exp(sample.log_scores.max())), 6)
    return {
        "name": sample.name,
        "truth": truth,
        "taken_for": subject.names[sample.taken_for],
        "probability": probability,
    }


def _loss(sample: Sample) -> float:
    """The cross-entropy of a sample whose class is known."""
    return float(-sample.log_scores[sample.truth])


def _horizons(flow: "GradientFlow") -> list[dict[str, Any]]:
    from gatewise.insight.gradient_flow import sentence

    found = []
    for layer in flow.layers:
        horizon = layer.horizon(0.1)
        finite = horizon if np.isfinite(horizon) else None
        found.append({"layer": layer.name, "cell": layer.cell, "horizon": finite, "sentence": sentence(layer)})
    return found
