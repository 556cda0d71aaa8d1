"""Series row by row, for a model that carries its state on: what it reads at each, and what it is to forecast there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gatewise.data.series import Series
from gatewise.data.windows import Form, Part, borders_of, need_memory, origins_of, rows_of, targets_of


@dataclass(frozen=True, eq=False)
class Steps:
    """The rows of all series, one after the other.

    Parameters
    ----------
    inputs : float32 array, shape (N, channels + 1 + horizon + horizon · ahead)
        What `step_inputs` gives.
    targets : float32 array, shape (N, horizon)
        The scaled targets of the rows after each; NaN where there is none, or none of the part that is asked for.
    begins : bool array, shape (N,)
        Where a series begins.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]
    begins: NDArray[np.bool_]


def make_steps(series: Sequence[Series], form: Form, part: Part, lag: int) -> Steps:
    """The rows up to the end of a part from the beginning of all series, with targets in the part alone.

    Parameters
    ----------
    series : sequence of Series
        What the data hold.
    form : Form
        What they were like at the training.
    part : {"train", "dev", "test"}
        The forecasts whose horizon lies in it, with at least a window of rows before, have targets.
    lag : int
        As of `step_inputs`.

    Raises
    ------
    DataError
        There is no such forecast, or there are more rows than fit into memory.
    """
    origins = origins_of(series, form, part)
    width = form.channels + 1 + form.horizon * (1 + form.ahead)
    need_memory(f"{sum(map(len, series)):,} rows of {width:,} numbers", sum(map(len, series)) * width, "horizon")
    inputs, targets, begins = [], [], []
    for one, own in zip(series, origins, strict=True):
        dev, test = borders_of(one, form)
        end = {"train": dev, "dev": test, "test": len(one)}[part]
        inputs.append(step_inputs(one, form, lag)[:end])
        wanted = np.full((end, form.horizon), np.nan, np.float32)
        wanted[own - 1] = targets_of(one, form, own)
        targets.append(wanted)
        begins.append(np.arange(end) == 0)
    return Steps(np.concatenate(inputs), np.concatenate(targets), np.concatenate(begins))


def step_inputs(series: Series, form: Form, lag: int) -> NDArray[np.float32]:
    """What is read at each row up to the last target.

    Parameters
    ----------
    series : Series
        Of N rows, and F after its last target.
    form : Form
        What it was like at the training.
    lag : int
        Rows to the value that a naive forecast repeats: 1, or a season; 0: there is no naive forecast.

    Returns
    -------
    float32 array, shape (N, channels + 1 + horizon + horizon · ahead)
        The scaled row; by how much the target has changed over the lag (0 before there is one); the naive forecast of
        the rows of the horizon; and what of those is known in advance, 0 where nothing is.

    Examples
    --------
    >>> from gatewise.data.steps import Step
    >>> from gatewise.data.table import Times
    >>> from gatewise.data.windows import GroupForm
    >>> there = np.ones(3, bool)
    >>> target, none = np.array([1.0, 2, 4]), np.ones((3, 0))
    >>> one = Series("", Times(np.arange(3), "row"), target, none, none, there, there)
    >>> groups = {"": GroupForm((0.0,), (1.0,), 1.0, 2.0, 3.0)}
    >>> step_inputs(one, Form(1, 2, 1, Step("row", 1), "row", (), 0, 0, False, groups), 1)
    array([[1., 0., 1., 1.],
           [2., 1., 2., 2.],
           [4., 2., 4., 4.]], dtype=float32)
    """
    rows = rows_of(series, form)
    count, total, past = len(series), len(rows), 1 + form.features
    places, steps = np.arange(count)[:, None], np.arange(form.horizon)
    target = rows[:count, 0]
    change, naive = np.zeros(count), np.zeros((count, form.horizon))
    if lag:
        change[lag:] = target[lag:] - target[:-lag]
        naive = target[np.maximum(0, places + 1 - lag + steps % lag)]
    following = places + 1 + steps
    ahead = rows[np.minimum(following, total - 1), past:]
    ahead[following >= total] = 0
    return np.concatenate([rows[:count], change[:, None], naive, ahead.reshape(count, -1)], axis=1).astype(np.float32)
