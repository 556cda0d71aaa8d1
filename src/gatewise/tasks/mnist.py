"""MNIST read row by row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewise.data.images import ImageSet, load_mnist, stratified_split
from gatewise.errors import DataError
from gatewise.tasks.task import Task
from gatewise.train.config import ImageConfig


@dataclass(frozen=True, kw_only=True)
class MnistConfig(ImageConfig):
    """Classify MNIST's handwritten digits, each read row by row: 28 steps of 28 pixels.

    The folder holds the four standard IDX files, gzipped or not; Fashion-MNIST and others in the same files
    do as well. The test images are evaluated after each epoch and never choose anything.

    The recipes, by what they reach on the 10,000 test images:
      adam (the defaults)  about 99 % in 30 epochs: two layers of 128 units, Adam, batches of 100
      sgd                  about 97 % in 20 epochs: two layers of 100 units, plain gradient descent
      fast                 about 99.2 % in 4 epochs: the model of adam, images moved at random, one cycle

    Example:
      gatewise train mnist --data mnist/ --run runs/mnist
      gatewise train mnist --data mnist/ --recipe fast
    """

    data: Path
    """The folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the two of t10k."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "data", self.data.absolute())  # a run is evaluated from anywhere


def splits(config: MnistConfig) -> dict[str, ImageSet]:
    """All training images but the dev split's, the dev split if its fraction is not 0, and the test images.

    Raises
    ------
    DataError
        A file is missing or damaged, or the two halves hold images of different sizes.
    ArgumentError
        The fraction leaves a split empty.
    """
    train, held_out = load_mnist(config.data, "train"), test_set(config)
    if train.size != held_out.size:
        raise DataError(
            f"{config.data}: the training images have {train.size[0]}×{train.size[1]} pixels, the test "
            f"images {held_out.size[0]}×{held_out.size[1]}, needed is one size: take four files of one set"
        )
    if config.dev_fraction == 0:
        return {"train": train, "test": held_out}
    dev, rest = stratified_split(train.labels, [config.dev_fraction], config.seed)
    return {"train": train.take(rest), "dev": train.take(dev), "test": held_out}


def test_set(config: MnistConfig) -> ImageSet:
    """The test images."""
    return load_mnist(config.data, "test")


RECIPES: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd": {
        "hidden_size": 100,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "batch_size": 64,
        "eval_batch_size": 50,
        "epochs": 20,
        "normalize": (0.1307, 0.3081),
    },
    "fast": {
        "initial": "orthogonal",
        "learning_rate": 5e-3,
        "schedule": "one-cycle",
        "batch_size": 64,
        "epochs": 4,
        "normalize": (0.1307, 0.3081),
        "max_shift": 1,
    },
}
"""What each recipe sets otherwise."""

TASK = Task("mnist", MnistConfig, splits, test_set, recipes=RECIPES)
