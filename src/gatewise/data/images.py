"""Images with labels: the digits that come with gatewise, MNIST's files, one grey image of one's own."""

import dataclasses
import hashlib
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gatewise.data.idx import read_idx
from gatewise.errors import ArgumentError, DataError

MNIST_NAMES = {"train": "train", "test": "t10k"}
DIGITS = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, each with its class.

    Parameters
    ----------
    images : uint8 array, shape (N, rows, columns), or (N, rows, columns, 3) in colour
        Pixels from 0, the background, to `white`, full ink.
    labels : integer array, shape (N,)
        The class of each image, from 0 to `classes` - 1.
    white : int, default 255
        The value of full ink.
    classes : int, default 10
        How many classes there are, whether each occurs here or not.
    source : str, default "the image set"
        Where the images come from, for messages.
    names : tuple of str, default: none
        What each class is called; without them it is called by its number.
    files : tuple of str, default: none
        The file of each image, where it has one of its own.
    note : str, default: none
        What was done to the images as they were read, for whoever trains on them.

    Raises
    ------
    DataError
        The arrays do not fit each other, or hold values out of range.

    Examples
    --------
    >>> images = ImageSet(np.full((3, 8, 8), 16, dtype=np.uint8), np.array([4, 0, 9]), white=16)
    >>> len(images), images.size, float(images.pixels().max())
    (3, (8, 8), 1.0)
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    white: int = 255
    classes: int = 10
    source: str = "the image set"
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        in_colour = self.images.ndim == 4 and self.images.shape[-1] == 3
        if self.images.dtype != np.uint8 or not (self.images.ndim == 3 or in_colour):
            raise DataError(
                f"{self.source}: the images have shape {self.images.shape} and type {self.images.dtype}, needed are "
                f"three axes (images, rows, columns), or a fourth of 3 colours, of unsigned bytes: give an image file"
            )
        if self.labels.dtype.kind not in "iu" or self.labels.ndim != 1:
            raise DataError(
                f"{self.source}: the labels have shape {self.labels.shape} and type {self.labels.dtype}, "
                f"needed is one axis of whole numbers: give a label file"
            )
        if len(self.images) != len(self.labels):
            raise DataError(
                f"{self.source}: {len(self.images):,} images but {len(self.labels):,} labels, needed are "
                f"as many of one as of the other: take both files from the same set"
            )
        if self.images.size == 0:
            raise DataError(f"{self.source}: no images (shape {self.images.shape}): give files that hold some")
        if self.images.max() > self.white:
            raise DataError(
                f"{self.source}: a pixel has the value {self.images.max()}, needed are 0 to {self.white}: "
                f"give images of that range"
            )
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            raise DataError(
                f"{self.source}: the labels go from {self.labels.min()} to {self.labels.max()}, needed are "
                f"0 to {self.classes - 1}: give a set of {self.classes} classes"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of each image."""
        rows, columns = self.images.shape[1:3]
        return rows, columns

    @property
    def colour(self) -> bool:
        """Whether each pixel is red, green and blue rather than grey."""
        return self.images.ndim == 4

    def sha256(self) -> str:
        """A checksum over images and labels, by which a set is known again."""
        digest = hashlib.sha256(f"{self.images.shape} {self.white}\0".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def take(self, indices: NDArray[np.intp]) -> Self:
        """The images at these places, in this order.

        Parameters
        ----------
        indices : integer array, shape (n,)
            Places from 0 to N - 1.

        Returns
        -------
        ImageSet
            n images with their labels.
        """
        files = tuple(self.files[place] for place in indices) if self.files else ()
        return dataclasses.replace(self, images=self.images[indices], labels=self.labels[indices], files=files)

    def pixels(self) -> NDArray[np.float32]:
        """The pixels as float32 from 0 (background) to 1 (full ink), of the shape of `images`."""
        return self.images.astype(np.float32) / np.float32(self.white)


def load_digits() -> ImageSet:
    """The 1,797 handwritten digits of 8×8 pixels that come with gatewise.

    They are the UCI "Optical Recognition of Handwritten Digits" of E. Alpaydin and C. Kaynak (1998), under
    CC BY 4.0; ``digits.LICENSE.md`` beside the files says more.

    Returns
    -------
    ImageSet
        In the order of the original, pixels from 0 to 16.

    Examples
    --------
    >>> digits = load_digits()
    >>> len(digits), digits.size, digits.labels[:5].tolist()
    (1797, (8, 8), [0, 1, 2, 3, 4])
    """
    images = read_idx(DIGITS / "digits-images-idx3-ubyte.gz")
    labels = read_idx(DIGITS / "digits-labels-idx1-ubyte.gz")
    return ImageSet(images, labels, white=16, source="the digits of gatewise")


def load_mnist(folder: str | os.PathLike[str], part: str) -> ImageSet:
    """One part of MNIST, or of a set in the same files, from a folder.

    Parameters
    ----------
    folder : path
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the two whose names start with
        ``t10k``; each may end in ``.gz``, and ``images.idx3`` may stand for ``images-idx3``.
    part : {"train", "test"}
        Which half: 60,000 and 10,000 images in the original.

    Returns
    -------
    ImageSet
        Pixels from 0 to 255.

    Raises
    ------
    DataError
        The folder or a file is missing or damaged, or images and labels do not fit.

    Examples
    --------
    >>> load_mnist("no/such/folder", "test")
    Traceback (most recent call last):
    gatewise.errors.DataError: no/such/folder is no folder: give the one with MNIST's four IDX files
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give the one with MNIST's four IDX files")
    images = _find(folder, f"{MNIST_NAMES[part]}-images", "idx3-ubyte")
    labels = _find(folder, f"{MNIST_NAMES[part]}-labels", "idx1-ubyte")
    return ImageSet(read_idx(images), read_idx(labels), source=f"{images} and {labels.name}")


def _find(folder: Path, stem: str, kind: str) -> Path:
    """The first of the names that one IDX file of MNIST goes by."""
    names = [f"{stem}{mark}{kind}{packed}" for mark in "-." for packed in ("", ".gz")]
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder} holds no {names[0]}, gzipped or not: put MNIST's four IDX files there")


def stratified_split(labels: NDArray[Any], fractions: Sequence[float], seed: int) -> tuple[NDArray[np.intp], ...]:
    """Divide examples at random, each class in the same proportions.

    The draw rests on raw numbers of PCG64, whose stream NumPy keeps from release to release: a run can be
    evaluated years later on the examples that it has not seen.

    Parameters
    ----------
    labels : integer array, shape (N,)
        The class of each example.
    fractions : sequence of float
        The share of each part but the last, which gets the rest; together less than 1.
    seed : int
        At least 0. A part depends on its own fraction, those before it, and the seed alone.

    Returns
    -------
    tuple of integer arrays
        The places of each part, ascending; one more than there are fractions.

    Raises
    ------
    ArgumentError
        A fraction is negative, together they reach 1, or a part other than one of fraction 0 would be empty.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> quarter, rest = stratified_split(labels, [0.25], seed=0)
    >>> labels[quarter].tolist(), len(rest)
    ([0, 1], 6)
    """
    if not (all(fraction >= 0 for fraction in fractions) and sum(fractions) < 1):
        raise ArgumentError(
            f"the fractions set aside are {_listed(fractions)}, needed are at least 0 each and less than 1 together: "
            "make them smaller"
        )
    keys = np.random.PCG64(seed).random_raw(len(labels))
    parts: list[list[NDArray[np.intp]]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled = members[np.argsort(keys[members])]
        cuts = np.cumsum([round(fraction * len(members)) for fraction in fractions], dtype=int)
        for part, chosen in zip(parts, np.split(shuffled, cuts), strict=True):
            part.append(chosen)
    split = tuple(np.sort(np.concatenate(part)) for part in parts)
    for places, fraction in zip(split, [*fractions, 1.0], strict=True):
        if fraction > 0 and len(places) == 0:
            raise ArgumentError(
                f"the fractions set aside are {_listed(fractions)}, which leaves a part of the {len(labels)} samples "
                "empty: change them"
            )
    return split


def too_few(counts: Mapping[str, int], fractions: Sequence[float]) -> tuple[str, int] | None:
    """The first class that `stratified_split` would leave out of a part, and how many examples of it there must be.

    Parameters
    ----------
    counts : mapping of str to int
        The examples of each class.
    fractions : sequence of float
        The share of each part but the last.

    Returns
    -------
    (str, int) or None
        None: each class is in each part whose fraction is not 0.

    Examples
    --------
    >>> too_few({"cat": 10, "dog": 3}, [0.2, 0.1])
    ('dog', 6)
    """
    for name, count in counts.items():
        if not _enough(count, fractions):
            smallest = min(fraction for fraction in [*fractions, 1 - sum(fractions)] if fraction > 0)
            needed = max(2, math.floor(0.5 / smallest))
            while not _enough(needed, fractions):
                needed += 1
            return name, needed
    return None


def _enough(count: int, fractions: Sequence[float]) -> bool:
    """Whether so many examples of a class are some in each part."""
    counts = [round(fraction * count) for fraction in fractions]
    counts_needed = [n for n, fraction in zip(counts, fractions, strict=True) if fraction > 0]
    return min([*counts_needed, count - sum(counts)]) > 0


def _listed(fractions: Sequence[float]) -> str:
    return " and ".join(f"{fraction:g}" for fraction in fractions)


def read_image(path: str | os.PathLike[str], size: tuple[int, int]) -> NDArray[np.float32]:
    """Read one grey image, such as a PNG file, as a model reads it.

    Grey images of 1, 8 and 16 bits are taken as they are. Colour is taken only where red, green and blue
    are equal in each pixel, and transparency only where nothing is transparent.

    Parameters
    ----------
    path : path
        The file, of any format that Pillow reads.
    size : (int, int)
        The rows and columns that the model needs.

    Returns
    -------
    float32 array, shape (rows, columns)
        From 0 (black) to 1 (white).

    Raises
    ------
    DataError
        The file is missing or no image, or the image is of another size or kind.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.new("L", (2, 1), 51).save(path)
    >>> read_image(path, (1, 2)).tolist()
    [[0.20000000298023224, 0.20000000298023224]]
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is no file: give the path of an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is refused below
            with Image.open(path) as image:
                _check_size(path, image, size)
                return _grey(path, image)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is far larger than {_size(size)} pixels: give an image of that size") from error
    except (OSError, SyntaxError, EOFError) as error:
        reason = str(error).removesuffix(f" {str(path)!r}")
        raise DataError(f"{path} cannot be read as an image ({reason}): give a PNG file") from error


def _size(size: tuple[int, int]) -> str:
    rows, columns = size
    return f"{columns}×{rows}"


def _check_size(path: Path, image: Image.Image, size: tuple[int, int]) -> None:
    if (image.height, image.width) != size:
        raise DataError(
            f"{path} is {_size((image.height, image.width))} pixels (width × height), needed are "
            f"{_size(size)}: crop or resize it to that"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path} holds {image.n_frames} frames, needed is one: save the one you mean")  # type: ignore[attr-defined]


def _grey(path: Path, image: Image.Image) -> NDArray[np.float32]:
    """Pixels from 0 to 1 of an image that is grey in fact, whatever its mode."""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if deep and not image.has_transparency_data:
        return np.asarray(image).astype(np.float32) / np.float32(65535)
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise DataError(
            f"{path} has Pillow's mode {image.mode}, needed is grey of 1, 8 or 16 bits: save it as a grey PNG"
        )
    pixels = np.asarray(image.convert("RGBA"))
    if pixels[..., 3].min() < 255:
        raise DataError(f"{path} is partly transparent, needed is an opaque image: save it without transparency")
    if np.ptp(pixels[..., :3], axis=-1).max() > 0:
        raise DataError(f"{path} is a colour image, needed is a grey one: convert it to grey as you want it read")
    return pixels[..., 0].astype(np.float32) / np.float32(255)
