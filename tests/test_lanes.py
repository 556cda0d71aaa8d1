"""Lanes, and a state that is carried from chunk to chunk: gradients, resumption, what is read when."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from gatewise import LSTM
from gatewise.errors import ArgumentError
from gatewise.train.carried import through
from gatewise.train.config import TrainConfig
from gatewise.train.lanes import NO_TARGET, Lanes, Track
from gatewise.train.runner import Runner
from gatewise.train.samples import Batch


class Reader(nn.Module):
    """Numbers to numbers, with the state of the steps before."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.lstm = LSTM(2, 5, num_layers=2, batch_first=True, dtype=dtype)
        self.linear = nn.Linear(5, 1, dtype=dtype)

    def forward(self, x, *rest):
        *begins, state = rest
        output, state = self.lstm(x, state, reset=begins[0] if begins else None)
        return self.linear(output), state


def a_track(steps, begins=(), dtype=np.float64, seed=0):
    draws = np.random.default_rng(seed)
    resets = np.isin(np.arange(steps), begins) if begins else None
    return Track(draws.normal(size=(steps, 2)).astype(dtype), draws.normal(size=(steps, 1)).astype(dtype), resets)


def order(seed=0):
    return torch.Generator().manual_seed(seed)


def gradients(model, batches):
    """Of the sum of the squared errors, chunk by chunk with the state carried."""
    model.zero_grad()
    state, outputs = None, []
    for batch in batches:
        found, state = through(model, batch, state)
        outputs.append(found.detach())
        mse_loss(found, batch.targets, reduction="sum").backward()
    return torch.cat(outputs, dim=1), [p.grad.clone() for p in model.parameters()]


def uncut(model, track, lanes):
    model.zero_grad()
    x, y = (torch.from_numpy(a).reshape(lanes, -1, a.shape[-1]) for a in (track.inputs, track.targets))
    begins = [] if track.begins is None else [torch.from_numpy(track.begins).reshape(lanes, -1)]
    outputs, _ = model(x, *begins, None)
    mse_loss(outputs, y, reduction="sum").backward()
    return outputs.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("begins", [(), (7, 16, 29)])
@pytest.mark.parametrize("k1", [1, 3, 4, 12, 20])
def test_gradients_through_the_whole_length_are_those_of_the_uncut_sequence(k1, begins):
    torch.manual_seed(0)
    model, track = Reader(), a_track(36, begins)
    whole, wanted = uncut(model, track, 3)
    found, got = gradients(model, Lanes(track, (k1, max(k1, 12))).batches(3, order()))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-15)  # (the linear layer adds up in an order of its own)
    # float64 sums of 36 steps in another order: some 1e-15 each, beside gradients of about 1
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-12)


def test_gradients_stop_where_k2_says():
    torch.manual_seed(1)
    model, track = Reader(), a_track(8)
    _, got = gradients(model, Lanes(track, (2, 4)).batches(1, order()))

    model.zero_grad()  # the same by hand: windows of 4 steps, of which the last 2 count, from a detached state
    x, y = (torch.from_numpy(a)[None] for a in (track.inputs, track.targets))
    for start, fresh, end in ((0, 0, 2), (0, 2, 4), (2, 4, 6), (4, 6, 8)):
        state = None
        if start:
            _, state = model(x[:, :start], None)
            state = tuple(s.detach() for s in state)
        outputs, _ = model(x[:, start:end], state)
        mse_loss(outputs[:, fresh - start :], y[:, fresh:end], reduction="sum").backward()
    torch.testing.assert_close(got, [p.grad for p in model.parameters()], rtol=1e-11, atol=1e-12)
    assert not torch.allclose(got[0], uncut(model, track, 1)[1][0], rtol=1e-3)


def test_no_state_comes_over_where_another_sequence_begins():
    torch.manual_seed(2)
    model, track = Reader(), a_track(10, (4,))
    found, _ = gradients(model, Lanes(track, (4, 4)).batches(1, order()))
    alone, _ = model(torch.from_numpy(track.inputs[4:])[None], torch.zeros(1, 6, dtype=torch.bool), None)
    torch.testing.assert_close(found[:, 4:], alone.detach(), rtol=0, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 90),
    size=st.integers(1, 7),
    chunks=st.one_of(st.tuples(st.integers(1, 9), st.integers(0, 20)), st.just("random")),
    length=st.integers(1, 20),
    first=st.integers(0, 4),
)
def test_each_step_is_learned_from_once_and_read_in_order(steps, size, chunks, length, first):
    chunks = chunks if chunks == "random" else (chunks[0], sum(chunks))
    lanes = Lanes(Track(np.arange(steps), np.arange(steps)), chunks, length)
    whole = list(lanes.batches(size, order()))
    assert len(whole) == lanes.steps(size)
    for batches in (whole, list(lanes.batches(size, None))):
        seen = torch.cat([batch.targets.flatten() for batch in batches])
        assert sorted(seen[seen != NO_TARGET].tolist()) == list(range(steps))
        assert sum(batch.count for batch in batches) == steps == len(lanes)
        for batch, following in pairwise(batches):
            begins = batch.inputs[0][0, 0] + batch.hand_on
            assert batch.hand_on <= batch.inputs[0].shape[1]
            assert following.inputs[0][0, 0] == begins
        for batch in batches:
            new = batch.targets.shape[1]
            targets, own = batch.targets, batch.inputs[0][:, -new:]
            assert own[targets != NO_TARGET].equal(targets[targets != NO_TARGET])
    later = list(lanes.batches(size, order(), first))
    for batch, again in zip(whole[first:], later, strict=True):
        assert batch.inputs[0].equal(again.inputs[0]) and batch.hand_on == again.hand_on and batch.rate == again.rate


def test_random_chunks_are_other_ones_in_each_epoch_and_weigh_by_their_length():
    lanes, draws = Lanes(Track(np.arange(3000), np.arange(3000)), "random", length=30, seed=5), order()
    first, second = ([batch.targets.shape[1] for batch in lanes.batches(1, draws)] for _ in range(2))
    assert sorted(first) == sorted(second) and first != second
    assert 25 < np.mean(first) < 32 and np.std(first) > 3
    assert [batch.rate for batch in lanes.batches(1, order())] == [length / 30 for length in first]
    assert all(batch.rate == 1 for batch in lanes.batches(1, None))


def trained(chunks, stop_after=None, resume=None):
    """The weights after two epochs, or what is kept after some steps."""
    torch.manual_seed(3)
    config = TrainConfig(epochs=2, batch_size=3, learning_rate=0.01, eval_batch_size=2)
    model = Reader(torch.float32)
    runner = Runner(model, mse_loss, config, carries=True)
    lanes = Lanes(a_track(60, (11, 31), np.float32), chunks, length=4, seed=1)
    if resume is not None:
        runner.restore(*resume, "the checkpoint")

    class Stops:
        start = evaluation = staticmethod(lambda *args: None)

        def step(self, runner):
            if runner.progress.step == stop_after:
                runner.stop()

    runner.train(lanes, {"dev": lanes}, [Stops()])
    return runner


@pytest.mark.parametrize("chunks", [(4, 4), (3, 7), "random"])
def test_a_training_goes_on_bit_for_bit_with_the_state_that_it_carried(chunks):
    through_ = trained(chunks)
    for stop_after in (2, 5, through_.steps_an_epoch, through_.steps_an_epoch + 3):
        tensors, kept = trained(chunks, stop_after).state()
        assert "carried.0" in tensors and "carried.1" in tensors
        again = trained(chunks, resume=({name: t.clone() for name, t in tensors.items()}, kept))
        assert again.history.step_losses == through_.history.step_losses
        for one, other in zip(again.model.parameters(), through_.model.parameters(), strict=True):
            assert one.equal(other)


def test_an_evaluation_reads_from_a_fresh_state_in_any_chunks():
    runner = trained((4, 4), stop_after=3)
    track = a_track(60, (11, 31), np.float32)
    carried = [tensor.clone() for tensor in runner.state()[0].values()]
    scores = [runner.evaluate(Lanes(track, (4, 4), length)).loss for length in (1, 7, 60)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-5)
    assert all(one.equal(other) for one, other in zip(carried, runner.state()[0].values(), strict=True))


def test_the_learning_rate_follows_the_batch():
    model = nn.Linear(1, 1)
    config = TrainConfig(optimizer="sgd", learning_rate=0.5, epochs=1)
    runner = Runner(model, mse_loss, config)
    runner.steps_an_epoch = 1
    runner._step(Batch(torch.arange(1), (torch.ones(1, 1),), torch.ones(1, 1), 1, rate=0.25))
    assert runner.optimizer.param_groups[0]["lr"] == 0.125


def test_a_step_that_is_left_out_leaves_no_state_that_is_not_finite():
    track = a_track(12)
    track.inputs[5] = np.inf
    config = TrainConfig(epochs=1, batch_size=1, nonfinite="skip")
    model = Reader()
    runner = Runner(model, mse_loss, config, carries=True)
    runner.train(Lanes(track, (4, 4)))
    assert runner.progress.skipped == 1 and runner.progress.step == 3
    assert all(p.isfinite().all() for p in model.parameters())


def test_what_does_not_go_together_is_refused():
    track = Track(np.arange(3), np.arange(3))
    with pytest.raises(ArgumentError, match="there are 3 inputs and 2 targets"):
        Track(np.arange(3), np.arange(2))
    for chunks in ((0, 3), (4, 3)):
        with pytest.raises(ArgumentError, match="needed is at least 1 and no fewer"):
            Lanes(track, chunks)
    with pytest.raises(ArgumentError, match="chunks are 0 steps long"):
        Lanes(track, "random", length=0)
    with pytest.raises(ArgumentError, match="accumulate is 2, needed is 1 where the state is carried"):
        Runner(Reader(), cross_entropy, TrainConfig(accumulate=2), carries=True)
