"""torch's LSTM as gatewise's: the same weights, our kernels."""

from __future__ import annotations

from torch import nn

from gatewise.errors import ArgumentError
from gatewise.nn import LSTM


def twin_of(module: nn.Module) -> LSTM:
    """Give an LSTM that computes what a module does, with the very tensors that are its weights.

    Parameters
    ----------
    module : gatewise.LSTM or torch.nn.LSTM
        The first is its own twin.

    Raises
    ------
    ArgumentError
        It is neither.

    Examples
    --------
    >>> theirs = nn.LSTM(4, 3)
    >>> twin_of(theirs).weight_hh_l0 is theirs.weight_hh_l0
    True
    """
    if isinstance(module, LSTM):
        return module
    if not isinstance(module, nn.LSTM):
        raise ArgumentError(
            f"lstm is a {type(module).__name__}, needed a gatewise.LSTM or a torch.nn.LSTM: for one inside a model use "
            "gatewise.record(model)"
        )
    twin = LSTM(
        module.input_size,
        module.hidden_size,
        module.num_layers,
        module.bias,
        module.batch_first,
        module.dropout,
        module.bidirectional,
        module.proj_size,
        device="meta",
    )
    for name in module._flat_weights_names:  # parametrized ones are computed anew, and are no Parameters
        del twin._parameters[name]
        twin.__dict__[name] = getattr(module, name)
    return twin.train(module.training)
