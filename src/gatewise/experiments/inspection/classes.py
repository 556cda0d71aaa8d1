"""What there is to see of a task with classes: results by class, mistakes, and what the gates did."""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gatewise.experiments.inspection.shared import SEQUENCES, Findings, most_followed, short, visible
from gatewise.insight.gradient_flow import GradientFlow, gradient_flow
from gatewise.insight.report.charts import class_bars, confusion
from gatewise.insight.report.gates import Looked, gate_blocks
from gatewise.insight.report.page import Card, Cards, Charts, Folded, Section, Table, Text
from gatewise.insight.trace import record
from gatewise.tasks.task import Sample, Subject, Task
from gatewise.train.curves import UNITS

WRONG = 4
"""Of them, mistakes that nobody asked for, at most."""

MISTAKES = 12
"""Mistakes that are shown as pictures or digits, at most."""

SIDE = 256
"""Pixels of the longer side to which larger pictures are shrunk."""


def find(subject: Subject, task: Task) -> Findings:
    """What there is to show of a model and its test samples."""
    subject = dataclasses.replace(subject, names=[visible(name) for name in subject.names])
    chosen = [
        *subject.given,
        *(subject.test_sample(place) for place in choose(subject, SEQUENCES - len(subject.given))),
    ]
    wrong = [subject.test_sample(place) for place in worst(subject)[:MISTAKES]]
    flow, followed = _follow(subject)
    right = len(subject.truth) - len(worst(subject))
    return Findings(
        f"Task {task.name}: {right:,} of {len(subject.truth):,} test samples are right "
        f"({right / len(subject.truth):.2%}), mean loss {subject.score.loss:.4f}.",
        UNITS["loss"],
        {"loss": subject.score.loss, **subject.score.measures},
        subject.score.samples,
        [_said(subject, sample) for sample in chosen],
        [_said(subject, sample) | {"loss": round(_loss(sample), 6)} for sample in wrong],
        [],
        [
            Section("Results by class" if subject.step != "digit" else "Results by sum", _by_class(subject)),
            Section("Worst mistakes", _mistakes(subject, wrong)),
            Section("Gates and memory", _gates(subject, chosen, flow)),
        ],
        flow,
        f"Gradients are those of the task's loss on {followed} of the test samples, spread evenly over all.",
    )


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


def _follow(subject: Subject) -> tuple[GradientFlow, int]:
    """The gradient of the task's loss on some test samples, taken evenly from all; and how many they are."""
    most = most_followed(subject.model, subject.inputs.size(1), len(subject.truth))
    places = torch.from_numpy(np.linspace(0, len(subject.truth) - 1, most).round().astype(np.int64))
    targets = torch.from_numpy(subject.truth.astype(np.int64))[places]
    given = (subject.inputs[places], *(() if subject.lengths is None else (subject.lengths[places],)))
    return gradient_flow(subject.model, given, lambda out: subject.loss(out, targets)), most


def _by_class(subject: Subject) -> list[Any]:
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
    every = len(worst(subject))
    if not wrong:
        return [Text(f"None of the {len(subject.truth):,} test samples is taken for another class than its own.")]
    total = f"{every:,} of {len(subject.truth):,} test samples are wrong"
    shown = "all of them, those" if every == len(wrong) else f"the {len(wrong)}"
    return [
        Text(f"{total}; {shown} of the highest loss first."),
        Cards([_card(subject, sample) for sample in wrong]),
    ]


def _gates(subject: Subject, chosen: Sequence[Sample], flow: GradientFlow) -> list[Any]:
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
        return f"given: {short(name)}, taken for {taken_for}"
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
