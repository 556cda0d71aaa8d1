"""What the modules check before the kernels are called: one line that names the axes, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import ArgumentError, DtypeError, KernelError, ShapeError
from gatewise.nn.paths import KERNEL_DTYPES, NARROW_DTYPES

_DTYPES = {*KERNEL_DTYPES, *NARROW_DTYPES}


def check_numbers(name: str, x: object, weight: Tensor) -> None:
    """Refuse a tensor whose dtype or device is not the weights', or that there is no code for.

    Raises
    ------
    DtypeError
        It is no tensor, the dtypes differ, or they are no floating-point numbers of 16, 32 or 64 bits.
    KernelError
        The devices differ, or a tensor is sparse, nested or otherwise not laid out by strides.

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
        raise DtypeError(
            f"{name} and the weights are {x.dtype}, needed float64, float32, bfloat16 or float16: convert both"
        )
    if x.device != weight.device:
        raise KernelError(
            f"{name} is on {x.device} and the weights are on {weight.device}: move the one "
            f"({name}.to('{weight.device}')) or the other (module.to('{x.device}'))"
        )
    if x.layout != torch.strided or x.is_nested:
        kind = "nested" if x.is_nested else f"laid out as {x.layout}"
        raise KernelError(f"{name} is {kind}, needed a dense tensor: convert it, as with {name}.to_dense()")


def as_lengths(lengths: Any, *, T: int, B: int) -> Tensor:
    """Bring lengths into the form that the operators take, or refuse them.

    Parameters
    ----------
    lengths
        A tensor, an array or a list of B whole numbers from 0 to T.
    T, B
        Steps and sequences of the input.

    Returns
    -------
    Tensor
        (B,), int64, on the CPU, contiguous.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        They are not B, no whole numbers, or not from 0 to T.

    Examples
    --------
    >>> as_lengths([3, 0], T=3, B=2)
    tensor([3, 0])
    """
    try:
        given = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(f"lengths are {lengths!r}, needed one whole number for each of the {B} sequences") from error
    if B == 0 and given.numel() == 0:
        given = given.long()
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise DtypeError(f"lengths are {given.dtype}, needed whole numbers: convert them, as with lengths.long()")
    if given.shape != (B,):
        raise ShapeError(f"lengths have shape {tuple(given.shape)}, needed (B,) = ({B},): one for each sequence")
    if given.is_meta:
        return given
    given = given.to("cpu", torch.int64).contiguous()
    # What is traced has no numbers yet: the operators look at them when they run.
    if not torch.compiler.is_compiling() and type(given) is Tensor and B:
        numbers = given
        while torch._C._functorch.is_functorch_wrapped_tensor(numbers):
            numbers = torch._C._functorch.get_unwrapped(numbers)
        least, most = numbers.aminmax()
        if least < 0 or most > T:
            raise ArgumentError(f"lengths go from {int(least)} to {int(most)}, needed from 0 to T = {T}: correct them")
    return given


def check_packed(packed: Any) -> None:
    """Refuse packed sequences that do not say how many take each step, or in which order they are.

    Raises
    ------
    ShapeError, DtypeError, KernelError
        A tensor of theirs is none, has not the right numbers, or is elsewhere.

    Examples
    --------
    >>> from torch.nn.utils.rnn import pack_sequence
    >>> check_packed(pack_sequence([torch.zeros(3, 4), torch.zeros(2, 4)]))
    """

    def check(name: str, x: object, device: torch.device) -> Tensor:
        if not isinstance(x, Tensor) or x.dtype != torch.int64 or x.dim() != 1:
            given = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise DtypeError(
                f"the packed input's {name} are {given}, needed a torch.int64 tensor of one axis: pack it by "
                "torch.nn.utils.rnn"
            )
        if x.device != device:
            raise KernelError(f"the packed input's {name} are on {x.device}, needed on {device}: pack it there")
        return x

    batch_sizes = check("batch_sizes", packed.batch_sizes, torch.device("cpu"))
    if batch_sizes.numel() == 0:
        raise ShapeError("input is packed and has no steps, needed at least one: leave empty sequences out")
    for name in ("sorted_indices", "unsorted_indices"):
        indices = getattr(packed, name)
        if indices is None:
            continue
        count = check(name, indices, packed.data.device).numel()
        # (What is compiled has no numbers yet to compare with.)
        if not torch.compiler.is_compiling() and count != batch_sizes[0]:
            raise ShapeError(
                f"the packed input's {name} are {count}, needed one for each of the {int(batch_sizes[0])} "
                "sequences: pack it by torch.nn.utils.rnn"
            )


def check_reset(reset: object, input: Tensor, **axes: int) -> None:
    """Refuse a reset mask that has not the axes given, or is not where the input is.

    Raises
    ------
    ShapeError, DtypeError, KernelError
        It is of another shape, not bool, or elsewhere.

    Examples
    --------
    >>> check_reset(torch.zeros(5, 2, dtype=torch.bool), torch.zeros(5, 2, 4), T=5, B=2)
    """
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool:
        given = reset.dtype if isinstance(reset, Tensor) else f"a {type(reset).__name__}"
        raise DtypeError(f"reset is {given}, needed a torch.bool tensor: convert it, as with reset.bool()")
    check_shape("reset", reset, **axes)
    if reset.device != input.device:
        raise KernelError(
            f"reset is on {reset.device} and input on {input.device}: move it, with reset.to(input.device)"
        )


def check_input(
    lstm: Any, x: Tensor, states: Mapping[str, Tensor | None], weight: Tensor, batch_sizes: Tensor | None
) -> None:
    """Refuse an input or a state that does not fit an LSTM, naming the axes.

    Parameters
    ----------
    lstm
        The module, for its sizes.
    x
        The call's input, or the data of a packed one.
    states
        The initial states by name, h_0 first; all None: there are none.
    weight
        Of the dtype and on the device that all of it must have.
    batch_sizes
        Of a packed input; None: it is none.

    Raises
    ------
    ShapeError, DtypeError, KernelError
        A tensor does not fit.

    Examples
    --------
    >>> lstm = torch.nn.LSTM(4, 3)
    >>> check_input(lstm, torch.zeros(5, 2, 4), {"h_0": None, "c_0": None}, lstm.weight_ih_l0, None)
    """
    check_numbers("input", x, weight)
    sizes = {"L·D": lstm.num_layers * (2 if lstm.bidirectional else 1)}
    if batch_sizes is not None:
        if x.dim() != 2 or x.size(-1) != lstm.input_size:
            raise ShapeError(
                f"input has packed data of shape {tuple(x.shape)}, needed (steps, I) with I = {lstm.input_size} "
                "(input_size)"
            )
        sizes["B"] = int(batch_sizes[0])
    else:
        axes = ("B", "T", "I") if lstm.batch_first else ("T", "B", "I")
        if x.dim() not in (2, 3) or x.size(-1) != lstm.input_size:
            raise ShapeError(
                f"input has shape {tuple(x.shape)}, needed ({', '.join(axes)}), or (T, I) for a single sequence, "
                f"with I = {lstm.input_size} (input_size)"
            )
        if x.size(axes.index("T") if x.dim() == 3 else 0) == 0:
            raise ShapeError(
                f"input has shape {tuple(x.shape)}, needed at least one step along T: leave empty sequences out"
            )
        if x.dim() == 3:
            sizes["B"] = x.size(axes.index("B"))
    width_of_h = {"P": lstm.proj_size} if lstm.proj_size else {"H": lstm.hidden_size}
    if any(state is not None for state in states.values()):
        for name, state in states.items():
            check_numbers(name, state, weight)
            width = width_of_h if name == "h_0" else {"H": lstm.hidden_size}
            check_shape(name, state, **sizes, **width)  # type: ignore[arg-type]


def check_state(hx: object, names: Sequence[str] = ("h", "c")) -> None:
    """Refuse what is no pair of a hidden state and a cell state, or not all that another cell's state has.

    Parameters
    ----------
    hx
        What was given.
    names
        What a state has, in its order.

    Raises
    ------
    ArgumentError
        It is something else.

    Examples
    --------
    >>> check_state((torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
    """
    if isinstance(hx, (tuple, list)) and len(hx) == len(names):
        if len(names) == 2 and isinstance(hx[0], Tensor) and isinstance(hx[1], Tensor):  # before every call: at once
            return
        if len(names) > 2 and all(isinstance(state, Tensor) for state in hx):
            return
    given = f"a tensor of shape {tuple(hx.shape)}" if isinstance(hx, Tensor) else f"a {type(hx).__name__}"
    if isinstance(hx, (tuple, list)):
        given += f" of {', '.join(type(state).__name__ for state in hx) or 'nothing'}"
    if len(names) == 2:
        raise ArgumentError(f"hx is {given}, needed a pair of tensors (h_0, c_0), or None for zeros: pass both states")
    needed = ", ".join(f"{name}_0" for name in names)
    raise ArgumentError(f"hx is {given}, needed {len(names)} tensors ({needed}), or None for zeros: pass all states")


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
