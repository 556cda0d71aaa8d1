"""A document as the numbers of its characters or bytes, read from disk a piece at a time however long it is."""

import codecs
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import ArgumentError, DataError

Unit = Literal["characters", "bytes"]
"""What a model reads in a step."""

PIECE = 2**20
"""Bytes of a document that are in memory at once."""

CODE_POINTS = 0x110000
"""Of Unicode, from 0 on."""

SCALARS = CODE_POINTS - 0x800
"""Code points that a character can be: all but the surrogates."""


@dataclass(frozen=True)
class Vocabulary:
    """The characters that a model knows, each by its number; or all bytes.

    Parameters
    ----------
    unit : {"characters", "bytes"}
        What is numbered.
    characters : str, default: none
        Those known, ascending. One more number, after theirs, stands for every character that is not among them.

    Examples
    --------
    >>> known = Vocabulary("characters", "abn")
    >>> known.encode("banana").tolist(), known.decode([1, 0, 2])
    ([1, 0, 2, 0, 2, 0], 'ban')
    >>> known.encode("bad").tolist()
    [1, 0, 3]
    """

    unit: Unit
    characters: str = ""

    @property
    def size(self) -> int:
        """How many numbers there are, that of unknown characters included."""
        return 256 if self.unit == "bytes" else len(self.characters) + 1

    @property
    def unknown(self) -> int | None:
        """The number of all characters that are not known; None of bytes, which all are."""
        return None if self.unit == "bytes" else len(self.characters)

    @property
    def unseen(self) -> int:
        """Of how many characters `unknown` may be any."""
        return 0 if self.unit == "bytes" else SCALARS - len(self.characters)

    def encode(self, text: str) -> NDArray[np.int64]:
        """The numbers of a text."""
        if self.unit == "bytes":
            return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).astype(np.int64)
        return self.table()[_code_points(text)].astype(np.int64)

    def decode(self, numbers: "list[int] | NDArray[Any]") -> str:
        """The text of numbers; of bytes that are no UTF-8, and of unknown characters, U+FFFD."""
        if self.unit == "bytes":
            return bytes(list(numbers)).decode("utf-8", "replace")
        return "".join(f"{self.characters}\ufffd"[number] for number in numbers)

    def table(self) -> NDArray[np.unsignedinteger[Any]]:
        """The number of each code point, of the smallest type that holds them."""
        found = np.full(CODE_POINTS, self.size - 1, np.min_scalar_type(self.size - 1))
        found[_code_points(self.characters)] = np.arange(len(self.characters))
        return found


class Held:
    """A file that stays open until nobody reads it any more; whoever gives it may close it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.number = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self.number)


@dataclass(frozen=True, eq=False)
class Stretch:
    """Numbers in a file, from one place to another, of which a slice is read when it is asked for.

    It is no mapped array: the pages of one count as the process's own memory, and one whose file is cut off meanwhile
    kills the process.

    Parameters
    ----------
    file : Held
        Has them.
    dtype : dtype
        Of the numbers.
    start, stop : int
        Which of the file's.
    source : path
        For messages.

    Raises
    ------
    DataError
        On reading: the file has become shorter.

    Examples
    --------
    >>> with tempfile.TemporaryFile() as file:
    ...     _ = file.write(b"abcdef")
    ...     file.flush()
    ...     letters = Stretch(Held(file), np.dtype(np.uint8), 2, 6, Path("letters"))
    >>> letters[1:3].tobytes()
    b'de'
    """

    file: Held
    dtype: np.dtype[Any]
    start: int
    stop: int
    source: Path

    @property
    def shape(self) -> tuple[int]:
        """(N,), as of an array."""
        return (self.stop - self.start,)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, places: slice) -> NDArray[Any]:
        start, stop, _ = places.indices(len(self))
        size = self.dtype.itemsize
        wanted = max(0, stop - start) * size
        parts, place = [], (self.start + start) * size
        while wanted:  # at most 2 GiB come at once
            part = os.pread(self.file.number, wanted, place)
            if not part:
                raise DataError(f"{self.source} has become shorter since the training began: restore it")
            parts.append(part)
            wanted, place = wanted - len(part), place + len(part)
        return np.frombuffer(b"".join(parts), self.dtype)

    def part(self, start: int, stop: int) -> "Stretch":
        """Some of them, by their places among these."""
        return Stretch(self.file, self.dtype, self.start + start, self.start + stop, self.source)


@dataclass(frozen=True, eq=False)
class Document:
    """A document in numbers.

    Parameters
    ----------
    numbers : Stretch
        All of them.
    vocabulary : Vocabulary
        What they stand for.
    borders : tuple of int
        Where the dev part begins, and where the test part does.
    """

    numbers: Stretch
    vocabulary: Vocabulary
    borders: tuple[int, int]


def read_document(
    path: Path, unit: Unit, dev_fraction: float, test_fraction: float, vocabulary: Vocabulary | None = None
) -> Document:
    r"""Read a document.

    Bytes are read from the file itself. Characters, of UTF-8, are numbered once, a piece at a time, into a temporary
    file that has no name, so that it goes with the process, however that ends; TMPDIR says where. Nothing is changed:
    line ends of either kind, a byte order mark and the like are characters.

    Parameters
    ----------
    path : path
        The file.
    unit : {"characters", "bytes"}
        What is numbered.
    dev_fraction, test_fraction : float
        Shares of the document: its end is the test part, what is before it the dev part.
    vocabulary : Vocabulary, default: the characters before the dev part
        That of a training.

    Raises
    ------
    DataError
        The file is missing or empty, or not in UTF-8; or there is no room for its numbers.
    ArgumentError
        A part has nothing in it.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / "book.txt"
    >>> _ = path.write_text("to be or not to be", newline="")
    >>> found = read_document(path, "characters", 0.1, 0.2)
    >>> found.vocabulary.characters, found.borders, found.vocabulary.decode(found.numbers[:5])
    (' benort', (12, 14), 'to be')
    """
    if not path.is_file():
        raise DataError(f"{path} is no file: give a text file")
    try:
        opened = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give a text file") from error
    with opened as file:
        if unit == "bytes":
            count = os.fstat(file.fileno()).st_size
            borders = _borders(path, unit, count, dev_fraction, test_fraction)
            return Document(Stretch(Held(file), np.dtype(np.uint8), 0, count, path), Vocabulary("bytes"), borders)
        count = sum(map(len, _pieces(path, file)))
        borders = _borders(path, unit, count, dev_fraction, test_fraction)
        vocabulary = vocabulary or _vocabulary(path, file, borders[0])
        return Document(_numbered(path, file, vocabulary, count), vocabulary, borders)


def _borders(path: Path, unit: Unit, count: int, dev_fraction: float, test_fraction: float) -> tuple[int, int]:
    if not count:
        raise DataError(f"{path} is empty: give a text file")
    test = count - round(count * test_fraction)
    dev = test - round(count * dev_fraction)
    for name, own, needed in (
        ("test_fraction", count - test, True),
        ("dev_fraction", test - dev, dev_fraction > 0),
        ("the training part", dev, True),
    ):
        if needed and not own:
            raise ArgumentError(
                f"{path} has {count:,} {unit}, of which {name} leaves none to a part, needed is at least one: give a "
                "longer text, or change the fractions"
            )
    return dev, test


def _pieces(path: Path, file: IO[bytes]) -> Iterator[str]:
    """All of a file's text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    file.seek(0)
    done = 0
    while True:
        read = file.read(PIECE)
        held = len(decoder.getstate()[0])  # the beginning of a character whose end comes now
        try:
            yield decoder.decode(read, final=not read)
        except UnicodeDecodeError as error:
            place = done - held + error.start
            raise DataError(
                f"{path} is not UTF-8 (byte {place:,} is 0x{error.object[error.start]:02x}: {error.reason}): convert "
                "it, or read it by bytes (--unit bytes)"
            ) from error
        if not read:
            return
        done += len(read)


def _vocabulary(path: Path, file: IO[bytes], count: int) -> Vocabulary:
    """The characters among the first so many."""
    seen = np.zeros(CODE_POINTS, np.bool_)
    for piece in _pieces(path, file):
        seen[_code_points(piece[:count])] = True
        count -= len(piece)
        if count <= 0:
            break
    return Vocabulary("characters", "".join(map(chr, np.flatnonzero(seen).tolist())))


def _numbered(path: Path, file: IO[bytes], vocabulary: Vocabulary, count: int) -> Stretch:
    """The numbers of a file's characters, in a file without a name."""
    table = vocabulary.table()
    try:
        with tempfile.TemporaryFile() as numbers:
            for piece in _pieces(path, file):
                numbers.write(table[_code_points(piece)].tobytes())
            numbers.flush()
            return Stretch(Held(numbers), table.dtype, 0, count, path)
    except OSError as error:
        megabytes = count * table.itemsize / 1e6
        raise DataError(
            f"{path} needs {megabytes:,.1f} MB in {tempfile.gettempdir()} while it is read ({error.strerror}): make "
            "room there, or set TMPDIR to another folder"
        ) from error


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
