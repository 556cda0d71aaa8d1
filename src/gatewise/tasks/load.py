"""A trained model out of its run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from torch import nn

from gatewise.tasks.task import task_of
from gatewise.train.run import Run


def load(run: str | os.PathLike[str], weights: Literal["best", "last"] = "best") -> nn.Module:
    """Give the model of a run, to be looked into, trained further or built into something else.

    Parameters
    ----------
    run : path
        A folder that gatewise train made.
    weights : {"best", "last"}, default "best"
        Which ones.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU. It reads what the task's model reads: images (N, rows, columns), normalised as
        the settings say, or digits (N, T); and gives logits. Of series it reads scaled rows (N, window + horizon,
        channels), and gives scaled forecasts (N, horizon, 1), or with quantiles (N, horizon, quantiles). Of text it
        reads the numbers (N, T) that its `vocabulary` encodes, and a state or None, and gives logits and the state.
        channels), and gives scaled forecasts (N, horizon, 1), or with quantiles (N, horizon, quantiles). Of sequences
        it reads scaled steps (N, T, features) and, unless all have T steps, their lengths (N,); it gives logits
        (N, classes), or with a label a step (N, T, classes).

    Raises
    ------
    RunError
        The folder is no run, or its weights are missing, damaged, or not those of its settings.

    Examples
    --------
    >>> import tempfile
    >>> from gatewise.cli import main
    >>> folder = tempfile.mkdtemp()
    >>> words = ["--length", "5", "--epochs", "1", "--threads", "1", "--run", f"{folder}/sum"]
    >>> main(["train", "digit-sum", *words])  # doctest: +ELLIPSIS
    data    300 train...
    0
    >>> load(f"{folder}/sum").cell
    LSTM(32, 32, batch_first=True)
    """
    opened = Run.open(Path(run))
    task, config = task_of(opened)
    return task.runner().model(config, opened, weights).eval()
