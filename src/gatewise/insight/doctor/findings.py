"""What a doctor's visit ends with: findings, each with its place, its reason and the line that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CODES: Mapping[str, str] = MappingProxyType(
    {
        "batch-and-time": "the batch axis stands where the module reads time, or the other way round",
        "last-of-bidirectional": "the last step of both directions: the reverse one has read a single step there",
        "last-of-padded": "the last step of a padded batch: for a shorter sequence that is padding",
        "gate-order": "the four gates stand in another order than torch's input, forget, cell, output",
        "lost-bias": "one of torch's two biases is taken along and the other is not",
        "embedding-not-a-parameter": "a plain tensor is used as a weight: never trained, moved or saved",
        "mse-broadcast": "[B] against [B, 1]: the loss compares each prediction with every target",
        "no-seed": "a training whose random numbers are others in each run",
        "graph-kept-alive": "a sum of losses that keeps the graph of every step in memory",
        "no-gradient": "a parameter that the loss does not depend on: it is never trained",
    }
)
"""Every code with what it says, in the order of docs/doctor.md."""


@dataclass(frozen=True)
class Finding:
    """A mistake, where it is, why it is one and how it is mended.

    Parameters
    ----------
    where : str
        A file's path, with the number of the cell in a notebook; or a module's path in a live model, such as
        ``model.encoder.lstm``.
    line, column : int or None
        The place in the file, both counted from 1; None in a live model.
    code : str
        One of `CODES`.
    what : str
        What stands there and why it is wrong.
    mend : str
        The code that is right, in a line or two.

    Examples
    --------
    >>> print(Finding("train.py", 3, 1, "no-seed", "torch.seed() draws a seed.", "torch.manual_seed(0)"))
    train.py:3:1 no-seed: torch.seed() draws a seed.
        mend: torch.manual_seed(0)
    """

    where: str
    line: int | None
    column: int | None
    code: str
    what: str
    mend: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.where, self.line, self.column) if part is not None)
        mend = self.mend.replace("\n", "\n          ")
        return f"{place} {self.code}: {self.what}\n    mend: {mend}"


class Findings(list[Finding]):
    """A list of findings that prints as text.

    Examples
    --------
    >>> Findings()
    nothing found
    """

    def __repr__(self) -> str:
        return "\n".join(str(finding) for finding in self) or "nothing found"

    __str__ = __repr__
