"""First weights of an LSTM other than torch's, which are all uniform within ±1/√H."""

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError


def orthogonal_(lstm: nn.Module) -> None:
    """Draw weights that neither shrink nor swell what they are given, and forget gates that begin open.

    Each gate's weight_ih is Xavier's, each gate's weight_hh orthogonal (Saxe et al. 2014), the forget gates' bias 1
    (Jozefowicz et al. 2015), all others 0.

    Parameters
    ----------
    lstm : gatewise.LSTM or torch.nn.LSTM
        Changed in place, all layers and directions.

    Raises
    ------
    ArgumentError
        It has projections, whose weight_hh are not square.

    Examples
    --------
    >>> lstm = nn.LSTM(3, 4)
    >>> orthogonal_(lstm)
    >>> recurrent = lstm.weight_hh_l0[:4]
    >>> torch.allclose(recurrent @ recurrent.T, torch.eye(4), atol=1e-6)
    True
    """
    if lstm.proj_size:
        raise ArgumentError(f"proj_size is {lstm.proj_size}, needed is 0: orthogonal weight_hh are square")
    for name, weight in lstm.named_parameters():
        if name.startswith("weight"):
            draw = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
            for gate in weight.chunk(4):
                draw(gate)
        else:
            nn.init.zeros_(weight)
            if name.startswith("bias_ih"):
                nn.init.ones_(_forget(weight))


def chrono_(lstm: nn.Module, longest: int) -> None:
    """Draw weights whose memories last, some units' as long as the sequences.

    Each gate's weights are Xavier's; the forget gates' biases are the logarithms of numbers from 1 to `longest` - 1,
    the input gates' the same below 0 (Tallec and Ollivier 2018, equation 16), all others 0.

    Parameters
    ----------
    lstm : gatewise.LSTM or torch.nn.LSTM
        Changed in place, all layers and directions.
    longest : int
        Steps that the longest memories shall last.

    Examples
    --------
    >>> lstm = nn.LSTM(3, 4)
    >>> chrono_(lstm, 100)
    >>> bool((lstm.bias_ih_l0[4:8] >= 0).all()), torch.equal(lstm.bias_ih_l0[:4], -lstm.bias_ih_l0[4:8])
    (True, True)
    """
    for name, weight in lstm.named_parameters():
        if name.startswith("weight"):
            for gate in weight.chunk(4):
                nn.init.xavier_uniform_(gate)
        else:
            nn.init.zeros_(weight)
            if name.startswith("bias_ih"):
                lasting = torch.empty_like(_forget(weight)).uniform_(1, max(2, longest - 1)).log()
                with torch.no_grad():
                    _forget(weight).copy_(lasting)
                    weight.chunk(4)[0].copy_(-lasting)


def _forget(bias: Tensor) -> Tensor:
    """The forget gate's part, the second of i, f, g, o."""
    return bias.chunk(4)[1]
