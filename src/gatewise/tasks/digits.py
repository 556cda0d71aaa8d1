"""The digits that come with gatewise, read row by row."""

from dataclasses import dataclass

from gatewise.data.images import ImageSet, load_digits, stratified_split
from gatewise.tasks.task import Task
from gatewise.train.config import ImageConfig
from gatewise.train.schedule import ScheduleName

TEST_FRACTION = 0.2


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(ImageConfig):
    """Classify small handwritten digits, each read row by row: 8 steps of 8 pixels.

    The 1,797 images come with gatewise (UCI Optical Recognition of Handwritten Digits, CC BY 4.0): nothing is
    fetched. The seed divides them, each digit in the same proportions: 20 % are the test split, which never
    chooses anything; of all images another `dev-fraction` chooses the best epoch; the rest is trained on.

    Example:
      gatewise train digits --run runs/digits
      gatewise evaluate runs/digits
    """

    hidden_size: int = 128
    num_layers: int = 2
    dropout: float = 0.3
    learning_rate: float = 2e-3
    schedule: ScheduleName = "cosine"
    batch_size: int = 32
    epochs: int = 80
    dev_fraction: float = 0.1
    normalize: tuple[float, float] = (0.3, 0.37)
    max_shift: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        most = 1 - TEST_FRACTION
        self._need("dev_fraction", self.dev_fraction < most, f"below {most:g}, as the test split is {TEST_FRACTION:g}")


def splits(config: DigitsConfig) -> dict[str, ImageSet]:
    """The training, dev and test images; no "dev" where its fraction is 0.

    Raises
    ------
    ArgumentError
        The fraction leaves a split empty.
    """
    digits = load_digits()
    fractions = [TEST_FRACTION, config.dev_fraction]
    test_places, dev_places, train_places = stratified_split(digits.labels, fractions, config.seed)
    sets = {"train": train_places, "dev": dev_places, "test": test_places}
    return {name: digits.take(places) for name, places in sets.items() if len(places)}


def test_set(config: DigitsConfig) -> ImageSet:
    """The test images."""
    return splits(config)["test"]


TASK = Task("digits", DigitsConfig, splits, test_set)
