"""The machine's ceiling: torch's matrix products, timed in the same turns as the LSTMs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gatewise.bench.grid import Size, input_size

SQUARE = 1024


@dataclass(frozen=True)
class Product:
    """A matrix product (m, k) × (k, n) in a dtype.

    Examples
    --------
    >>> Product("square", 4, 4, 4, torch.float32).flops
    128
    """

    name: str
    m: int
    k: int
    n: int
    dtype: torch.dtype

    @property
    def label(self) -> str:
        """The name and the dtype: unique within a row."""
        return f"{self.name} {str(self.dtype).removeprefix('torch.')}"

    @property
    def flops(self) -> int:
        """Floating-point operations."""
        return 2 * self.m * self.k * self.n

    def call(self) -> Callable[[], object]:
        """Make the call to time."""
        draw = torch.Generator().manual_seed(0)
        a, b = (torch.randn(shape, generator=draw).to(self.dtype) for shape in ((self.m, self.k), (self.k, self.n)))
        out = torch.empty(self.m, self.n, dtype=self.dtype)
        return lambda: torch.mm(a, b, out=out)


def products(size: Size, steps: int, P: int, dtype: torch.dtype) -> tuple[Product, ...]:
    """Name the products that bound a size: a square one, and two of the last layer's own.

    Parameters
    ----------
    size : Size
        The sizes.
    steps : int
        The steps of all sequences together.
    P : int
        Width of h.
    dtype : torch.dtype
        What is computed in. For 16 bits float32's products come as well: without instructions for 16 bits they are the
        faster ones, and then they are the ceiling.

    Returns
    -------
    tuple of Product
        ``square``, 1024³; ``layer``, all steps at once, (T·B, I + P) × (I + P, 4H); ``step``, what the recurrence
        allows at a time, (B, P) × (P, 4H).

    Examples
    --------
    >>> [(p.name, p.m, p.k, p.n) for p in products(Size(2, 3, 4, 5, 1, 1), 6, 5, torch.float32)]
    [('square', 1024, 1024, 1024), ('layer', 6, 9, 20), ('step', 2, 5, 20)]
    """
    I = input_size(size, size.L - 1, P)
    return tuple(
        Product(name, m, k, n, kind)
        for kind in ((torch.float32, dtype) if dtype.itemsize < 4 else (dtype,))
        for name, m, k, n in (
            ("square", SQUARE, SQUARE, SQUARE),
            ("layer", steps, I + P, 4 * size.H),
            ("step", size.B, P, 4 * size.H),
        )
    )
