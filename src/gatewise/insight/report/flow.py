"""How far back a gradient reaches, as blocks of a report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from gatewise.insight.gradient_flow import GradientFlow, LayerFlow, sentence
from gatewise.insight.report.charts import constant_bars, lag_lines
from gatewise.insight.report.page import Charts, Choice, Chosen, Rows, Table, Text

ALL = "all paths"
FRACTION = 0.1
BINS = 24

PATHS = {
    "lstm": {
        "cell": "along c alone",
        "i": "through i",
        "f": "through f",
        "g": "through g",
        "o": "through o",
        "peephole": "through the peepholes",
        "zoneout": "past steps by zoneout",
    },
    "gru": {"state": "along h alone", "r": "through r", "z": "through z", "n": "through n"},
    "srn": {"state": "of the loss directly", "h": "through h"},
}
"""What each path is called, by cell; others by their name."""


def flow_blocks(flow: GradientFlow) -> list[Any]:
    """The gradient over lag, the horizon of each layer in words, and the time constants.

    Parameters
    ----------
    flow : GradientFlow
        Of a loss on some sequences.

    Returns
    -------
    list
        Blocks of a section.
    """
    reached = [(number, layer) for number, layer in enumerate(flow.layers) if layer.decay[0].isfinite()]
    lags = Rows("lags", [row for number, layer in reached for row in _lag_rows(number, layer)])
    constants = Rows("constants", [row for number, layer in enumerate(flow.layers) for row in _bins(number, layer)])
    names = list(dict.fromkeys(row["path"] for row in lags.rows))
    charts = [
        *([lag_lines(lags, names)] if lags.rows else []),
        *([constant_bars(constants)] if constants.rows else []),
    ]
    choice = Choice("flow_layer", "Layer", [(n, f"{layer.name} ({layer.cell})") for n, layer in enumerate(flow.layers)])
    return [
        *(Text(f"{sentence(layer, FRACTION)} {meaning(layer)}") for layer in flow.layers),
        *([Chosen([choice], [Charts(charts)])] if charts else []),
        _table(flow),
    ]


def meaning(layer: LayerFlow) -> str:
    """What a layer's horizon says in plain words.

    Examples
    --------
    >>> from gatewise.insight.gradient_flow import gradient_flow
    >>> lstm = torch.nn.LSTM(4, 3)
    >>> for weight in lstm.parameters():
    ...     _ = torch.nn.init.zeros_(weight)
    >>> flow = gradient_flow(lstm, torch.ones(9, 1, 4), lambda output: output[0][-1].sum())
    >>> print(meaning(flow.layers[0]))
    What it read earlier than that hardly teaches it anything.
    """
    horizon = layer.horizon(FRACTION)
    if math.isnan(horizon):
        return "So nothing is learned through it."
    if len(layer.decay) == 1:
        return "Give it longer sequences."
    if math.isinf(horizon) and layer.decay[-1] > 1:
        return "It has grown on its way: even what the layer read first has a large part in what it learns."
    if math.isinf(horizon):
        return "So even what it read first can teach it; how much further it would reach, these sequences do not tell."
    return "What it read earlier than that hardly teaches it anything."


def _lag_rows(number: int, layer: LayerFlow) -> list[dict[str, Any]]:
    """The share of the gradient at lag 0, whole and path by path, at each lag."""
    whole = torch.linalg.vector_norm(layer.lags[0], dtype=torch.float64) / layer.lag_counts[0].double().sqrt()
    called = PATHS[layer.cell]
    lines = {ALL: layer.decay} | {
        called.get(name, f"through {name}" if place else "along the state alone"): layer.lag_paths[:, place] / whole
        for place, name in enumerate(layer.names)
    }
    return [{"layer": number, "path": name, "values": _significant(values)} for name, values in lines.items()]


def _significant(values: torch.Tensor) -> list[float | None]:
    """To four digits, whatever their size; None, a gap in a line, where they are not finite."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values.double().tolist()]


def _bins(number: int, layer: LayerFlow) -> list[dict[str, Any]]:
    constants = layer.time_constants()
    finite = [] if constants is None else [v for v in constants.double().tolist() if 0 < v < math.inf]
    if not finite:
        return []
    low, high = math.log10(min(finite)), math.log10(max(finite))
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05
    counts, edges = np.histogram(np.log10(finite), bins=BINS, range=(low, high))
    return [
        {"layer": number, "from": round(10**start, 4), "to": round(10**end, 4), "units": int(count)}
        for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]


def _table(flow: GradientFlow) -> Table:
    rows = []
    for layer in flow.layers:
        units = layer.unit_horizons(FRACTION)
        beyond = int(units.isinf().sum())
        constants = layer.time_constants()
        rows.append(
            (
                f"{layer.name} ({layer.cell})",
                _steps(layer, layer.horizon(0.5)),
                _steps(layer, layer.horizon(FRACTION)),
                f"{beyond:,} of {len(units):,}",
                "none" if constants is None or constants.isnan().all() else _middle(constants),
            )
        )
    columns = (
        "layer",
        "below a half from lag",
        "below a tenth from lag",
        "units with more than a tenth at the first step",
        "time constants, steps: median (middle half)",
    )
    return Table("Horizons, in steps back from the end", columns, rows, columns[1:])


def _steps(layer: LayerFlow, horizon: float) -> str:
    if math.isnan(horizon):
        return "no gradient"
    return f"beyond {len(layer.decay) - 1}" if math.isinf(horizon) else f"{horizon:.0f}"


def _middle(constants: torch.Tensor) -> str:
    low, middle, high = (
        "∞" if math.isinf(value) else f"{value:.3g}"
        for value in np.quantile(constants.double().numpy(), (0.25, 0.5, 0.75), method="nearest")
    )
    return f"{middle} ({low} to {high})"
