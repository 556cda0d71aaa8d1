"""Time what the engine adds to a training step.

A step of `gatewise.train.runner.Runner`, with the accuracy measured, the gradient's norm and no limit on it, beside the
same step by hand: zero_grad, forward, loss, backward, and Adam's fused step, on batches that are ready. Both train the
digit-sum model (8 sequences of 10 digits, LSTM 32→32) from the same weights on the same batches; their losses are
compared before the times are printed. The two take turns, an epoch each.

    python benchmarks/engine.py [--rounds 20] [--length 10]
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
from gatewise.train.runner import Runner, make_optimizer, shuffled


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(2), default=20, help="epochs of each (default: 20)")
    parser.add_argument("--length", type=at_least(3), default=10, help="digits in a sequence (default: 10)")
    parser.add_argument("--threads", type=at_least(1), default=1, help="default: 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = DigitSumConfig(length=options.length, epochs=options.rounds, dev_every=0, log_every=1_000_000)
    torch.manual_seed(0)
    given = problem(config)
    train = given.splits["train"]
    runner = Runner(given.model, cross_entropy, config, measures=given.measures)
    torch.manual_seed(0)
    model = SumClassifier(config)
    model.load_state_dict(given.model.state_dict())
    optimizer = make_optimizer(model, config)
    order = torch.Generator().manual_seed(config.seed)
    seconds: dict[str, list[float]] = {"by hand": [], "engine": []}
    steps = 0
    for _ in range(options.rounds):
        batches = [train.take(places) for places in shuffled(len(train), order).split(config.batch_size)]
        start = time.perf_counter()
        losses = by_hand(model, optimizer, batches)
        seconds["by hand"].append((time.perf_counter() - start) / len(batches))
        start = time.perf_counter()
        runner.train(train, callbacks=[StopsAfterAnEpoch()])
        seconds["engine"].append((time.perf_counter() - start) / len(batches))
        steps += len(batches)
        difference = (torch.tensor(runner.history.step_losses[-len(batches) :]) - losses).abs().max().item()
        if difference > 1e-5:  # the same numbers in the same order; torch's sums may differ in the last place
            sys.exit(f"engine: the losses differ by {difference:g} after {steps} steps")
    least = 1e6 * (min(seconds["engine"]) - min(seconds["by hand"]))
    own = [1e6 * (engine - hand) for engine, hand in zip(seconds["engine"], seconds["by hand"], strict=True)][1:]
    quarters = statistics.quantiles(own, n=4)
    print(f"{options.threads} threads, {options.length} digits, {steps} steps each, the same losses")
    for name, times in seconds.items():
        print(f"{name:<9} {1e6 * statistics.median(times[1:]):6.0f} µs a step")
    print(f"the engine's own: median {statistics.median(own):.0f} µs a step, quartiles ", end="")
    print(f"{quarters[0]:.0f} and {quarters[2]:.0f}; between the fastest epochs {least:.0f}")


if __name__ == "__main__":
    main()
