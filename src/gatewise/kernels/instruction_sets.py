"""What the core was built for, and which of its instruction sets is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gatewise import _core
from gatewise.errors import KernelError
from gatewise.kernels.sizes import plan

ISA_VARIABLE = "GATEWISE_ISA"

TORCH_VERSION: str = _core.torch_version
"""The torch that the operators were compiled against."""


def available() -> tuple[str, ...]:
    """Name the instruction sets that this machine has code and registers for, the best first.

    Examples
    --------
    >>> "baseline" in available()
    True
    """
    return tuple(name for name, supported in _core.instruction_sets() if supported)


def instruction_set() -> str:
    """Name the instruction set in use.

    Examples
    --------
    >>> instruction_set() in available()
    True
    """
    return str(_core.instruction_set())


def use(name: str) -> None:
    """Choose the instruction set for every later call of this process.

    Setting the environment variable ``GATEWISE_ISA`` before gatewise is imported does the same. What was saved for a
    backward pass under one instruction set another one refuses: choose before the forward pass.

    Parameters
    ----------
    name
        One of `available`.

    Raises
    ------
    KernelError
        There is no such instruction set, or this machine lacks it.

    Examples
    --------
    >>> use(available()[0])
    """
    known = [known for known, _ in _core.instruction_sets()]
    if name not in known:
        raise KernelError(f"instruction set {name!r} is unknown: this build has {', '.join(known)}")
    if name not in available():
        raise KernelError(f"this machine lacks {name!r}: it has {', '.join(available())}")
    plan.cache_clear()
    _core.use(name)


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use an instruction set within a `with` block, and afterwards the one of before.

    A forward pass and its backward pass must run under the same one, both in the block or both outside.

    Parameters
    ----------
    name
        One of `available`.

    Raises
    ------
    KernelError
        There is no such instruction set, or this machine lacks it.

    Examples
    --------
    >>> with using("baseline"):
    ...     instruction_set()
    'baseline'
    """
    before = instruction_set()
    use(name)
    try:
        yield
    finally:
        use(before)


def multiplies_bfloat16() -> bool:
    """Whether the instruction set in use has a dot product of bfloat16, or converts its numbers to float32.

    Examples
    --------
    >>> with using("baseline"):
    ...     multiplies_bfloat16()
    False
    """
    return instruction_set() == "avx512bf16"


if forced := os.environ.get(ISA_VARIABLE):
    try:
        use(forced)
    except KernelError as error:
        raise KernelError(f"{ISA_VARIABLE} is {forced!r} in the environment: {error}; unset it, or name one") from None
