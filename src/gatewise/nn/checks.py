"""What the modules check before the kernels are called: one line that names the axes, and what to do."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise.errors import ArgumentError, DtypeError, KernelError, ShapeError

_DTYPES = (torch.float32, torch.float64)


def check_numbers(name: str, x: object, weight: Tensor) -> None:
    """Refuse a tensor whose dtype or device is not the weights', or that the kernels have no code for.

    Raises
    ------
    DtypeError
        It is no tensor (packed sequences are none), the dtypes differ, or are neither float32 nor float64.
    KernelError
        A tensor is not on the CPU, or is sparse, nested or otherwise not laid out by strides.

    Examples
    --------
    >>> check_numbers("input", torch.zeros(2), torch.zeros(3))
    """
    if not isinstance(x, Tensor):
        raise DtypeError(f"{name} is a {type(x).__name__}, needed a torch.Tensor: pass one")
    if x.dtype != weight.dtype:
        remedy = f"convert the one ({name}.to({weight.dtype}))"
        if x.dtype in _DTYPES:
            remedy += f" or the other (module.to({x.dtype}))"
        raise DtypeError(f"{name} is {x.dtype} and the weights are {weight.dtype}: {remedy}")
    if x.dtype not in _DTYPES:
        raise DtypeError(f"{name} and the weights are {x.dtype}, needed float32 or float64: convert both")
    if not (x.is_cpu and weight.is_cpu):
        raise KernelError(
            f"{name} is on {x.device} and the weights are on {weight.device}, needed both on the cpu: move them there"
        )
    if x.layout != torch.strided or x.is_nested:
        kind = "nested" if x.is_nested else f"laid out as {x.layout}"
        raise KernelError(f"{name} is {kind}, needed a dense tensor: convert it, as with {name}.to_dense()")


def check_state(hx: object) -> None:
    """Refuse what is no pair of a hidden state and a cell state.

    Raises
    ------
    ArgumentError
        It is something else.

    Examples
    --------
    >>> check_state((torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
    """
    if not (isinstance(hx, (tuple, list)) and len(hx) == 2):
        given = f"a tensor of shape {tuple(hx.shape)}" if isinstance(hx, Tensor) else f"a {type(hx).__name__}"
        if isinstance(hx, (tuple, list)):
            given += f" of {len(hx)}"
        raise ArgumentError(f"hx is {given}, needed a pair (h_0, c_0), or None for zeros: pass both states")


def check_shape(name: str, x: Tensor, **axes: int) -> None:
    """Refuse a tensor whose shape is not the one given axis by axis.

    Raises
    ------
    ShapeError
        The shape differs; the message names each axis.

    Examples
    --------
    >>> check_shape("h_0", torch.zeros(1, 2, 5), L=1, B=2, H=4)
    Traceback (most recent call last):
        ...
    gatewise.errors.ShapeError: h_0 has shape (1, 2, 5), needed (L, B, H) = (1, 2, 4): H is 5 instead of 4
    """
    needed = tuple(axes.values())
    if x.shape == needed:
        return
    message = f"{name} has shape {tuple(x.shape)}, needed ({', '.join(axes)}) = {needed}"
    if x.dim() != len(needed):
        raise ShapeError(f"{message}: it has {x.dim()} axes instead of {len(needed)}")
    wrong = [
        f"{axis} is {has} instead of {needs}"
        for (axis, needs), has in zip(axes.items(), x.shape, strict=True)
        if has != needs
    ]
    raise ShapeError(f"{message}: {', '.join(wrong)}")
