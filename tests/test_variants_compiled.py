"""Changed cells through torch's compiler."""

import pytest
import torch
import torch.utils.checkpoint

import gatewise
from cells import SINGLES
from compare import assert_same
from varied import MASKED, ROUNDING, H, I, call_of, every_case, every_mask, make, outcome


@every_case
def test_compiled(options):
    torch.compiler.reset()
    lstm = make(options).train()
    x, state, d_results = call_of(lstm, T=1)
    compiled = torch.compile(lstm, fullgraph=True, backend="aot_eager" if options in SINGLES.values() else "eager")
    expected = outcome(lstm, lstm, x, state, d_results, {})
    assert_same(outcome(compiled, lstm, x, state, d_results, {}), expected, tolerance=ROUNDING)


@every_mask
def test_two_compiled_calls_draw_two_masks(options):
    """They are the same operation of the same numbers, which a compiler might do once."""
    torch.compiler.reset()
    lstm = gatewise.LSTM(I, H, dtype=torch.float64, **options)

    def twice(x):
        return torch.cat([lstm(x)[0], lstm(x)[0]])

    x = torch.randn(2, 3, I, dtype=torch.float64)
    found = []
    for function in (twice, torch.compile(twice, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(3)
        y = function(x)
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), lstm.weight_hh_l0)[0]))
    assert_same(found[1], found[0], tolerance=ROUNDING)
    assert not torch.equal(*found[1][0].chunk(2))


@every_mask
def test_what_is_compiled_and_computed_anew_has_the_same_masks_again(options):
    torch.compiler.reset()
    lstm = gatewise.LSTM(I, H, dtype=torch.float64, **options)

    def anew(x):
        return torch.utils.checkpoint.checkpoint(lambda x: lstm(x)[0], x, use_reentrant=False)

    x = torch.randn(2, 3, I, dtype=torch.float64)
    found = []
    for function in (lambda x: lstm(x)[0], torch.compile(anew, backend="aot_eager")):
        torch.manual_seed(3)
        y = function(x)
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), lstm.weight_hh_l0)[0], torch.get_rng_state()))
    assert_same(found[1][:2], found[0][:2], tolerance=ROUNDING)
    assert torch.equal(found[1][2], found[0][2])


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # of the compiler itself
def test_torchs_own_compiler_draws_the_same_masks():
    """It has a generator of its own for the operations that it knows."""
    torch.compiler.reset()
    options = {name: value for each in MASKED.values() for name, value in each.items()}
    lstm = gatewise.LSTM(I, H, dtype=torch.float64, **options)
    x, found = torch.randn(1, 3, I, dtype=torch.float64), []
    scalars = {"cpp.vec_isa_ok": False}  # or it compiles programs of its own to see which vectors this machine has
    for function in (lstm, torch.compile(lstm, fullgraph=True, options=scalars)):
        torch.manual_seed(3)
        y = function(x)[0]
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), lstm.weight_hh_l0)[0]))
    assert_same(found[1], found[0], tolerance=ROUNDING)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")  # which is deprecated, and in use
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of each size that is checked
@pytest.mark.parametrize("options", [{"cell": "slstm", "weight_dropout": 0.5}, {"zoneout": 0.5}], ids=str)
def test_a_traced_module_draws_anew_and_takes_other_states(options):
    lstm = make(options).train()
    x, state, _ = call_of(lstm)
    traced = torch.jit.trace(lstm, (x, state), check_trace=False)
    for other in (state, tuple(each + 0.1 for each in state)):
        for seed in (1, 2, 3):
            found = []
            for call in (lstm, traced):
                torch.manual_seed(seed)
                found.append(call(x, other)[0])
            assert torch.equal(*found)
