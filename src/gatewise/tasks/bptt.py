"""How a command line says the chunks of truncated backpropagation through time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gatewise.train.lanes import Chunks

RANDOM_LENGTH = 70
"""Steps of a random chunk, about, where nothing else is said: what Merity et al. (2018) took."""

METAVAR = "K1|K1/K2|random|random/LENGTH"

NEEDED = "K1, or K1/K2 with K2 no smaller, or random, or random/LENGTH, of numbers from 1 to below 2^31"


class Bptt(NamedTuple):
    """What was said.

    Attributes
    ----------
    chunks : pair of int or "random"
        K1 and K2, as `gatewise.train.lanes.Lanes` takes them.
    length : int
        Steps of a chunk, of random ones about.
    """

    chunks: Chunks
    length: int

    @property
    def reach(self) -> int:
        """Through how many steps gradients flow at the most; of random chunks about."""
        return self.length if self.chunks == "random" else self.chunks[1]


def parse_bptt(words: str) -> Bptt | None:
    """Read what was said; None if it is none of `METAVAR`.

    Examples
    --------
    >>> [parse_bptt(words) for words in ("50/100", "random/50")]
    [Bptt(chunks=(50, 100), length=50), Bptt(chunks='random', length=50)]
    >>> [parse_bptt(words) for words in ("100/50", "0", "ten", "")]
    [None, None, None, None]
    >>> parse_bptt("100").chunks, parse_bptt("random").length
    ((100, 100), 70)
    """
    first, slash, second = words.partition("/")
    numbers = [_number(word) for word in (first, second if slash else first)]
    if first == "random":
        length = numbers[1] if slash else RANDOM_LENGTH
        return Bptt("random", length) if length else None
    return Bptt((numbers[0], numbers[1]), numbers[0]) if 1 <= numbers[0] <= numbers[1] else None


def _number(word: str) -> int:
    """A number from 1 to below 2^31, or 0."""
    plain = word.isascii() and word.isdigit() and len(word) < 11
    return int(word) if plain and int(word) < 2**31 else 0
