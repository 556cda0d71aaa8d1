"""Images changed at random: what moves, what comes in, and that colours move together."""

import numpy as np
import torch
from PIL import Image

from gatewise.tasks.augment import random_mirror, random_shift, random_turn


def test_shifts_are_all_moves_and_lose_nothing_but_the_edges():
    image = torch.zeros(1, 5, 5)
    image[0, 2, 2] = 1.0
    moved = random_shift(image.expand(400, 5, 5), 1, -7.0, torch.Generator().manual_seed(0))
    assert moved.shape == (400, 5, 5)
    places = {tuple(place.tolist()) for place in (moved == 1).nonzero()[:, 1:]}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    up_left = moved[(moved == 1)[:, 1, 1]][0]
    assert (up_left == -7).sum() == 9  # the last row and the last column came in
    assert (up_left[:, -1] == -7).all()
    assert (up_left[-1] == -7).all()


def test_mirroring_is_left_and_right_for_half_of_the_images():
    images = torch.arange(24.0).reshape(2, 4, 3).repeat(200, 1, 1)
    mirrored = random_mirror(images, torch.Generator().manual_seed(0))
    is_flipped = (mirrored == images.flip(2)).flatten(1).all(1)
    is_same = (mirrored == images).flatten(1).all(1)
    assert bool((is_flipped ^ is_same).all())
    assert 150 < int(is_flipped.sum()) < 250
    coloured = images[..., None] + torch.tensor([0.0, 0.1, 0.2])
    in_colour = random_mirror(coloured, torch.Generator().manual_seed(0))
    torch.testing.assert_close(in_colour[..., 1], mirrored + 0.1)


def test_a_coloured_image_is_moved_as_its_grey_is():
    images = torch.randn(50, 5, 6)
    moved = random_shift(images, 2, -3.0, torch.Generator().manual_seed(0))
    in_colour = random_shift(images[..., None].expand(50, 5, 6, 3), 2, -3.0, torch.Generator().manual_seed(0))
    assert in_colour.shape == (50, 5, 6, 3)
    assert all(torch.equal(in_colour[..., colour], moved) for colour in range(3))


def test_turned_images_are_those_of_pillow():
    images = torch.rand(6, 21, 30)
    turned = random_turn(images, 40.0, 0.25, torch.Generator().manual_seed(3))
    angles = 40 * (2 * torch.rand(6, generator=torch.Generator().manual_seed(3)) - 1)
    for image, ours, angle in zip(images, turned, angles.tolist(), strict=True):
        theirs = Image.fromarray(image.numpy()).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0.25)
        inner = slice(6, 15), slice(8, 22)  # at its edges an image may be mixed with its background or not
        torch.testing.assert_close(ours[inner], torch.from_numpy(np.array(theirs))[inner], rtol=0, atol=1e-4)
        assert not torch.allclose(ours[inner], image[inner], atol=1e-2)
    assert torch.equal(turned[angles.abs() > 10, 0, 0].unique(), torch.tensor([0.25]))  # a corner, which was outside
    in_colour = random_turn(images[..., None].expand(6, 21, 30, 3), 40.0, 0.25, torch.Generator().manual_seed(3))
    assert all(torch.equal(in_colour[..., colour], turned) for colour in range(3))
