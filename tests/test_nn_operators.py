"""torch's operators under gatewise.LSTM: what they promise to torch, and what they refuse."""

import subprocess
import sys
import warnings

import pytest
import torch

import gatewise
from gatewise.errors import KernelError
from gatewise.reference.code import PLAIN_CODE


def test_weights_that_do_not_fit_are_refused():
    x = torch.ones(2, 1, 3)
    changes = {
        "weight_hh_l0": torch.zeros(16, 4, dtype=torch.float64),
        "weight_ih_l1": torch.zeros(16, 5),
        "bias_hh_l0": torch.zeros(1),
    }
    for name, value in changes.items():
        lstm = gatewise.LSTM(3, 4, 2)
        setattr(lstm, name, torch.nn.Parameter(value))
        with pytest.raises(RuntimeError, match=f"^{name} "):
            lstm(x)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_the_operators_keep_what_they_promise_to_torch(proj_size):
    """Schemas, shapes without numbers, autograd, and the compiler's view, as torch itself checks them."""
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True, proj_size=proj_size)
    weights = list(lstm.parameters())
    x, h_0, c_0 = (torch.randn(*s, requires_grad=True) for s in ((5, 2, 3), (4, 2, proj_size or 4), (4, 2, 4)))
    network = (2, True, False, None, None, None, *PLAIN_CODE, [])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (x, h_0, c_0, weights, *network))
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (x, None, None, weights, *network))
    reset = torch.tensor([[False, True], [True, False], [False] * 2, [True] * 2, [False] * 2])
    walk = (torch.tensor([3, 5]), reset, None, *PLAIN_CODE, [])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (x, h_0, c_0, weights, *network[:3], *walk))
    packed = (x.detach().flatten(0, 1)[:7].requires_grad_(), h_0, c_0, weights, *network[:3])
    batch_sizes = torch.tensor([2, 2, 2, 1])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (*packed, None, None, batch_sizes, *PLAIN_CODE, []))
    plain = [w.detach() for w in weights]
    forward = (x.detach(), None, None, plain, *network)
    # (test_aot_dispatch_dynamic compares results, and part of what is kept for backward is padding that nobody writes.)
    torch.library.opcheck(
        torch.ops.gatewise.lstm_training.default, forward, test_utils=["test_schema", "test_faketensor"]
    )
    output, h_n, _, kept = torch.ops.gatewise.lstm_training(*forward)
    backward = (
        torch.randn_like(output),
        h_n,
        None,
        *forward[:4],
        output,
        kept,
        *network,
        [True, False, False] + [True] * len(weights),
    )
    torch.library.opcheck(torch.ops.gatewise.lstm_backward.default, backward)


def test_jit_traces_hold_the_operator():
    lstm = gatewise.LSTM(3, 4).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that tracing is deprecated
        traced = torch.jit.trace(lstm, torch.randn(2, 1, 3))
    x = torch.randn(7, 5, 3)
    assert torch.equal(traced(x)[0], lstm(x)[0])


def test_shapes_without_numbers_and_a_default_device():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert gatewise.LSTM(3, 4)(torch.randn(2, 1, 3))[0].shape == (2, 1, 4)
    lstm, x = gatewise.LSTM(3, 4), torch.randn(2, 1, 3)
    expected = lstm(x)[0]
    with torch.device("meta"):
        assert torch.equal(lstm(x)[0], expected)


@pytest.mark.parametrize("options", [{}, {"peephole": True}, {"cell": "slstm"}], ids=str)
def test_tensors_of_two_devices_are_refused(options):
    # torch sends a call with a tensor of shapes alone to where shapes are computed, which has no numbers to give.
    lstm, x = gatewise.LSTM(3, 4, **options), torch.randn(5, 2, 3)
    state = (torch.zeros(1, 2, 4, device="meta"),) * len(lstm.variant.states)
    with pytest.raises(KernelError, match="h_0 is on meta and the weights are on cpu"):
        lstm(x, state)
    lstm.weight_hh_l0 = torch.nn.Parameter(lstm.weight_hh_l0.to("meta"))
    with pytest.raises(KernelError, match="on cpu and meta, needed on one device"):
        lstm(x)


def test_kernels_are_found_in_gatewise_alone():
    code = "import gatewise\nwith gatewise.kernels.using('baseline'): print(gatewise.kernels.instruction_set())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "baseline"


@pytest.mark.skipif(len(gatewise.kernels.available()) < 2, reason="one instruction set alone")
def test_a_backward_by_another_instruction_set_is_refused():
    lstm = gatewise.LSTM(3, 4)
    other = next(isa for isa in gatewise.kernels.available() if isa != gatewise.kernels.instruction_set())
    output, _ = lstm(torch.zeros(5, 2, 3))
    compiled = torch.compile(lstm, backend="aot_eager")(torch.zeros(5, 2, 3))[0]
    trace = gatewise.trace(lstm, torch.zeros(5, 2, 3))
    for read in (output.sum().backward, compiled.sum().backward, lambda: trace.layer(0).i):
        with (
            gatewise.kernels.using(other),
            pytest.raises(RuntimeError, match=f"forward ran by .* read by {other}: use"),
        ):
            read()


def test_backward_refuses_what_no_forward_has_kept():
    weights = [torch.zeros(16, 3), torch.zeros(16, 4)]
    call = torch.zeros(5, 2, 3), None, None, weights, 1, False, False, None, None, None, *PLAIN_CODE, []
    output, _, _, kept = torch.ops.gatewise.lstm_training(*call)
    for wrong, says in (
        ([], "kept are 0 tensors, needed 1"),
        ([kept[0][:-1]], "kept has .* numbers, needed the"),
        ([torch.full_like(kept[0], -1)], "kept is not what gatewise::lstm_training has kept"),
    ):
        with pytest.raises(RuntimeError, match=says):
            torch.ops.gatewise.lstm_backward(output, None, None, *call[:4], output, wrong, *call[4:], [True] * 5)


@pytest.mark.parametrize("H", [1, 4])
def test_tensors_whose_sign_is_turned_when_they_are_read(H):
    ours = gatewise.LSTM(1, H).double()
    torchs = torch.nn.LSTM(1, H).double()
    torchs.load_state_dict(ours.state_dict())

    def turned(*shape):
        draw = torch.Generator().manual_seed(len(shape))
        x = torch.randn(shape, dtype=torch.complex128, generator=draw).conj().imag
        assert x.is_neg()
        return x

    found = []
    for lstm in (ours, torchs):
        output, (h_n, c_n) = lstm(turned(5, 2, 1), (turned(1, 2, H), turned(1, 2, H)))
        torch.autograd.backward([output, h_n, c_n], [turned(5, 2, H), turned(1, 2, H), turned(1, 2, H)])
        found.append([output.detach(), *(weight.grad for weight in lstm.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_several_gradients_at_once_have_no_graph_of_their_own():
    lstm, x = gatewise.LSTM(3, 4), torch.zeros(5, 2, 3, requires_grad=True)
    output = lstm(x)[0]
    seeds = torch.ones(2, *output.shape)
    with pytest.raises(NotImplementedError, match="create_graph asks for one: take one gradient after another"):
        torch.autograd.grad(output, x, seeds, is_grads_batched=True, create_graph=True)
