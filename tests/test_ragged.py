"""Batches of similar length: each sequence once, padding that nothing sees, parts that add up to the whole."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from gatewise.errors import ArgumentError
from gatewise.tasks.labelling import Labeller, right_share, tagging_loss
from gatewise.train.config import TrainConfig
from gatewise.train.lanes import NO_TARGET
from gatewise.train.parallel import Together
from gatewise.train.ragged import POOL, Ragged
from gatewise.train.runner import Runner

some_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=120)


def some(lengths, per_step=False, seed=0, classes=3):
    """Sequences whose steps all differ."""
    draws = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    inputs = torch.arange(count)[:, None] / count + torch.randn(count, 2, generator=draws)
    targets = torch.randint(classes, (count if per_step else len(lengths),), generator=draws)
    return Ragged(inputs, torch.tensor(lengths), targets, per_step)


def order(seed=0):
    return torch.Generator().manual_seed(seed)


def sequence(samples, place):
    start = int(samples.lengths[:place].sum())
    return slice(start, start + int(samples.lengths[place]))


@settings(deadline=None, max_examples=50)
@given(some_lengths, st.integers(1, 9), st.integers(0, 2), st.booleans())
def test_each_sequence_comes_once(lengths, size, seed, per_step):
    samples = some(lengths, per_step)
    for draws in (None, order(seed)):
        batches = list(samples.batches(size, draws))
        assert len(batches) == samples.steps(size)
        assert sorted(torch.cat([batch.places for batch in batches]).tolist()) == list(range(len(lengths)))
        assert sorted(len(batch.places) for batch in batches)[1:] == [size] * (len(batches) - 1)
        assert sum(batch.count for batch in batches) == len(samples) == len(lengths)
        for batch in batches:
            x, own = batch.inputs
            assert own.tolist() == [lengths[place] for place in batch.places]
            assert x.shape[1] == max(own)  # never longer than its own longest
            for row, place in enumerate(batch.places.tolist()):
                there = sequence(samples, place)
                assert torch.equal(x[row, : own[row]], samples.inputs[there])
                assert not x[row, own[row] :].any()
                if per_step:
                    assert torch.equal(batch.targets[row, : own[row]], samples.targets[there])
                    assert (batch.targets[row, own[row] :] == NO_TARGET).all()
                else:
                    assert batch.targets[row] == samples.targets[place]


def places(samples, size, draws, first=0):
    return [batch.places.tolist() for batch in samples.batches(size, draws, first)]


@settings(deadline=None, max_examples=30)
@given(some_lengths, st.integers(1, 9), st.integers(0, 20))
def test_an_epoch_goes_on_from_any_batch_and_the_next_is_another(lengths, size, first):
    samples = some(lengths)
    draws, again = order(), order()
    whole = places(samples, size, draws)
    assert places(samples, size, again, first) == whole[first:]
    assert torch.equal(draws.get_state(), again.get_state())  # however much was left out
    if len(whole) > 6:
        assert places(samples, size, draws) != whole


def test_batches_are_of_similar_length_and_no_batch_is_always_the_small_one():
    lengths = torch.randint(1, 1000, (POOL * 8 * 4 - 3,), generator=order()).tolist()
    samples = some(lengths)

    def work(batches):
        return sum(batch.inputs[0].shape[0] * batch.inputs[0].shape[1] for batch in batches)

    steps = sum(lengths)
    assert work(samples.batches(8, None)) < 1.06 * steps
    assert work(samples.batches(8, order())) < 1.25 * steps  # in batches drawn at random it is about 1.8
    draws = order()
    smallest = [
        min(samples.batches(8, draws), key=lambda batch: len(batch.places)).inputs[1].float().mean() for _ in range(12)
    ]
    assert min(smallest) < 350 < 650 < max(smallest)


@pytest.mark.parametrize("read", ["last", "mean", "each"])
@pytest.mark.parametrize("bidirectional", [False, True])
@settings(deadline=None, max_examples=10)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7), filling=st.sampled_from([1e6, -3.0, float("nan")]))
def test_padding_changes_neither_outputs_nor_gradients(read, bidirectional, lengths, filling):
    torch.manual_seed(0)
    model = Labeller(2, 3, 5, num_layers=2, bidirectional=bidirectional, read=read)
    samples = some(lengths, per_step=read == "each")
    (batch,) = samples.batches(len(lengths), None)
    x, own = batch.inputs
    past = torch.arange(x.shape[1]) >= own[:, None]
    loss = tagging_loss if read == "each" else cross_entropy

    def run(x):
        model.zero_grad()
        found = model(x, own)
        loss(found, batch.targets).backward()
        kept = found.detach()[~past] if read == "each" else found.detach()
        return [kept, *(parameter.grad.clone() for parameter in model.parameters())]

    plain = run(x)
    for expected, found in zip(plain, run(x.masked_fill(past[:, :, None], filling)), strict=True):
        assert torch.equal(found, expected)
    if read != "each":
        longer = run(torch.cat([x, torch.zeros(len(x), 3, 2)], dim=1))
        torch.testing.assert_close(longer, plain, rtol=1e-5, atol=1e-6)  # (a mean adds up three zeros more)


@pytest.mark.parametrize("read", ["last", "mean", "each"])
@settings(deadline=None, max_examples=10)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20), size=st.integers(1, 8), both=st.booleans())
def test_a_batch_gives_what_each_sequence_gives_alone(read, lengths, size, both):
    torch.manual_seed(0)
    model = Labeller(2, 3, 5, bidirectional=both, read=read).eval()
    samples = some(lengths, per_step=read == "each")
    runner = Runner(model, tagging_loss if read == "each" else cross_entropy, TrainConfig(eval_batch_size=size))
    for batch, outputs in runner.outputs(samples):
        for row, place in enumerate(batch.places.tolist()):
            with torch.inference_mode():
                alone = model(samples.inputs[None, sequence(samples, place)])[0]  # without lengths
            found = outputs[row, : lengths[place]] if read == "each" else outputs[row]
            # sums of a few products of size 1 in another order, in float32
            torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("per_step", [False, True])
def test_parts_of_a_batch_add_up_to_the_whole(per_step):
    """Accumulated batches and those that processes share give the gradient of one batch, and an evaluation one mean."""
    lengths = [1, 30, 4, 4, 9, 2, 17, 8]
    samples = some(lengths, per_step)
    loss = tagging_loss if per_step else cross_entropy
    measure = {"accuracy": right_share} if per_step else {}
    results = {}
    for size, pieces in ((8, 1), (4, 2), (2, 4)):
        torch.manual_seed(0)
        model = Labeller(2, 3, 5, read="each" if per_step else "last")
        config = TrainConfig(batch_size=size, accumulate=pieces, epochs=1, optimizer="sgd", eval_batch_size=size)
        runner = Runner(model, loss, config, measures=measure)
        before = runner.evaluate(samples)
        runner.train(samples)
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        results[size] = (weights, torch.tensor([before.loss, *before.measures.values()]))
    for size in (4, 2):
        # the mean of eight losses and their gradients, added up in another order
        torch.testing.assert_close(results[size], results[8], rtol=1e-5, atol=1e-7)
    (batch,) = samples.batches(8, None)
    model = Labeller(2, 3, 5, read="each" if per_step else "last")
    whole = loss(model(*batch.inputs), batch.targets)
    shares = []
    for rank in range(3):
        own = object.__new__(Together)  # without the processes
        own.rank, own.count = rank, 3
        inputs, targets, weight = own.share(batch.inputs, batch.targets, len(batch.targets))
        shares.append(loss(model(*inputs), targets) * weight)
    torch.testing.assert_close(sum(shares) / 3, whole, rtol=1e-6, atol=0)


def test_tagging_weighs_sequences_alike_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]], [[0.8, 0.2], [0.5, 0.5], [0.5, 0.5]]]))
    targets = torch.tensor([[0, 0, 1], [0, NO_TARGET, NO_TARGET]])
    first = -(torch.tensor([0.5, 0.25, 0.9]).log().mean())
    expected = (first - torch.tensor(0.8).log()) / 2
    torch.testing.assert_close(tagging_loss(logits, targets), expected)
    assert right_share(logits, targets).item() == pytest.approx(2 / 3 + 1)


def test_other_data_have_another_checksum():
    kinds = [some([2, 3]), some([3, 2]), some([2, 3], seed=1), some([2, 3], per_step=True)]
    assert len({samples.sha256() for samples in kinds}) == 4
    for one, other in itertools.pairwise([some([2, 3]), some([2, 3])]):
        assert one.sha256() == other.sha256()


@pytest.mark.parametrize(
    ("lengths", "targets", "says"),
    [
        ([], 0, "there are 0 lengths, 0 in sum, for 3 steps, needed is at least one sequence"),
        ([3, 0], 2, "there are 2 lengths"),
        ([2], 1, "there are 1 lengths, 2 in sum, for 3 steps"),
        ([2, 1], 3, "there are 3 targets, needed are 2"),
    ],
)
def test_counts_that_do_not_fit(lengths, targets, says):
    with pytest.raises(ArgumentError, match=says):
        Ragged(torch.zeros(3, 1), torch.tensor(lengths, dtype=torch.int64), torch.zeros(targets, dtype=torch.int64))
