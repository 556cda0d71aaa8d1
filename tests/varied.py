"""An LSTM of a changed cell, a call of it, and what it and the reference return."""

import numpy as np
import pytest
import torch

import gatewise
from cells import CASES, SINGLES
from gatewise import reference
from gatewise.nn.masks import draw_masks

H, I = 3, 2

every_case = pytest.mark.parametrize("options", CASES.values(), ids=CASES)
every_single = pytest.mark.parametrize("options", SINGLES.values(), ids=SINGLES)

MASKED = {
    "zoneout": {"zoneout": 0.5},
    "recurrent dropout": {"recurrent_dropout": 0.5},
    "variational dropout": {"variational_dropout": 0.5},
    "weight dropout": {"weight_dropout": 0.5},
}
every_mask = pytest.mark.parametrize("options", MASKED.values(), ids=MASKED)

# The reference and torch round the same few dozen operations a step in another order, over at most six steps.
ROUNDING = 1e-12


def make(options, **others):
    torch.manual_seed(0)
    lstm = gatewise.LSTM(I, H, **options, **others, dtype=torch.float64)
    with torch.no_grad():
        for parameter in lstm.parameters():  # larger than torch's, so that every slope is another
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return lstm.eval()


def masks_of(lstm, T=4, B=3):
    """What the module draws after `torch.manual_seed(7)`, in a call of T steps and B sequences."""
    torch.manual_seed(7)
    cells = lstm.num_layers * (2 if lstm.bidirectional else 1)
    masks = lstm.variant.masks(cells=cells, time=T, batch=B, hidden=H, width=lstm.proj_size or H)
    return draw_masks(masks, lstm.weight_hh_l0)


def call_of(lstm, T=4, B=3):
    """An input and a state for an LSTM, and the weights of a loss for each of its results."""
    draw = torch.Generator().manual_seed(1)
    rows, P = lstm.num_layers * (2 if lstm.bidirectional else 1), lstm.proj_size or H
    shapes = [(T, B, I), (T, B, P * (2 if lstm.bidirectional else 1)), (rows, B, P), *[(rows, B, H)] * 3]
    x, d_output, *state = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    state[2] = state[2].abs() + 1  # as large as a normalizer is
    state = tuple(state[: len(lstm.variant.states)])
    return x, state, (d_output, *(torch.randn(s.shape, generator=draw, dtype=torch.float64) for s in state))


def by_reference(lstm, x, state, walk):
    """The forward pass in NumPy, of a module in training with the masks of `masks_of`."""
    masks = {name: mask.numpy() for name, mask in masks_of(lstm).items()} if lstm.training else None
    return reference.forward(
        x.numpy(),
        {name: weight.detach().numpy() for name, weight in lstm.named_parameters()},
        **{f"{name}_0": s.numpy() for name, s in zip(lstm.variant.states, state, strict=True)},
        num_layers=lstm.num_layers,
        bidirectional=lstm.bidirectional,
        lengths=np.array(walk["lengths"]) if "lengths" in walk else None,
        reset=np.array(walk["reset"], bool) if "reset" in walk else None,
        variant=lstm.variant,
        masks=masks,
    )


def outcome(function, lstm, x, state, d_results, walk):
    """Results and every gradient, as one flat tuple."""
    leaves = [x.clone().requires_grad_(), *(s.clone().requires_grad_() for s in state)]
    walk = walk | ({"reset": torch.tensor(walk["reset"]).bool()} if "reset" in walk else {})
    torch.manual_seed(7)
    output, states = function(leaves[0], tuple(leaves[1:]), **walk)
    loss = sum((d * r).sum() for d, r in zip(d_results, (output, *states), strict=True))
    gradients = torch.autograd.grad(loss, [*leaves, *lstm.parameters()])
    return *(result.detach() for result in (output, *states)), *gradients


def gradients_of(lstm, run, d_results):
    """Those of the reference, by name."""
    d_output, *d_states = (d.numpy() for d in d_results)
    by_state = {f"d_{name}_n": d for name, d in zip(lstm.variant.states, d_states, strict=True)}
    found = reference.backward(run, d_output, **by_state)
    return {"x": found.d_x} | {f"{name}_0": d for name, d in found.d_initial.items()} | found.d_parameters
