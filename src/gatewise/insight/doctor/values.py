"""What `gatewise.insight.doctor.flow` knows of a value without running the code that makes it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace

Axis = str | None
"""What an axis counts: "batch", "time", "one" where its size is 1, or None where nothing tells."""


@dataclass(frozen=True)
class Recurrent:
    """A module such as torch.nn.LSTM; of its options, None is one that cannot be read off."""

    kind: str
    batch_first: bool | None
    bidirectional: bool | None
    made: ast.Call = field(compare=False)

    @property
    def is_cell(self) -> bool:
        """Whether it takes a single step."""
        return self.kind.endswith("Cell")


@dataclass(frozen=True)
class ToOne:
    """A torch.nn.Linear with one output."""


@dataclass(frozen=True)
class Elementwise:
    """A loss module that compares element by element, and broadcasts."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of known axes; with padding after the shorter sequences, or not."""

    axes: tuple[Axis, ...]
    padded: bool = False

    @property
    def is_flat(self) -> bool:
        """Whether it has a single axis."""
        return len(self.axes) == 1 and self.axes[0] != "one"

    @property
    def is_column(self) -> bool:
        """Whether it has several axes, the last of size 1."""
        return len(self.axes) > 1 and self.axes[-1] == "one" and self.axes[0] != "one"


@dataclass(frozen=True)
class Column:
    """What comes from a `ToOne`: the last axis has size 1."""


@dataclass(frozen=True)
class Packed:
    """What pack_padded_sequence or pack_sequence gives."""


@dataclass(eq=False)
class Result:
    """What a call of a recurrent module gives: its output and its last state."""

    module: Recurrent
    call: ast.Call
    input: Tensor | Packed | None = None
    padded: str = ""
    """"input" where the module reads padding, "output" where only the output has it."""
    statement: ast.Assign | None = None
    """The assignment that takes output and state apart."""
    reads_first_step: bool = False
    has_finding: bool = False


@dataclass(frozen=True)
class Output:
    """All steps of a recurrent module."""

    result: Result
    batch_first: bool | None
    packed: bool = False


@dataclass(frozen=True)
class Unpacked:
    """What pad_packed_sequence gives: an output and lengths."""

    output: Output


@dataclass(eq=False)
class LastStep:
    """The last step of an output of both directions; part of it may be used only."""

    is_cut: bool = False


Value = Recurrent | ToOne | Elementwise | Tensor | Column | Packed | Result | Output | Unpacked | LastStep


def merge(one: Value | None, other: Value | None) -> Value | None:
    """What is known of a value that comes from one of two branches.

    Parameters
    ----------
    one, other : Value or None
        From each branch.

    Returns
    -------
    Value or None
        What both agree on.
    """
    if isinstance(one, Recurrent) and isinstance(other, Recurrent) and one.kind == other.kind:
        return replace(
            one,
            batch_first=one.batch_first if one.batch_first == other.batch_first else None,
            bidirectional=one.bidirectional if one.bidirectional == other.bidirectional else None,
        )
    return one if one == other else None
