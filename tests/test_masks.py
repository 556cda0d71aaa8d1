"""The random masks of a training call: numbers that follow from torch's seed alone."""

import numpy as np
import pytest
import torch

from gatewise import kernels
from gatewise.nn.masks import draw_masks
from gatewise.nn.operators import draw
from gatewise.reference.variant import Mask

WORD = 2**64 - 1


def split_mix(seed: int, count: int) -> list[int]:
    """Numbers of 32 bits of SplitMix64, the lower half of each word first."""
    numbers: list[int] = []
    while len(numbers) < count:
        seed = (seed + 0x9E3779B97F4A7C15) & WORD
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        z ^= z >> 31
        numbers += [z & 0xFFFFFFFF, z >> 32]
    return numbers[:count]


def seeds_of(seed: int, count: int) -> list[int]:
    """What torch's generator, a Mersenne twister, draws first: words of two numbers, the upper half first."""
    numbers = [int(n) for n in np.random.RandomState(seed)._bit_generator.random_raw(2 * count)]
    return [upper << 32 | lower for upper, lower in zip(numbers[::2], numbers[1::2], strict=True)]


def test_split_mix_of_a_published_seed():
    # The first numbers of SplitMix64 from the seed 1234567, as widely published.
    lower, upper, *_ = split_mix(1234567, 4)
    assert upper << 32 | lower == 6457827717110365317


@pytest.mark.parametrize("isa", kernels.available())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 64)])
def test_masks_are_the_numbers_below_their_rate(dtype, shape, isa):
    torch.manual_seed(7)
    with kernels.using(isa):
        masks = draw_masks(
            {"kept": Mask(shape, 0.3, True), "dropped": Mask(shape, 0.25, False)}, torch.zeros((), dtype=dtype)
        )
    count = int(np.prod(shape))
    for name, probability, value, seed in zip(masks, (0.3, 0.75), (1.0, 1 / 0.75), seeds_of(7, 2), strict=True):
        mask = masks[name]
        assert mask.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        drawn = np.array([number < probability * 2**32 for number in split_mix(seed, count)])
        # Both are the same division in float64, and one rounding to the mask's dtype.
        assert torch.equal(mask.ravel(), torch.tensor(np.where(drawn, value, 0.0)).to(mask.dtype))


def test_masks_have_their_rate_and_neighbours_nothing_in_common():
    torch.manual_seed(0)
    mask = draw_masks({"kept": Mask((1000, 1000), 0.3, True)}, torch.zeros(()))["kept"].double() - 0.3
    # Means of 10^6 independent numbers of variance 0.21: 5 standard deviations.
    assert abs(mask.mean()) < 5 * (0.21 / 1e6) ** 0.5
    for one, other in ((mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1]), (mask[:, 2:], mask[:, :-2])):
        assert abs((one * other).mean()) < 5 * 0.21 / 1e3


@pytest.mark.parametrize("isa", kernels.available())
def test_a_probability_of_none_and_of_all(isa):
    with kernels.using(isa):
        for probability in (0.0, 1.0):
            assert (draw(torch.zeros(()), (70,), probability, 3.0) == 3 * probability).all()


def test_every_mask_moves_torchs_generator_on():
    torch.manual_seed(3)
    one, other = (draw_masks({"kept": Mask((64,), 0.5, True)}, torch.zeros(()))["kept"] for _ in range(2))
    state = torch.get_rng_state()
    last = draw_masks({"kept": Mask((64,), 0.5, True)}, torch.zeros(()))["kept"]
    torch.set_rng_state(state)
    again = draw_masks({"kept": Mask((64,), 0.5, True)}, torch.zeros(()))["kept"]
    assert not torch.equal(one, other)
    assert torch.equal(last, again)
