"""`LSTMCell`: a drop-in for torch.nn.LSTMCell on gatewise's own kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gatewise.errors import ShapeError
from gatewise.nn.checks import check_numbers, check_shape, check_state
from gatewise.nn.network import Network
from gatewise.nn.paths import Path, path_of, under_autocast
from gatewise.reference.variant import PLAIN


class LSTMCell(nn.LSTMCell):
    """One step of one LSTM layer (equations 1.1 to 1.7 of docs/equations.md).

    Arguments, shapes, parameter names, gate order and initial weights are those of `torch.nn.LSTMCell`, and it is one.
    A loop over cells gives the same values as `LSTM`, bit for bit, at the price of a Python call a step. (Not in 16
    bits: `LSTM` keeps c in float32 from step to step, and a cell hands it on in its own dtype.)

    It is the plain cell; variants of it are arguments of `LSTM`, which takes a single step as well as a thousand.

    Parameters
    ----------
    input_size : int
        Numbers of the input (I).
    hidden_size : int
        Hidden units (H).
    bias : bool, default True
        Whether there are ``bias_ih`` and ``bias_hh``.
    device, dtype
        As in torch. `gatewise.explain_path` tells which code serves a call.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (4H, I) and (4H, H): the rows of i, f, g and o, in this order.
    bias_ih, bias_hh : Parameter
        (4H,) each. All start uniform in ±1/√H.

    Examples
    --------
    >>> cell = LSTMCell(10, 20)
    >>> h, c = cell(torch.zeros(3, 10))
    >>> h.shape
    torch.Size([3, 20])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Advance the state by one step.

        Parameters
        ----------
        input
            (B, I), or (I,) without a batch axis.
        hx
            The state before the step (h, c), each (B, H), or (H,) without a batch axis. Default: zeros.

        Returns
        -------
        h, c : Tensor
            The state after the step, shaped as `hx`.

        Raises
        ------
        ShapeError
            An axis has a wrong size.
        DtypeError
            The input or the state is not of the weights' dtype.
        ArgumentError
            `hx` is no pair.
        KernelError
            Tensors are on different devices, or not dense.
        """
        x, h_0, c_0, weights, path = self.prepare(input, hx)
        # (torch.compile does not know a default that is an object, such as the variant.)
        _, h, c = Network(1, False, False, variant=PLAIN).run(path, x, h_0, c_0, weights)
        return (h[0], c[0]) if input.dim() == 2 else (h[0, 0], c[0, 0])

    def prepare(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor], Path]:
        """Check a call in words, choose its path, and make a sequence of one step of it.

        Parameters
        ----------
        input, hx
            As in `forward`.

        Returns
        -------
        x, h_0, c_0, weights, path
            What `forward` runs: (1, B, I), (1, B, H) twice or None, the weights, and the path.

        Examples
        --------
        >>> LSTMCell(10, 20).prepare(torch.zeros(3, 10), None)[0].shape
        torch.Size([1, 3, 10])
        """
        weights = [self.weight_ih, self.weight_hh]
        if self.bias:
            weights += [self.bias_ih, self.bias_hh]
        input, *weights = (under_autocast(tensor) for tensor in (input, *weights))
        check_numbers("input", input, weights[0])
        if input.dim() not in (1, 2) or input.size(-1) != self.input_size:
            raise ShapeError(
                f"input has shape {tuple(input.shape)}, needed (B, I), or (I,) without a batch axis, with "
                f"I = {self.input_size} (input_size)"
            )
        batched = input.dim() == 2
        x = input.unsqueeze(0) if batched else input.view(1, 1, -1)
        h_0 = c_0 = None
        if hx is not None:
            check_state(hx)
            hx = (under_autocast(hx[0]), under_autocast(hx[1]))
            sizes = {"B": input.size(0), "H": self.hidden_size} if batched else {"H": self.hidden_size}
            for name, state in zip(("h", "c"), hx, strict=True):
                check_numbers(name, state, weights[0])
                check_shape(name, state, **sizes)
            h_0, c_0 = (state.reshape(1, x.size(1), self.hidden_size) for state in hx)
        return x, h_0, c_0, weights, path_of(x, walked=False)
