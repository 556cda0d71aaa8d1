"""Time what the engine adds to a training step.

A step of `gatewise.train.runner.Runner`, with and without the accuracy measured, beside the same step by hand:
zero_grad, forward, loss, backward, and Adam's fused step, on batches that are ready. All train the digit-sum model
(8 sequences of 10 digits, LSTM 32→32) from the same weights on the same batches; their losses are compared before the
times are printed. They take turns, an epoch each. The engine gathers its batches, adds up the loss, and looks at the
gradient's norm, which tells whether all of it is finite.

    python benchmarks/engine.py [--rounds 40] [--length 10]
"""

import argparse
import statistics
import sys
import time

import torch
from torch.nn.functional import cross_entropy

from gatewise.bench.options import at_least
from gatewise.tasks.digit_sum import DigitSumConfig
from gatewise.tasks.sequence_sum import SumClassifier, problem
from gatewise.train.callback import Callback
from gatewise.train.progress import Evaluation
from gatewise.train.runner import Runner, make_optimizer
from gatewise.train.samples import shuffled


class StopsAfterAnEpoch(Callback):
    def evaluation(self, runner: Runner, evaluation: Evaluation, is_best: bool) -> None:
        runner.stop()


def by_hand(
    model: SumClassifier, optimizer: torch.optim.Optimizer, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """An epoch, and the loss of each step."""
    losses = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def make_runner(config: DigitSumConfig, measured: bool) -> Runner:
    torch.manual_seed(config.seed)
    given = problem(config)
    return Runner(given.model, cross_entropy, config, measures=given.measures if measured else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(2), default=40, help="epochs of each (default: 40)")
    parser.add_argument("--length", type=at_least(3), default=10, help="digits in a sequence (default: 10)")
    parser.add_argument("--threads", type=at_least(1), default=1, help="default: 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = DigitSumConfig(length=options.length, epochs=options.rounds, dev_every=0, best_by="loss")
    torch.manual_seed(config.seed)
    train = problem(config).splits["train"]
    runners = {"engine": make_runner(config, False), "engine, accuracy": make_runner(config, True)}
    torch.manual_seed(config.seed)
    model = SumClassifier(config)
    optimizer = make_optimizer(model, config)
    order = torch.Generator().manual_seed(config.seed)
    microseconds: dict[str, list[float]] = {"by hand": [], **{name: [] for name in runners}}
    for _ in range(options.rounds):
        batches = [train.take(places) for places in shuffled(len(train), order).split(config.batch_size)]
        start = time.perf_counter()
        losses = by_hand(model, optimizer, batches)
        microseconds["by hand"].append(1e6 * (time.perf_counter() - start) / len(batches))
        for name, runner in runners.items():
            start = time.perf_counter()
            runner.train(train, callbacks=[StopsAfterAnEpoch()])
            microseconds[name].append(1e6 * (time.perf_counter() - start) / len(batches))
            difference = (torch.tensor(runner.history.step_losses[-len(batches) :]) - losses).abs().max().item()
            if difference > 1e-5:  # the same numbers in the same order; torch's sums may differ in the last place
                sys.exit(f"engine: the losses differ by {difference:g} in an epoch")
    print(f"threads {options.threads}, {options.length} digits, {options.rounds} epochs each: the same losses")
    hand = microseconds.pop("by hand")
    print(f"{'by hand':<17} {statistics.median(hand):5.0f} µs a step, at least {min(hand):.0f}")
    for name, times in microseconds.items():
        own = [engine - beside for engine, beside in zip(times, hand, strict=True)]
        low, _, high = statistics.quantiles(own, n=4)
        print(
            f"{name:<17} {statistics.median(own):+5.0f} µs a step (quartiles {low:+.0f} and {high:+.0f}), "
            f"{min(times) - min(hand):+.0f} between the fastest epochs"
        )


if __name__ == "__main__":
    main()
