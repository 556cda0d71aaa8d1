"""Which code serves a call, and why: the kernels, torch's own LSTM, or the composite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from gatewise import kernels
from gatewise.errors import ArgumentError
from gatewise.reference.variant import PLAIN, Variant

if TYPE_CHECKING:
    from gatewise.nn.cell import LSTMCell
    from gatewise.nn.lstm import LSTM

KERNEL_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
"""What the kernels take as it is."""

NARROW_DTYPES = (torch.bfloat16, torch.float16)
"""What is computed in float32 and rounded, where the kernels do not take it as it is."""


@dataclass(frozen=True)
class Path:
    """The code that serves a call.

    Parameters
    ----------
    name : {"kernel", "torch", "composite"}
        gatewise's kernels; torch's own LSTM (cuDNN, on a GPU); or the LSTM in torch's operations, step by step, which
        is slower and works everywhere.
    why : str
        The reason, in a phrase.

    Examples
    --------
    >>> print(Path("kernel", "float32 on cpu, instruction set avx2: as it is"))
    kernel: float32 on cpu, instruction set avx2: as it is
    """

    name: Literal["kernel", "torch", "composite"]
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def transformed() -> bool:
    """Whether a transform of torch.func, or a forward-mode derivative, is under way.

    Examples
    --------
    >>> transformed()
    False
    >>> torch.func.vmap(lambda x: x + transformed())(torch.zeros(2))
    tensor([1., 1.])
    """
    if forward_ad._current_level >= 0:
        return True
    # (torch.export works by a transform of its own, which takes any operator.)
    return torch._C._functorch.peek_interpreter_stack() is not None and not torch.compiler.is_compiling()


def plainly_served(input: object) -> bool:
    """Whether the kernels take a tensor as it is: the common case, asked before every call.

    Examples
    --------
    >>> plainly_served(torch.zeros(3)), plainly_served(torch.zeros(3, dtype=torch.float16))
    (True, False)
    """
    return (
        isinstance(input, Tensor)
        and input.is_cpu
        and input.dtype in KERNEL_DTYPES
        and not transformed()
        and not torch.is_autocast_enabled("cpu")
    )


# What `path_of` chooses among.
_TRANSFORMED = Path("composite", "torch.func and forward-mode derivatives go through torch's operations")
_WALKED_ELSEWHERE = Path("composite", "torch's own LSTM on this device has neither lengths nor resets")
_ELSEWHERE = Path(
    "torch", "on this device torch's own LSTM computes it, from the same weights, and differentiates once"
)
_VARIED_ELSEWHERE = Path(
    "composite", "torch's own LSTM on this device is the plain cell alone; this one goes by torch's operations"
)
_META = Path("kernel", "shapes alone")
_ROUNDED = Path("kernel", "computed in float32, the results rounded")
_PLAIN = Path("kernel", "as it is; gradients of gradients through the composite")
_NARROW = Path("kernel", "sums and cells in float32; gradients of gradients in float32 through the composite")


def path_of(input: Tensor, *, walked: bool, variant: Variant = PLAIN) -> Path:
    """Choose the code for a call.

    Parameters
    ----------
    input
        What the LSTM reads, after autocast.
    walked
        Whether there are lengths or resets.
    variant
        The cell.

    Examples
    --------
    >>> path_of(torch.zeros(3, 2, 4, dtype=torch.float16), walked=True).why
    'computed in float32, the results rounded'
    """
    if transformed():
        return _TRANSFORMED
    device = input.device.type
    if device not in ("cpu", "meta"):
        if not variant.is_plain:
            return _VARIED_ELSEWHERE
        return _WALKED_ELSEWHERE if walked else _ELSEWHERE
    if device == "meta":
        return _META
    if input.dtype == torch.bfloat16:
        return _NARROW  # explain_path says by what: a compiler cannot trace the question
    return _PLAIN if input.dtype in KERNEL_DTYPES else _ROUNDED


def explain_path(
    module: LSTM | LSTMCell,
    input: Tensor | PackedSequence,
    hx: Any = None,
    *,
    lengths: Any = None,
    reset: Tensor | None = None,
) -> Path:
    """Tell which code would serve a call, without making it.

    Every path computes the same numbers, within the error of their dtype; they differ in speed. Nothing falls from one
    to another in silence: what this says is what happens.

    Parameters
    ----------
    module : LSTM or LSTMCell
        The module that would be called.
    input, hx, lengths, reset
        As the call would have them. Call it in the same surroundings too: under autocast, within `torch.func.vmap`.

    Returns
    -------
    Path
        The name of the path and the reason.

    Raises
    ------
    ArgumentError
        `module` is none of gatewise's.
    ShapeError, DtypeError, KernelError
        The call would be refused, with the same words.

    Examples
    --------
    >>> import gatewise
    >>> lstm = gatewise.LSTM(4, 8)
    >>> gatewise.explain_path(lstm, torch.zeros(5, 2, 4)).name
    'kernel'
    >>> torch.func.vmap(lambda x: x * (gatewise.explain_path(lstm, x).name == "composite"))(torch.ones(1, 5, 4)).all()
    tensor(True)
    """
    from gatewise.nn.cell import LSTMCell
    from gatewise.nn.lstm import LSTM

    if not isinstance(module, (LSTM, LSTMCell)):
        raise ArgumentError(
            f"module is a {type(module).__module__}.{type(module).__name__}, needed a gatewise.LSTM or a "
            "gatewise.LSTMCell"
        )
    changes = {}
    if isinstance(module, LSTM):
        prepared = module.prepare(input, hx, lengths, reset)
        x, path, changes = prepared.x, prepared.path, prepared.network.variant.changes()
    else:
        if lengths is not None or reset is not None:
            raise ArgumentError("lengths and reset are given, and a cell takes a single step: leave them out")
        x, _, _, _, path = module.prepare(input, hx)  # type: ignore[arg-type]
    how = f"{str(x.dtype).removeprefix('torch.')} on {x.device}"
    if path.name == "kernel" and x.is_cpu:
        how += f", instruction set {kernels.instruction_set()}"
        if x.dtype == torch.bfloat16 and path is _NARROW:
            how += ", by its dot product" if kernels.multiplies_bfloat16() else ", each product converted to float32"
        how += ", one thread as this process was forked" * kernels.forked()
    if changes:
        how += f", {' '.join(f'{name}={value!r}' for name, value in changes.items())}"
    return Path(path.name, f"{how}: {path.why}")


def under_autocast(x: Any) -> Any:
    """Cast a tensor as torch.autocast does where it is on: floating-point numbers of up to 32 bits to its dtype.

    What is no tensor stays as it is.

    Examples
    --------
    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     under_autocast(torch.zeros(2)).dtype
    torch.bfloat16
    """
    if not isinstance(x, Tensor):
        return x
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return x
    narrow = x.is_floating_point() and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(device)) if narrow else x
