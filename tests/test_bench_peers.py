"""Who stands beside gatewise in a benchmark: that it computes the same work."""

import math
import warnings

import pytest
import torch

from benching import TINY, one_thread  # noqa: F401 (a fixture of every test)
from gatewise.bench.ceiling import products
from gatewise.bench.check import difference, tolerance
from gatewise.bench.config import FORMS
from gatewise.bench.grid import GRID, Size
from gatewise.bench.peers import CellLoop, GateLoop, Gatewise, Torch
from gatewise.bench.run import PEERS as PEER_OBJECTS
from gatewise.bench.work import draw


@pytest.mark.parametrize("kind", ["forward", "training", "recorded"])
@pytest.mark.parametrize("peer", [Gatewise(), CellLoop(), GateLoop()], ids=lambda peer: peer.name)
@pytest.mark.parametrize("size", [TINY, Size(1, 1, 4, 4, 1, 1)], ids=str)
def test_peers_compute_what_torch_does(size, peer, kind):
    work = draw(size, "plain")
    expected, given = (p.calls(work)[kind].once() for p in (Torch(), peer))
    assert list(given) == list(expected)
    name, error = difference(expected, given)
    assert error < 1e-5, name
    if kind == "training":
        assert len(given) == 4 + 4 * size.L * size.D
        assert not any((gradient == 0).all() for gradient in given.values())


@pytest.mark.parametrize("kind", ["forward", "training"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_work_for_both(form, kind):
    work = draw(TINY, form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no oneDNN code for proj_size, and says so
        expected, given = (p.calls(work)[kind].once() for p in (Torch(), Gatewise()))
    assert [t.shape for t in given.values()] == [t.shape for t in expected.values()]
    assert {t.dtype for t in given.values()} == {work.dtype}
    assert difference(expected, given)[1] < tolerance(work.dtype)
    if form == "packed":
        assert work.steps < TINY.T * TINY.B
    else:
        assert work.steps == TINY.T * TINY.B


def test_the_same_work_each_time():
    state = torch.get_rng_state()
    first, second = (draw(TINY, "packed") for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.lstm.weight_hh_l1, second.lstm.weight_hh_l1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["onnxruntime", "jax"])
@pytest.mark.parametrize("size", [TINY, Size(2, 3, 4, 5, 1, 1)], ids=str)
def test_foreign_peers_where_they_are_installed(name, size):
    peer = PEER_OBJECTS[name]
    if peer.missing():
        pytest.skip(peer.missing())
    work = draw(size, "plain")
    calls = peer.calls(work)
    assert set(calls) == {kind for kind in ("forward", "training") if not peer.refuses("plain", kind)}
    for kind, call in calls.items():
        label, error = difference(Torch().calls(work)[kind].once(), call.once())
        assert error < 1e-5, label


def test_a_difference_is_found_wherever_it_is():
    expected = {"output": torch.ones(3), "d_x": torch.tensor([2.0, -4.0])}
    assert difference(expected, expected)[1] == 0
    assert difference(expected, expected | {"d_x": torch.tensor([2.0, -3.0])}) == ("d_x", 0.25)
    assert difference(expected, expected | {"d_x": torch.ones(3)}) == ("d_x", math.inf)
    assert difference(expected, {"output": torch.ones(3)}) == ("d_x", math.inf)
    assert difference(expected, expected | {"d_x": torch.tensor([math.nan, -4.0])}) == ("d_x", math.inf)


def test_the_products_are_the_layers_own():
    float32, bfloat16 = (products(GRID[5], 28 * 64, 100, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert [(p.m, p.k, p.n) for p in float32] == [(1024, 1024, 1024), (1792, 300, 400), (64, 100, 400)]
    assert len({p.label for p in bfloat16}) == 6
    float64 = products(GRID[5], 28 * 64, 100, torch.float64)
    assert {p.dtype for p in float64} == {torch.float64}  # float32's are no bound of it
