"""gatewise.LSTM and torch's own with the same weights, and how far apart their numbers are."""

import torch

import gatewise

# Outputs within 1e-6 and gradients within 1e-5, relative to the largest value, in
# float32 (both sides round; a gradient sums T * B terms); 1e-12 in float64.
TOLERANCE = {torch.float32: (1e-6, 1e-5), torch.float64: (1e-12, 1e-12)}


def pair(*args, dtype=torch.float32, **options):
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(*args, **options, dtype=dtype)
    ours = gatewise.LSTM(*args, **options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def relative(got, expected):
    got, expected = got.detach(), expected.detach()
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def results(lstm, x, state):
    """Outputs, and gradients of a loss that weighs every number of every output differently."""
    leaves = [t.clone().requires_grad_() for t in (x, *(state or ()))]
    output, (h_n, c_n) = lstm(leaves[0], tuple(leaves[1:]) or None)
    draw = torch.Generator().manual_seed(1)
    loss = sum((t * torch.randn(t.shape, generator=draw, dtype=t.dtype)).sum() for t in (output, h_n, c_n))
    gradients = torch.autograd.grad(loss, [*leaves, *lstm.parameters()])
    return [output, h_n, c_n], gradients
