"""Recurrent networks step by step in torch's operations, for tests of what is said about their gradients."""

import itertools

import torch
from torch import nn

import gatewise

# Gradients of numbers around 1 over a dozen steps in float64.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
T, B, I, H = 6, 3, 4, 5
KINDS = {"lstm": gatewise.LSTM, "torch lstm": nn.LSTM, "gru": nn.GRU, "srn": nn.RNN}


def step_by_step(module, x, hx=None, lengths=None, reset=None, cut_h=False):
    """The same in torch's operations, step by step: output, states, and of each layer, direction and step (a, c, h).

    With `cut_h` the gates do not hand a gradient on to the h that they read.
    """
    states, x_l, all_h_n, all_c_n = {}, x, [], []
    directions = 2 if module.bidirectional else 1
    lengths = torch.full((x.size(1),), x.size(0)) if lengths is None else torch.as_tensor(lengths)
    taken = torch.arange(x.size(0))[:, None] < lengths
    for layer, direction in itertools.product(range(module.num_layers), range(directions)):
        suffix = f"_l{layer}" + "_reverse" * direction
        weight = lambda name, suffix=suffix: getattr(module, name + suffix, None)  # noqa: E731
        if direction == 0:
            outputs, x_l = [], x_l if layer == 0 else torch.cat(below, dim=-1)  # noqa: F821
        h = x.new_zeros(x.size(1), weight("weight_hh").size(1)) if hx is None else hx[0][layer * directions + direction]
        c = x.new_zeros(x.size(1), module.hidden_size) if hx is None else hx[1][layer * directions + direction]
        output = [None] * x.size(0)
        for t in range(x.size(0)) if direction == 0 else reversed(range(x.size(0))):
            if reset is not None:
                at = t + direction
                cut = reset[at] & taken[at] if at < x.size(0) else torch.zeros(x.size(1)).bool()
                h, c = (torch.where(cut[:, None], 0, state) for state in (h, c))
            read = h.detach() if cut_h else h
            from_x = x_l[t] @ weight("weight_ih").T + weight("bias_ih")
            from_h = read @ weight("weight_hh").T + weight("bias_hh")
            a = from_x + from_h
            if isinstance(module, (gatewise.LSTM, nn.LSTM)):
                i, f, g, o = a.chunk(4, dim=1)
                i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
                c_next = f * c + i * g
                c_next.retain_grad()
                h_next = o * c_next.tanh()
                if weight("weight_hr") is not None:
                    h_next = h_next @ weight("weight_hr").T
            else:
                c_next = c
                if isinstance(module, nn.GRU):
                    r, z = (from_x + from_h)[:, : 2 * H].sigmoid().chunk(2, dim=1)
                    n = (from_x[:, 2 * H :] + r * from_h[:, 2 * H :]).tanh()
                    h_next = (1 - z) * n + z * h
                else:
                    h_next = a.relu() if module.nonlinearity == "relu" else a.tanh()
            for tensor in (a, h_next):
                tensor.retain_grad()
            now = taken[t, :, None]
            h, c = torch.where(now, h_next, h), torch.where(now, c_next, c)
            states[layer, direction, t] = a, c_next, h_next
            output[t] = torch.where(now, h_next, 0)
        outputs.append(torch.stack(output))
        below = outputs
        all_h_n.append(h)
        all_c_n.append(c)
    return torch.cat(below, dim=-1), (torch.stack(all_h_n), torch.stack(all_c_n)), states


def grad_of(tensor):
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def made(kind, **options):
    torch.manual_seed(1)
    return KINDS[kind](I, H, **options).double()


def some_loss(kind, which):
    """A loss of output and states that weighs all of their numbers differently."""

    def loss(returned):
        output, states = returned
        h_n, c_n = states if isinstance(states, tuple) else (states, None)
        weighted = lambda x: (x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).reshape(x.shape)).sum()  # noqa: E731
        if which == "last":
            return weighted(output[-1])
        if which == "all":
            return weighted(output).tanh()
        return weighted(h_n) + (2 * weighted(c_n) if "lstm" in kind else 0)

    return loss


def cell_that_keeps(f, **options):
    """An LSTM whose forget gates are f, and whose h no gate reads."""
    lstm = gatewise.LSTM(I, H, **options).double()
    with torch.no_grad():
        lstm.weight_hh_l0.zero_()
        lstm.weight_ih_l0.zero_()
        lstm.gates().f.bias_ih.fill_(torch.logit(torch.tensor(f, dtype=torch.float64)))
        lstm.gates().f.bias_hh.zero_()
    return lstm
