"""Time to 99.08 % on MNIST's test images: the textbook's recipe with torch.nn.LSTM, `--recipe fast` with gatewise.LSTM.

Both train the same model (28→128, 2 layers) in the same loop on the same machine: the textbook's recipe (Adam 1e-3,
batches of 100, pixels from 0 to 1) until an epoch ends at that accuracy or the epochs are over, the fast one to its
end. The seconds are those of training and of the test images after each epoch.

    python benchmarks/mnist_recipes.py FOLDER [--seeds 3]
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gatewise
from gatewise.bench.options import at_least
from gatewise.tasks.mnist import TASK, MnistConfig
from gatewise.tasks.rows import RowClassifier, problem
from gatewise.train.callback import Callback
from gatewise.train.progress import Evaluation
from gatewise.train.runner import Runner

WANTED = 0.9908


class StopsAt(Callback):
    """Ends a training once the test images are classified well enough."""

    def __init__(self, accuracy: float) -> None:
        self.accuracy = accuracy

    def evaluation(self, runner: Runner, evaluation: Evaluation, is_best: bool) -> None:
        if evaluation.scores["test"]["accuracy"] >= self.accuracy:
            runner.stop()


def trained(config: MnistConfig, lstm: Callable[..., nn.Module], until: float) -> tuple[float, list[float]]:
    """The seconds, and the test accuracy after each epoch."""
    torch.manual_seed(config.seed)
    given = problem(TASK, config)
    torch.manual_seed(config.seed)
    model = RowClassifier(28, config.hidden_size, config.num_layers, 10, lstm=lstm)
    runner = Runner(model, cross_entropy, config, measures=given.measures, augment=given.augment)
    runner.train(given.splits["train"], {"test": given.splits["test"]}, callbacks=[StopsAt(until)])
    return runner.progress.seconds, [score["accuracy"] for _, score in runner.history.scores("test")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with MNIST's four IDX files")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="trainings of each (default: 3)")
    parser.add_argument("--epochs", type=at_least(1), default=30, help="of the textbook's, at most (default: 30)")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"torch": [], "fast": []}
    reached = []
    for seed in range(options.seeds):
        textbook = MnistConfig(data=options.folder, epochs=options.epochs, seed=seed)
        fast = MnistConfig(data=options.folder, seed=seed, **TASK.recipes["fast"])
        for name, config, lstm, until in (
            ("torch", textbook, torch.nn.LSTM, WANTED),
            ("fast", fast, gatewise.LSTM, 2.0),
        ):
            took, accuracies = trained(config, lstm, until)
            seconds[name].append(took)
            print(f"seed {seed}  {name:<6}{took:7.1f} s  after each epoch ", end="")
            print(*(f"{100 * accuracy:.2f}" for accuracy in accuracies), flush=True)
            if name == "fast":
                reached.append(accuracies[-1])
            elif accuracies[-1] < WANTED:
                print(f"seed {seed}  torch  does not reach {WANTED:.2%} in {options.epochs} epochs")
    print(f"fast: {100 * statistics.fmean(reached):.2f} % in the mean of {options.seeds} seeds")
    means = {name: statistics.fmean(values) for name, values in seconds.items()}
    print(f"mean  torch {means['torch']:.0f} s, fast {means['fast']:.0f} s: {means['torch'] / means['fast']:.1f}x")


if __name__ == "__main__":
    main()
