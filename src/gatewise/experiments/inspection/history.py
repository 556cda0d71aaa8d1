"""How a run was trained, as blocks of a report: its settings and its curves."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gatewise.insight.report.charts import curve
from gatewise.insight.report.page import Charts, Folded, Table, Text
from gatewise.tasks.runs import Standing
from gatewise.tasks.task import Task
from gatewise.train.curves import UNITS
from gatewise.train.metrics import Metric


def setting_blocks(own: Standing, task: Task) -> list[Any]:
    """What differs from the task's defaults, and the rest."""
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
        return " ".join(map(_shown, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def curve_blocks(metrics: Sequence[Metric], best: float | None, unit: str) -> list[Any]:
    """A chart of each quantity over epochs; the unit is the loss's."""
    if not metrics:
        return [Text("The run has no metrics yet.")]
    quantities = ["loss", *dict.fromkeys(name for metric in metrics for name in metric.measures)]
    charts, units = [], UNITS | {"loss": unit}
    for quantity in quantities:
        lines = {split: _points(metrics, split, quantity) for split in ("train", "dev", "test")}
        lines = {split: points for split, points in lines.items() if points}
        charts.append(curve(quantity, units.get(quantity, quantity), lines, best))
    return [Charts(charts)]


def _points(metrics: Sequence[Metric], split: str, quantity: str) -> list[tuple[float, float]]:
    """A split's quantity over epochs; of training at whole epochs, if there are any, as its means begin anew."""
    of_split = [m for m in metrics if m.split == split and (quantity == "loss" or quantity in m.measures)]
    points = [(metric.epoch, metric[quantity]) for metric in of_split]
    whole = [(epoch, value) for epoch, value in points if epoch == int(epoch)]
    return whole if split == "train" and whole else points


def best_epoch(metrics: Sequence[Metric], by: str) -> float | None:
    """Where dev, or without one training, was at its best; the first of equals. None where there are no metrics."""
    for split in ("dev", "train"):
        points = _points(metrics, split, by)
        if points:
            sign = 1 if by == "loss" else -1
            return min(points, key=lambda point: sign * point[1])[0]
    return None
