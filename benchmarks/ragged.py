"""Time an epoch on sequences of very different length: by `lengths` in batches of similar length, and with padding.

An epoch is the forward and backward pass of a classifier (an LSTM, its state after each sequence's own last step, a
linear layer, cross-entropy) over all batches, which are gathered as it goes; no weights change, so that every way of
making batches has the same loss and the same gradients in sum, which are compared before anything is timed. The lengths
are spread evenly on a logarithmic scale from `--shortest` to `--longest`. Batches are similar (as `gatewise train
sequences` makes them) or drawn at random; they are padded to the longest sequence of the batch or of all data.

    python benchmarks/ragged.py [--sequences 256] [--longest 400] [--repeats 9] [--threads 2]
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pack_padded_sequence

import gatewise
from gatewise.bench.check import disagreement
from gatewise.bench.options import at_least
from gatewise.bench.timing import measure
from gatewise.train.ragged import Ragged
from gatewise.train.samples import shuffled

BATCH, INPUT, CLASSES = 16, 12, 9
Batches = Callable[[], Iterator[tuple[Tensor, Tensor, Tensor]]]
"""An epoch's x (B, T, I), lengths (B,) and targets (B,)."""


def draw(sequences: int, shortest: int, longest: int) -> Ragged:
    lengths = torch.logspace(torch.tensor(shortest).log2(), torch.tensor(longest).log2(), sequences, base=2)
    lengths = lengths.round().long()[torch.randperm(sequences)]
    return Ragged(torch.randn(int(lengths.sum()), INPUT), lengths, torch.randint(CLASSES, (sequences,)))


def similar(samples: Ragged) -> Batches:
    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in samples.batches(BATCH, torch.Generator().manual_seed(0)):
            yield (*batch.inputs, batch.targets)

    return batches


def at_random(samples: Ragged, longest: int = 0) -> Batches:
    """Padded to their own longest, or to that of all."""

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for places in torch.split(shuffled(len(samples), torch.Generator().manual_seed(0)), BATCH):
            rows, past = samples.steps_of(places)
            x = samples.inputs[rows].masked_fill(past[:, :, None], 0)
            yield pad(x, (0, 0, 0, max(0, longest - x.shape[1]))), samples.lengths[places], samples.targets[places]

    return batches


def by_lengths(lstm: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    return lstm(x, lengths=lengths)[1][0][-1]


def padded(lstm: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    return lstm(x)[0][torch.arange(len(x)), lengths - 1]


def packed(lstm: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    return lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][0][-1]


def epoch(lstm: nn.Module, linear: nn.Module, last: Callable[..., Tensor], batches: Batches) -> dict[str, Tensor]:
    """The loss of all sequences, and its gradients."""
    parameters = {**dict(lstm.named_parameters()), **dict(linear.named_parameters())}
    for parameter in parameters.values():
        parameter.grad = None
    total = torch.zeros(())
    for x, lengths, targets in batches():
        loss = cross_entropy(linear(last(lstm, x, lengths)), targets, reduction="sum")
        loss.backward()
        total += loss.detach()
    return {"loss": total, **{name: parameter.grad for name, parameter in parameters.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=at_least(1), default=256, help="default: 256")
    parser.add_argument("--shortest", type=at_least(1), default=10, help="steps (default: 10)")
    parser.add_argument("--longest", type=at_least(1), default=400, help="steps (default: 400)")
    parser.add_argument("--hidden-size", type=at_least(1), default=64, help="default: 64")
    parser.add_argument("--repeats", type=at_least(2), default=9, help="turns of each (default: 9)")
    parser.add_argument("--threads", type=at_least(1), default=torch.get_num_threads())
    options = parser.parse_args()
    if options.longest < options.shortest:
        sys.exit(f"ragged: longest is {options.longest}, needed is at least shortest, {options.shortest}: change one")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    samples = draw(options.sequences, options.shortest, options.longest)
    theirs = nn.LSTM(INPUT, options.hidden_size, batch_first=True)
    ours = gatewise.LSTM(INPUT, options.hidden_size, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    linear = nn.Linear(options.hidden_size, CLASSES)
    whole = at_random(samples, options.longest)
    ways = {
        "gatewise, lengths, similar": (ours, by_lengths, similar(samples)),
        "gatewise, lengths, random": (ours, by_lengths, at_random(samples)),
        "gatewise, padded to all's longest": (ours, padded, whole),
        "torch, packed, similar": (theirs, packed, similar(samples)),
        "torch, packed, random": (theirs, packed, at_random(samples)),
        "torch, padded, similar": (theirs, padded, similar(samples)),
        "torch, padded, random": (theirs, padded, at_random(samples)),
        "torch, padded to all's longest": (theirs, padded, whole),
    }
    calls = {name: (lambda way=way: epoch(way[0], linear, *way[1:])) for name, way in ways.items()}
    expected = calls["torch, packed, random"]()
    for name, call in calls.items():
        what, _ = disagreement(expected, call(), torch.float32)
        if what:
            sys.exit(f"ragged: nothing was timed: {name} differs from torch, packed: {what}")
    times = measure(calls, options.repeats, turn=0.02, seconds=60)
    steps = int(samples.lengths.sum())
    print(
        f"{len(samples)} sequences of {options.shortest} to {options.longest} steps, {steps:,} in all, in batches of "
        f"{BATCH}; (I, H) = {(INPUT, options.hidden_size)}; threads {options.threads}; the same loss and gradients"
    )
    own = times["gatewise, lengths, similar"]
    print(f"{'':34} {'ms an epoch':>16}  over the first   steps with padding")
    for name, timing in times.items():
        places = sum(x.shape[0] * x.shape[1] for x, _, _ in ways[name][2]())
        low, high = timing.ratio_quartiles(own)
        print(
            f"{name:34} {timing.median:9.1f} ± {timing.spread:4.0%}  {timing.ratio(own):5.2f} "
            f"({low:.2f}–{high:.2f})  {places / steps:6.2f} of those there are"
        )


if __name__ == "__main__":
    main()
