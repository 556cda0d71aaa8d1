"""Gradients of gatewise.LSTM: numerically, again and again, of some alone, of gradients, and what they hold."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gatewise
from beside_torch import pair, relative


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize("batch_first", [True, False])
def test_gradcheck(layers, bidirectional, batch_first):
    torch.manual_seed(0)
    lstm = gatewise.LSTM(2, 3, layers, batch_first=batch_first, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    batch = 3 if batch_first else 2
    state = [torch.randn(layers * (1 + bidirectional), batch, 3, dtype=torch.float64, requires_grad=True) for _ in "hc"]
    names = [name for name, _ in lstm.named_parameters()]

    def function(x, h_0, c_0, *parameters):
        weights = dict(zip(names, parameters, strict=True))
        output, (h_n, c_n) = torch.func.functional_call(lstm, weights, (x, (h_0, c_0)))
        return output, h_n, c_n

    parameters = [p.detach().clone().requires_grad_() for p in lstm.parameters()]
    assert torch.autograd.gradcheck(function, (x, *state, *parameters))


def test_backward_twice_over_a_retained_graph():
    _, lstm = pair(4, 6, 2, bidirectional=True)
    output, _ = lstm(torch.randn(5, 3, 4))
    first = torch.autograd.grad(output.sum(), list(lstm.parameters()), retain_graph=True)
    second = torch.autograd.grad(output.sum(), list(lstm.parameters()), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_both_biases_keep_gradients_of_their_own():
    _, lstm = pair(4, 6)
    lstm(torch.randn(5, 3, 4))[0].sum().backward()
    before = lstm.bias_hh_l0.grad.clone()
    assert torch.equal(lstm.bias_ih_l0.grad, before)
    lstm.bias_ih_l0.grad.zero_()
    assert torch.equal(lstm.bias_hh_l0.grad, before)


def test_only_wanted_gradients():
    theirs, ours = pair(4, 6, 2)
    x = torch.randn(5, 3, 4)
    for lstm in (theirs, ours):
        for parameter in lstm.parameters():
            parameter.requires_grad_(False)
        lstm.weight_hh_l1.requires_grad_(True)
        lstm.bias_ih_l0.requires_grad_(True)
        lstm(x)[0].square().sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert relative(a.grad, b.grad) <= 1e-5, name


def test_changing_a_saved_tensor_in_place_is_noticed():
    _, lstm = pair(4, 6)
    output, _ = lstm(torch.randn(5, 3, 4))
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias", "batch_first"), [(1, False, True, False), (2, True, False, True)]
)
def test_gradients_of_gradients(layers, bidirectional, bias, batch_first):
    """By the composite; gradgradcheck differentiates the first gradients numerically, by the kernels."""
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, "dtype": torch.float64}
    torch.manual_seed(0)
    lstm = gatewise.LSTM(2, 3, layers, **options)
    names = [name for name, _ in lstm.named_parameters()]

    def function(x, h_0, c_0, *weights):
        output, state = torch.func.functional_call(lstm, dict(zip(names, weights, strict=True)), (x, (h_0, c_0)))
        return output, *state

    state = [torch.randn(layers * (1 + bidirectional), 3, 3, dtype=torch.float64, requires_grad=True) for _ in "hc"]
    x = torch.randn(*((3, 2) if batch_first else (2, 3)), 2, dtype=torch.float64, requires_grad=True)
    weights = [p.detach().requires_grad_() for p in lstm.parameters()]
    # Number by number in the small one; in the other, of hundreds of numbers, along directions drawn at random.
    assert torch.autograd.gradgradcheck(function, (x, *state, *weights), fast_mode=layers > 1)


def test_a_gradient_penalty_equals_torchs():
    """Only some gradients are asked for, some results are not used, and the graph is kept in between."""
    theirs, ours = pair(4, 6, 2)
    x, found = torch.randn(5, 3, 4), []
    for lstm in (theirs, ours):
        leaf = x.clone().requires_grad_()
        output = lstm(leaf)[0]
        (gradient,) = torch.autograd.grad(output.sum(), leaf, create_graph=True)
        (output.mean() + gradient.square().sum()).backward()
        found.append([leaf.grad, *(p.grad for p in lstm.parameters())])
    for expected, got in zip(*found, strict=True):
        assert relative(got, expected) <= 1e-5


def test_gradients_of_an_empty_batch_are_zero():
    lstm, cell = gatewise.LSTM(3, 8, 2, bidirectional=True), gatewise.LSTMCell(3, 8)
    lstm(torch.randn(5, 0, 3))[0].sum().backward()
    cell(torch.ones(0, 3))[0].sum().backward()
    for parameter in (*lstm.parameters(), *cell.parameters()):
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read the resident memory from")
def test_memory_of_a_long_sequence_is_given_back_after_many_short_ones():
    code = """
import gatewise, torch
torch.set_num_threads(1)

def step(lstm, T):
    lstm(torch.randn(T, 8, 16))[0].sum().backward()
    lstm.zero_grad()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

for short, proj_size in ((3, 0), (40, 0), (3, 60)):
    lstm = gatewise.LSTM(16, 64, proj_size=proj_size)
    step(lstm, short)
    before, after = step(lstm, 8000), [step(lstm, short) for _ in range(200)][-1]
    print(before - after)
"""
    freed = [float(line) for line in subprocess.check_output([sys.executable, "-c", code]).split()]
    assert len(freed) == 3
    assert min(freed) > 8000 * 8 * (4 * 64 + 64) * 4 / 2**20 * 0.9  # the gates and the cells
