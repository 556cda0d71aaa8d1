"""torch's operators for changed cells: what they promise to torch, what they refuse, and the states of an sLSTM."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from gatewise.nn.call import Call
from varied import ROUNDING, call_of, every_single, make, masks_of


def call_in(lstm, x, state, **walk):
    """The operator's arguments in a call of the module, with its masks, and without gradients."""
    masks = masks_of(lstm, *x.shape[:2]) if lstm.training else None
    h_0, *cells = state
    network = lstm.num_layers, lstm.bidirectional, False, walk.get("lengths"), walk.get("reset"), None
    weights = [weight.detach() for weight in lstm._weights()]
    return Call.of(x, h_0, torch.cat(cells, -1), weights, *network, variant=lstm.variant, masks=masks)


@every_single
def test_the_operators_keep_what_they_promise_to_torch(options):
    """As torch itself checks it, with the masks of a training call."""
    lstm = make(options, bidirectional=True).train()
    x, state, _ = call_of(lstm)
    forward = call_in(lstm, x, state, lengths=torch.tensor([4, 0, 3]))
    leaves = forward._replace(input=x.clone().requires_grad_(), weights=[w.requires_grad_() for w in forward.weights])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, tuple(leaves))
    forward = forward._replace(weights=[w.detach() for w in forward.weights])
    checks = ["test_schema", "test_faketensor"]
    torch.library.opcheck(torch.ops.gatewise.lstm_training.default, tuple(forward), test_utils=checks)
    output, _, _, kept = torch.ops.gatewise.lstm_training(*forward)
    wanted = [True, False, False] + [True] * len(forward.weights)
    backward = (torch.randn_like(output), None, None, *forward[:4], output, kept, *forward[4:], wanted)
    torch.library.opcheck(torch.ops.gatewise.lstm_backward.default, backward, test_utils=checks)


@pytest.mark.parametrize("record", [False, True])
def test_states_one_by_one_are_seen_by_who_stands_before_the_operators(record):
    lstm = make({"cell": "slstm"})
    x, state, _ = call_of(lstm)
    with torch.set_grad_enabled(record), FakeTensorMode(allow_non_fake_inputs=True):
        output, states = lstm(x, state)
    assert [type(each) for each in (output, *states)] == [FakeTensor] * 5
    assert [each.shape for each in states] == [each.shape for each in state]


def test_the_operator_refuses_what_the_core_would_read_past():
    lstm = make({"zoneout": 0.5, "variational_dropout": 0.5}).train()
    x, state, _ = call_of(lstm)
    call = call_in(lstm, x, state)
    lstm_operator = torch.ops.gatewise.lstm
    zoneout_h, zoneout_c, hidden = call.masks
    for change, says in (
        ({"masks": [zoneout_h, hidden]}, "there are 2 masks, needed 3 for this cell, or 1 in evaluation"),
        ({"masks": []}, "there are 0 masks, needed 3 for this cell, or 1 in evaluation"),
        (
            {"masks": [zoneout_h, zoneout_c[:, :3], hidden]},
            r"zoneout_c has shape \[1, 3, 3, 3\], needed \[L·D, T, B, H",
        ),
        (
            {"masks": [zoneout_h, zoneout_c, hidden[0]]},
            r"hidden has shape \[3, 3\], needed \[L·D, B, H\] = \[1, 3, 3\]",
        ),
        ({"masks": [zoneout_h.float(), zoneout_c, hidden]}, "zoneout_h is Float on cpu, needed a strided Double"),
        ({"cell": 2048}, "cell is 2048, needed from 0 to 2047"),
        ({"cell": 1 + 128}, "cell is 129, whose changes do not go together"),
        ({"cell": 3 << 8, "masks": []}, "cell is 768, whose changes do not go together"),
        ({"zoneout_h": 1.0}, "zoneout is 1 and 0.5, needed rates"),
        (
            {"cell": 2 + 128, "weights": call.weights[:2]},
            "there are 2 weights, needed 3, two more with biases and one more with a projection",
        ),
        ({"cell": 8 + 128}, "there are 4 weights, needed 5, three more with biases and one more with a projection"),
        ({"cell": 4 + 128}, r"weight_hh_l0 has shape \[12, 3\] and weight_ih_l0 \[12, 2\], needed \[3H, H\]"),
    ):
        with pytest.raises(RuntimeError, match=says):
            lstm_operator(*call._replace(**change))
    lstm = make({"coupled": True, "weight_dropout": 0.5}).train()
    x, state, _ = call_of(lstm)
    call = call_in(lstm, x, state)
    for masks, says in (
        ([], "there are 0 masks, needed 1 for this cell"),
        ([call.masks[0][:, :8]], r"weight_hh has shape \[1, 8, 3\], needed \[L·D, 3H, H\] = \[1, 9, 3\]"),
        ([call.masks[0].float()], "weight_hh is Float on cpu, needed a strided Double"),
    ):
        with pytest.raises(RuntimeError, match=says):
            lstm_operator(*call._replace(masks=masks))
    lstm = make({"cell": "slstm"})
    x, state, _ = call_of(lstm)
    call = call_in(lstm, x, state)
    with pytest.raises(RuntimeError, match=r"c_0 has shape \[1, 3, 3\], needed \[1, 3, 9\]"):
        lstm_operator(*call._replace(c_0=state[1]))
    lstm = make({"peephole": True})
    x, state, _ = call_of(lstm)
    call = call_in(lstm, x, state)
    weights = [*call.weights[:-1], call.weights[-1][:6]]
    with pytest.raises(RuntimeError, match=r"weight_ch_l0 has shape \[6\], needed \[9\]"):
        lstm_operator(*call._replace(weights=weights))


def test_states_of_an_slstm_one_by_one_are_those_of_one_tensor():
    # The module hands c, n and m to the kernels as they are, and the operator takes them as one tensor.
    lstm = make({"cell": "slstm"})
    x, state, (d_output, *d_states) = call_of(lstm)
    weights = list(lstm.parameters())
    leaves = [s.clone().requires_grad_() for s in state]
    output, states = lstm(x, tuple(leaves))
    whole = torch.cat(state[1:], dim=-1).requires_grad_()
    network = 1, False, False, None, None, None
    as_one = torch.ops.gatewise.lstm(x, state[0], whole, weights, *network, *lstm._codes.in_training, [])
    assert torch.equal(output, as_one[0])
    assert torch.equal(torch.cat(states[1:], dim=-1), as_one[2])
    # A loss of n alone, by n alone: the others' gradients are zeros that nobody made.
    (d_n,) = torch.autograd.grad((states[2] * d_states[2]).sum(), leaves[2], retain_graph=True)
    (d_whole,) = torch.autograd.grad((as_one[2].chunk(3, -1)[1] * d_states[2]).sum(), whole)
    assert torch.equal(d_n, d_whole.chunk(3, -1)[1])
    # Several gradients at once, of which the second is twice the first.
    both = torch.autograd.grad(output, leaves, torch.stack([d_output, 2 * d_output]), is_grads_batched=True)
    for one, two in both:
        np.testing.assert_allclose(two, 2 * one, rtol=ROUNDING, atol=ROUNDING)
