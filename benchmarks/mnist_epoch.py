"""Time an epoch of `gatewise train mnist` with gatewise.LSTM and with torch.nn.LSTM in the same loop.

Both models start from the same weights and see the same batches in the same order; their losses are compared before
the seconds are printed. The two take turns, one epoch each.

    python benchmarks/mnist_epoch.py FOLDER [--epochs 5]
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch

import gatewise
from gatewise.tasks import mnist
from gatewise.tasks.rows import RowClassifier, examples
from gatewise.train.callback import Callback
from gatewise.train.progress import Evaluation
from gatewise.train.runner import Runner


class StopsAfterAnEpoch(Callback):
    def evaluation(self, runner: Runner, evaluation: Evaluation, is_best: bool) -> None:
        runner.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with MNIST's four IDX files")
    parser.add_argument("--epochs", type=int, default=5, help="of each")
    options = parser.parse_args()
    config = mnist.MnistConfig(data=options.folder, epochs=options.epochs)
    train = examples(mnist.splits(config)["train"], config)
    runners = {}
    for name, lstm in (("torch", torch.nn.LSTM), ("gatewise", gatewise.LSTM)):
        torch.manual_seed(0)
        model = RowClassifier(28, config.hidden_size, config.num_layers, 10, lstm=lstm)
        runners[name] = Runner(model, torch.nn.functional.cross_entropy, config)
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for epoch in range(options.epochs):
        losses = {}
        for name, runner in runners.items():
            runner.train(train, callbacks=[StopsAfterAnEpoch()])
            score = runner.history.evaluations[-1].scores["train"]
            seconds[name].append(score.seconds)
            losses[name] = score.loss
        # Rounding grows while training amplifies it: the first epoch agrees to about a thousandth, later ones to a few
        # hundredths.
        if abs(losses["torch"] - losses["gatewise"]) > 0.2 * losses["torch"]:
            sys.exit(f"the losses of epoch {epoch + 1} differ: {losses}")
        print(
            f"epoch {epoch + 1}  " + "  ".join(f"{n} {s[-1]:.1f} s, loss {losses[n]:.4f}" for n, s in seconds.items())
        )
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    print(f"median  torch {medians['torch']:.1f} s, gatewise {medians['gatewise']:.1f} s an epoch: ", end="")
    print(f"{medians['torch'] / medians['gatewise']:.2f}x, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
