"""The report of a run: what its kind of task finds, between its settings and its gradients."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.errors import ArgumentError
from gatewise.experiments.inspection import classes, forecasts
from gatewise.experiments.inspection.history import best_epoch, curve_blocks, setting_blocks
from gatewise.experiments.inspection.shared import SEQUENCES, Findings
from gatewise.insight.gradient_flow import GradientFlow, sentence
from gatewise.insight.report.flow import flow_blocks
from gatewise.insight.report.page import Page, Section, Text, render
from gatewise.tasks.runs import Standing, standing
from gatewise.tasks.task import Subject, Task, task_of
from gatewise.train.run import Run
from gatewise.whole import write_whole


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
        How many there are; of forecasts, from how many origins.
    sequences : sequence of mapping
        Those whose gates are shown: name, truth (None where unknown), and what it was taken for; of forecasts name,
        series, origin and error (None where unknown).
    mistakes : sequence of mapping
        Those shown, the worst first: the same, and the loss.
    flow : sequence of mapping
        Of each recurrent layer: its name and cell, the horizon in steps (None: beyond the sequences, or no gradient)
        and the sentence that says so.
    verdicts : sequence of str
        Of forecasts: whether they are better than each baseline.
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
    verdicts: Sequence[str]

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
        What else its gates are shown for: paths of images, sequences of digits, or files of series.
    weights : {"best", "last"}, default "best"
        Which ones.
    out : path, default: report.html in the folder
        The file; one that exists is replaced.
    data : path, default: where they were at the training
        The folder, or the file, of the data.

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
    own = standing(folder)
    task, config = task_of(Run.open(folder))
    if data is not None:
        config = task.with_data(config, data)
    subject = task.runner().look(task, config, Run(folder), weights, given)
    found = classes.find(subject, task) if isinstance(subject, Subject) else forecasts.find(subject, task)
    path = out if out is not None else folder / "report.html"
    write_whole(path, render(_page(found, own, task, weights)))
    return Inspection(
        path,
        folder,
        task.name,
        weights,
        found.score,
        found.samples,
        found.sequences,
        found.mistakes,
        _horizons(found.flow),
        found.verdicts,
    )


def _page(found: Findings, own: Standing, task: Task, weights: str) -> Page:
    best = best_epoch(own.metrics, own.config.best_by)
    last = f"trained for {own.epoch:g} of {own.config.epochs} epochs"
    of_best = f"The best weights{f', of epoch {best:g}' if best is not None else ''}, {last}."
    return Page(
        str(own.folder.name or own.folder),
        [found.result, of_best if weights == "best" else f"The weights at the end, {last}."],
        [
            Section("Settings and curves", setting_blocks(own, task) + curve_blocks(own.metrics, best, found.unit)),
            *found.sections,
            Section("How far back the gradient reaches", [Text(found.followed), *flow_blocks(found.flow)]),
        ],
    )


def _horizons(flow: GradientFlow) -> list[dict[str, Any]]:
    found = []
    for layer in flow.layers:
        horizon = layer.horizon(0.1)
        finite = horizon if np.isfinite(horizon) else None
        found.append({"layer": layer.name, "cell": layer.cell, "horizon": finite, "sentence": sentence(layer)})
    return found
