"""Images of one's own, a folder for each class, read by rows or by columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatewise.data.image_folder import find_images, read_images, read_picture
from gatewise.data.images import ImageSet, stratified_split, too_few
from gatewise.errors import DataError
from gatewise.tasks.task import Task
from gatewise.train.config import ImageConfig
from gatewise.train.schedule import ScheduleName

LARGEST = 4096
"""Rows or columns to which an image is resized."""


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(ImageConfig):
    """Classify images of your own: a folder that holds a folder of PNG or JPEG files for each class.

    The folders' names are the names of the classes. The images have one size, or --size makes it so; they are read in
    grey, or in colour with --colour, row by row or column by column. The seed divides the images of each class: 20 %
    are the test split, which never chooses anything; another 10 % choose the best epoch (dev); the rest is trained on.

    Example:
      gatewise train images --data photos/ --size 32 32 --colour --mirror --max-shift 2 --run runs/photos
      gatewise evaluate runs/photos --figure mistakes.png
      gatewise predict runs/photos one.jpg
    """

    data: Path
    """The folder with a folder for each class."""

    size: tuple[int, int] | None = None
    """The rows and columns to which each image is stretched (bilinear); without it all must be of one size."""

    colour: bool = False
    """Read red, green and blue, so that a step has three numbers a pixel; without it, their grey."""

    test_fraction: float = 0.2
    """Share of the images of each class set aside for the test split, above 0 and below 1."""

    dropout: float = 0.2
    schedule: ScheduleName = "cosine"
    clip_norm: float = 1.0
    learning_rate: float = 2e-3
    batch_size: int = 32
    epochs: int = 60
    dev_fraction: float = 0.1
    normalize: tuple[float, float] = (0.5, 0.25)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._need("test_fraction", 0 < self.test_fraction < 1, "a number above 0 and below 1")
        most = 1 - self.test_fraction
        self._need("dev_fraction", self.dev_fraction < most, f"below {most:g}, as test_fraction is the rest to 1")
        fits = self.size is None or all(1 <= length <= LARGEST for length in self.size)
        self._need("size", fits, f"rows and columns from 1 to {LARGEST:,}")
        object.__setattr__(self, "data", self.data.absolute())  # a run is evaluated from anywhere


def splits(config: ImagesConfig) -> dict[str, ImageSet]:
    """The training, dev and test images; no "dev" where its fraction is 0.

    Raises
    ------
    DataError
        The folder is not in order, an image cannot be read, or a class has too few for the splits.
    """
    images = find_images(config.data)
    places = _places(images, config)
    everything = read_images(images, config.size, config.colour)
    return {name: everything.take(chosen) for name, chosen in places.items() if len(chosen)}


def test_set(config: ImagesConfig) -> ImageSet:
    """The test images; no others are opened."""
    images = find_images(config.data)
    chosen = set(_places(images, config)["test"].tolist())
    place = iter(range(sum(map(len, images.values()))))
    tested = {name: [path for path in paths if next(place) in chosen] for name, paths in images.items()}
    return read_images(tested, config.size, config.colour)


def _places(images: Mapping[str, Sequence[Path]], config: ImagesConfig) -> dict[str, NDArray[np.intp]]:
    """Which images each split has, each class in the same proportions.

    Raises
    ------
    DataError
        A class would be missing from a split.
    """
    fractions = [config.test_fraction, config.dev_fraction]
    lacking = too_few({name: len(paths) for name, paths in images.items()}, fractions)
    if lacking is not None:
        name, needed = lacking
        count = len(images[name])
        raise DataError(
            f"{config.data / name} holds {count} image{'s' * (count != 1)}, needed are at least {needed} "
            f"for some in each split (test_fraction {fractions[0]:g}, dev_fraction {fractions[1]:g}): add images, "
            "or change the fractions"
        )
    labels = np.repeat(np.arange(len(images)), [len(paths) for paths in images.values()])
    test, dev, train = stratified_split(labels, fractions, config.seed)
    return {"train": train, "dev": dev, "test": test}


def _read_image(config: ImagesConfig, path: str, size: tuple[int, int]) -> NDArray[np.float32]:
    """One image as those trained on were read."""
    pixels = read_picture(path, config.size and size, config.colour)
    if pixels.shape[:2] != size:
        raise DataError(
            f"{path} has {pixels.shape[0]}×{pixels.shape[1]} pixels (rows × columns), needed are {size[0]}×{size[1]}: "
            "resize it, or train with --size"
        )
    return pixels.astype(np.float32) / np.float32(255)


TASK = Task("images", ImagesConfig, splits, test_set, read_image=_read_image)
