"""gatewise's modules under torch.func, forward mode, torch.compile and torch.export."""

import io
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

import gatewise
from compare import assert_same
from gatewise.reference.code import PLAIN_CODE

# torch.func's derivatives script some of torch's own functions, and torch says that scripting is deprecated.
scripts = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


@scripts
def test_functorch():
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
    x, parameters = torch.randn(5, 2, 3, dtype=torch.float64), dict(lstm.named_parameters())
    expected = lstm(x)[0]
    assert_same(vmap(lambda one: lstm(one)[0], in_dims=1, out_dims=1)(x), expected)

    def loss(parameters, x):
        return functional_call(lstm, parameters, (x,))[0].square().sum()

    expected.square().sum().backward()
    gradients = grad(loss)(parameters, x)
    per_sample = vmap(grad(loss), in_dims=(None, 1))(parameters, x[:, :, None])
    for name, parameter in parameters.items():
        assert_same(gradients[name], parameter.grad, name)
        assert_same(per_sample[name].sum(0), parameter.grad, name)
    tangent = torch.randn_like(x)
    _, along = jvp(lambda x: lstm(x)[0], (x,), (tangent,))
    difference = (lstm(x + 1e-6 * tangent)[0] - lstm(x - 1e-6 * tangent)[0]) / 2e-6
    assert_same(along, difference, tolerance=1e-8)  # what central differences leave
    cell = gatewise.LSTMCell(3, 4, dtype=torch.float64)
    assert_same(vmap(lambda x: cell(x)[0])(x[0]), cell(x[0])[0])


@scripts
def test_transforms_of_what_is_compiled_or_mapped_backward():
    lstm, x = gatewise.LSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    theirs = nn.LSTM(3, 4)
    theirs.load_state_dict(lstm.state_dict())
    outputs = [module(x)[0] for module in (lstm, theirs)]
    several = torch.randn(3, *outputs[0].shape)
    ours, expected = (torch.autograd.grad(y, x, several, is_grads_batched=True, retain_graph=True)[0] for y in outputs)
    assert_same(ours, expected)
    zeros = torch._efficientzerotensor(outputs[0].shape)
    assert not torch.autograd.grad(outputs[0], x, zeros)[0].any()
    torch._dynamo.reset()
    mapped = torch.compile(vmap(lambda y: lstm(y)[0]), backend="aot_eager")
    many = torch.randn(3, 5, 2, 3)
    assert_same(mapped(many), vmap(lambda y: lstm(y)[0])(many))


@scripts
def test_forward_mode_is_right_or_refused():
    lstm, x = gatewise.LSTM(3, 4), torch.randn(5, 2, 3)

    def along(run):
        return jvp(run, (x,), (torch.ones_like(x),))[1]

    torch._dynamo.reset()
    compiled = torch.compile(lambda: along(lambda z: lstm(z)[0]), backend="eager")
    assert_same(compiled(), along(lambda z: lstm(z)[0]))
    operator = torch.ops.gatewise.lstm
    network = (lstm._weights(), 1, False, False, None, None, None, *PLAIN_CODE, [])
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        along(lambda z: operator(z, None, None, *network)[0])


@scripts
def test_forward_mode_derivatives():
    lstm, x = gatewise.LSTM(3, 4, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: lstm(x)[0], x, check_forward_ad=True, fast_mode=True)


class Tagger(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.lstm = gatewise.LSTM(3, 4, 2, **options)
        self.linear = nn.Linear((self.lstm.proj_size or 4) * (1 + self.lstm.bidirectional), 2)

    def forward(self, x, hx=None, **walk):
        return self.linear(self.lstm(x.tanh(), hx, **walk)[0])


@pytest.mark.parametrize(("dynamic", "proj_size"), [(None, 0), (True, 0), (True, 2)])
def test_compiled_whole_with_dynamic_batch_and_time(dynamic, proj_size):
    torch._dynamo.reset()
    model = Tagger(bidirectional=True, proj_size=proj_size)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for T, B in ((5, 2), (7, 3), (2, 9)):
        x = torch.randn(T, B, 3, requires_grad=True)
        expected = model(x)
        (wanted,) = torch.autograd.grad(expected.square().sum(), x)
        got = compiled(x)
        assert_same(got, expected)
        assert_same(torch.autograd.grad(got.square().sum(), x)[0], wanted)


def test_compiled_with_states_lengths_and_resets():
    torch._dynamo.reset()
    model = Tagger(batch_first=True)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for B, T in ((3, 6), (5, 4)):
        x, hx = torch.randn(B, T, 3), (torch.randn(2, B, 4), torch.randn(2, B, 4))
        walk = {"lengths": torch.randint(0, T + 1, (B,)), "reset": torch.rand(B, T) < 0.3}
        got, expected = compiled(x, hx, **walk), model(x, hx, **walk)
        assert_same(got, expected)
        weight = model.lstm.weight_hh_l0
        assert_same(*(torch.autograd.grad(y.square().sum(), weight)[0] for y in (got, expected)))


def test_compiled_in_bfloat16_however_it_is_called():
    torch._dynamo.reset()
    narrow, wide = gatewise.LSTM(3, 4, dtype=torch.bfloat16), gatewise.LSTM(3, 4, 2, dropout=0.5)
    x, lengths = torch.randn(5, 2, 3), torch.tensor([2, 5])

    def under_autocast(x):
        with torch.autocast("cpu", torch.bfloat16):
            return wide.eval()(x)[0]

    calls = (
        lambda x: narrow(x.bfloat16(), lengths=lengths)[0],
        lambda x: narrow(x[:, 0].bfloat16())[0],
        under_autocast,
    )
    for call in calls:
        assert_same(torch.compile(call, fullgraph=True, backend="eager")(x), call(x), tolerance=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_cell(dtype):
    torch._dynamo.reset()
    cell = gatewise.LSTMCell(3, 4, dtype=dtype)
    x = torch.randn(2, 3, dtype=dtype)
    assert_same(torch.compile(cell, fullgraph=True, backend="aot_eager")(x), cell(x), tolerance=1e-9)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_with_dynamic_batch_and_time(strict):
    model = Tagger(bidirectional=True).eval()
    sizes = {0: torch.export.Dim("T", min=2), 1: torch.export.Dim("B", min=2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own ways
        program = torch.export.export(model, (torch.randn(5, 4, 3),), dynamic_shapes={"x": sizes}, strict=strict)
        with io.BytesIO() as file:
            torch.export.save(program, file)
            file.seek(0)
            program = torch.export.load(file)
    for shape in ((5, 4, 3), (9, 2, 3), (2, 7, 3)):
        x = torch.randn(*shape)
        assert_same(program.module()(x), model(x))
