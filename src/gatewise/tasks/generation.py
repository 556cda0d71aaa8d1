"""A language model goes on with a text: one character or byte after the other, with the state carried."""

import codecs
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.data.text import Vocabulary
from gatewise.errors import ArgumentError
from gatewise.tasks.language import LanguageModel
from gatewise.train.carried import State


@dataclass(frozen=True)
class Sampling:
    """How the next character or byte is drawn.

    Parameters
    ----------
    temperature : float, default 1
        The logits are divided by it: below 1 the likely becomes likelier; 0 always takes the likeliest.
    top_p : float, default 1
        Only the likeliest are drawn from: as few as have this probability together (Holtzman et al. 2020).
    seed : int, default 0
        Same seed, same text.

    Raises
    ------
    ArgumentError
        A number is out of range.

    Examples
    --------
    >>> Sampling(top_p=0.0)
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: top_p is 0.0, needed is a number above 0 and up to 1: change it
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, holds, needed in (
            ("temperature", 0 <= self.temperature < math.inf, "a number from 0 on"),
            ("top_p", 0 < self.top_p <= 1, "a number above 0 and up to 1"),
            ("seed", 0 <= self.seed < 2**63, "a number from 0 to below 2^63"),
        ):
            if not holds:
                raise ArgumentError(f"{name} is {getattr(self, name)}, needed is {needed}: change it")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each number to be drawn, in float64, from logits (V,); of those left out 0.

        Examples
        --------
        >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> Sampling(top_p=0.6).probabilities(logits)
        tensor([0.6250, 0.3750, 0.0000], dtype=torch.float64)
        """
        if not self.temperature:
            return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
        wide = logits.double()
        found = ((wide - wide.max()) / self.temperature).softmax(0)
        if self.top_p < 1:
            falling, places = found.sort(descending=True, stable=True)
            left_out = places[1 + int((falling.cumsum(0) < self.top_p).sum()) :]
            found[left_out] = 0
            found /= found.sum()
        return found


def prompt_numbers(vocabulary: Vocabulary, prompt: str) -> Tensor:
    """The numbers of a prompt, shape (T,).

    Raises
    ------
    ArgumentError
        It is empty, or has a character that the model never saw.
    """
    if not prompt:
        raise ArgumentError("prompt is empty, needed is at least one character to go on from: give some words")
    numbers = vocabulary.encode(prompt)
    for character, number in zip(prompt, numbers.tolist(), strict=False):  # (bytes are all known)
        if number == vocabulary.unknown:
            known = "".join(vocabulary.characters[:100])
            raise ArgumentError(
                f"prompt has {character!r}, which the model never saw, needed are some of {known!r}: leave it out"
            )
    return torch.from_numpy(numbers)


@torch.inference_mode()
def generate(model: LanguageModel, prompt: Tensor, length: int, sampling: Sampling) -> Iterator[int]:
    """Go on with a text.

    Parameters
    ----------
    model : LanguageModel
        In evaluation mode.
    prompt : integer tensor, shape (T,)
        What the model reads first, from a fresh state.
    length : int
        How many numbers come.
    sampling : Sampling
        How they are drawn.

    Yields
    ------
    int
        The next number, never that of unknown characters, as soon as it is drawn.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = LanguageModel(Vocabulary("characters", "abn"), 8, 16)
    >>> drawn = list(generate(model, torch.tensor([1, 0]), 4, Sampling(seed=3)))
    >>> drawn == list(generate(model, torch.tensor([1, 0]), 4, Sampling(seed=3))), len(drawn)
    (True, 4)
    """
    draws = torch.Generator().manual_seed(sampling.seed)
    unknown = model.vocabulary.unknown
    logits, state = read(model, prompt, None)
    for place in range(length):
        if unknown is not None:
            logits[unknown] = -math.inf
        number = int(torch.multinomial(sampling.probabilities(logits), 1, generator=draws))
        yield number
        if place < length - 1:
            logits, state = read(model, torch.tensor([number]), state)


def read(model: LanguageModel, numbers: Tensor, state: State | None) -> tuple[Tensor, State]:
    """The logits (V,) after the last of some numbers (T,), and the state there."""
    logits, after = model(numbers[None], state)
    return logits[0, -1].clone(), after


def written(vocabulary: Vocabulary, numbers: Iterable[int]) -> Iterator[str]:
    r"""The text of numbers as they come: of bytes a character once it is whole, and U+FFFD for what is none.

    Examples
    --------
    >>> list(written(Vocabulary("bytes"), "é!".encode() + b"\xff"))
    ['é', '!', '\ufffd']
    """
    if vocabulary.unit == "characters":
        for number in numbers:
            yield vocabulary.decode([number])
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for number in numbers:
        text = decoder.decode(bytes([number]))
        if text:
            yield text
    text = decoder.decode(b"", final=True)
    if text:
        yield text
