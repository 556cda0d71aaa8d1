"""The digit-sum memory task: add the first two digits of a sequence, and remember the sum past all that follows."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import ArgumentError, DataError

DIGITS = 10
CLASSES = 2 * (DIGITS - 1) + 1
DRAWS = {"train": 3, "dev": 1, "test": 1}
"""How often each pair of digits occurs in a split."""


@dataclass(frozen=True, eq=False)
class DigitSums:
    """Sequences of digits of one length, each with the sum of its first two.

    Parameters
    ----------
    sequences : integer array, shape (N, T)
        Digits from 0 to 9, at least two of them.
    labels : integer array, shape (N,)
        From 0 to 18.

    Examples
    --------
    >>> sums = DigitSums(np.array([[6, 7, 0, 0, 1]]), np.array([13]))
    >>> len(sums), sums.length
    (1, 5)
    """

    sequences: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def length(self) -> int:
        """Digits in a sequence."""
        return int(self.sequences.shape[1])


def make_digit_sums(length: int, seed: int) -> dict[str, DigitSums]:
    """Draw the splits of a length.

    For each pair of digits, a sequence of them and zeros, one of which, at a random place after the pair, is
    overwritten by a random digit: three such draws of each of the 100 pairs for training, one each for dev and test.
    Every pair is in training: what is tested is the memory, not the arithmetic.

    Parameters
    ----------
    length : int
        Digits in a sequence, at least 3.
    seed : int
        At least 0. The same seed and length draw the same, on every machine and from release to release.

    Returns
    -------
    dict of str to DigitSums
        "train" with 300, "dev" and "test" with 100 each.

    Raises
    ------
    ArgumentError
        The sequences would be too short.

    Examples
    --------
    >>> splits = make_digit_sums(10, seed=0)
    >>> {name: len(split) for name, split in splits.items()}
    {'train': 300, 'dev': 100, 'test': 100}
    >>> splits["test"].sequences[67].tolist(), int(splits["test"].labels[67])
    ([6, 7, 4, 0, 0, 0, 0, 0, 0, 0], 13)
    """
    if length < 3:
        raise ArgumentError(f"length is {length}, needed is at least 3, two digits and what distracts: make it longer")
    raw = np.random.PCG64([seed, length])  # a stream that NumPy keeps from release to release
    pairs = np.array([(first, second) for first in range(DIGITS) for second in range(DIGITS)])
    splits = {}
    for name, draws in DRAWS.items():
        chosen = np.repeat(pairs, draws, axis=0)
        sequences = np.zeros((len(chosen), length), np.int64)
        sequences[:, :2] = chosen
        # (The remainder of 64 random bits is as good as uniform: the numbers are tiny.)
        places = 2 + raw.random_raw(len(chosen)) % np.uint64(length - 2)
        digits = raw.random_raw(len(chosen)) % np.uint64(DIGITS)
        sequences[np.arange(len(chosen)), places.astype(np.intp)] = digits.astype(np.int64)
        splits[name] = DigitSums(sequences, chosen.sum(axis=1))
    return splits


def read_digit_sums(folder: str | os.PathLike[str]) -> dict[str, DigitSums]:
    """Read train.txt, dev.txt and test.txt of one length.

    Each line is a sequence, its digits with a space between two, then a tab and the label.

    Parameters
    ----------
    folder : path
        Holds the three files.

    Returns
    -------
    dict of str to DigitSums
        In the order of the files.

    Raises
    ------
    DataError
        A file is missing, empty or no text; a line is no such sequence, or of another length than the first one's; the
        message names the line.

    Examples
    --------
    >>> read_digit_sums("no/such/folder")
    Traceback (most recent call last):
    gatewise.errors.DataError: no/such/folder/train.txt cannot be read (No such file or directory): give a folder with \
train.txt, dev.txt and test.txt
    """
    splits: dict[str, DigitSums] = {}
    for name in DRAWS:
        splits[name] = _read(Path(folder) / f"{name}.txt")
        if splits[name].length != splits["train"].length:
            raise DataError(
                f"{Path(folder) / name}.txt has sequences of {splits[name].length} digits, train.txt of "
                f"{splits['train'].length}, needed is one length: take three files that belong together"
            )
    return splits


def _read(path: Path) -> DigitSums:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        needed = "give a folder with train.txt, dev.txt and test.txt"
        raise DataError(f"{path} cannot be read ({error.strerror}): {needed}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no plain text (byte {error.start}): give a file of digits") from error
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"{path} has no line: give a file of sequences")
    length = len(rows[0][0])
    for number, (digits, _) in enumerate(rows, start=1):
        if len(digits) != length:
            raise DataError(
                f"{path}, sequence {number} has {len(digits)} digits, the first has {length}: make them equally long"
            )
    return DigitSums(np.array([digits for digits, _ in rows]), np.array([label for _, label in rows]))


def _row(path: Path, number: int, line: str) -> tuple[list[int], int]:
    """The digits and the label of a line."""
    where = f"{path}, line {number}"
    digits, tab, label = line.partition("\t")
    if not tab:
        raise DataError(f"{where} has no tab, needed are digits, a tab and their sum: mend the line")
    words = digits.split()
    for word in words:
        if not (len(word) == 1 and word in "0123456789"):
            raise DataError(f"{where} has {word!r} among its digits, needed are single ones with spaces: mend the line")
    if len(words) < 3:
        raise DataError(f"{where} has {len(words)} digits, needed are at least 3: mend the line")
    if not (label.strip().isascii() and label.strip().isdigit() and int(label) < CLASSES):
        raise DataError(f"{where} has the label {label.strip()!r}, needed is 0 to {CLASSES - 1}: mend the line")
    return [int(word) for word in words], int(label)


def write_digit_sums(folder: str | os.PathLike[str], splits: dict[str, DigitSums]) -> None:
    r"""Write splits as `read_digit_sums` reads them.

    Parameters
    ----------
    folder : path
        Is made if it is not there; files in it are replaced.
    splits : dict of str to DigitSums
        "train", "dev" and "test".

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_digit_sums(folder, make_digit_sums(10, seed=0))
    >>> (Path(folder) / "train.txt").read_text().splitlines()[0]
    '0 0 0 0 8 0 0 0 0 0\t0'
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, split in splits.items():
        lines = (
            " ".join(map(str, sequence)) + f"\t{label}\n"
            for sequence, label in zip(split.sequences, split.labels, strict=True)
        )
        (Path(folder) / f"{name}.txt").write_text("".join(lines), encoding="ascii")
