"""Training images changed at random, each time that they are seen, so that none is learnt by heart."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad


def random_shift(images: Tensor, most: int, background: float, generator: torch.Generator) -> Tensor:
    """Move each image by a random number of pixels along and across.

    Parameters
    ----------
    images : tensor, shape (B, rows, columns) or (B, rows, columns, 3)
        Are not changed.
    most : int
        The largest move each way, in pixels; all moves are equally likely.
    background : float
        What comes in at the edges.
    generator : Generator
        Draws the moves.

    Returns
    -------
    tensor, of the shape of `images`
        The moved images.

    Examples
    --------
    >>> moved = random_shift(torch.eye(3)[None], 1, 0.0, torch.Generator().manual_seed(0))
    >>> moved.shape
    torch.Size([1, 3, 3])
    """
    count, rows, columns = images.shape[:3]
    colours = (0, 0) if images.dim() == 4 else ()
    padded = pad(images, (*colours, most, most, most, most), value=background)
    down, right = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
    image = torch.arange(count)[:, None, None]
    row = (torch.arange(rows) + down)[:, :, None]
    column = (torch.arange(columns) + right)[:, None, :]
    return padded[image, row, column]


def random_mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Exchange left and right in some of the images, half of them in the mean.

    Parameters
    ----------
    images : tensor, shape (B, rows, columns) or (B, rows, columns, 3)
        Are not changed.
    generator : Generator
        Draws which.

    Returns
    -------
    tensor, of the shape of `images`

    Examples
    --------
    >>> images = torch.tensor([[[1, 2, 3]]]).expand(4, 1, 3)
    >>> random_mirror(images, torch.Generator().manual_seed(0))[:, 0, 0]
    tensor([1, 3, 3, 1])
    """
    mirrored = torch.randint(0, 2, (len(images), *[1] * (images.dim() - 1)), generator=generator) == 1
    return torch.where(mirrored, images.flip(2), images)


def random_turn(images: Tensor, most: float, background: float, generator: torch.Generator) -> Tensor:
    """Turn each image about its centre by a random angle.

    Parameters
    ----------
    images : tensor, shape (B, rows, columns) or (B, rows, columns, 3)
        Are not changed.
    most : float
        The largest angle either way, in degrees; all angles are equally likely.
    background : float
        What comes in at the corners.
    generator : Generator
        Draws the angles.

    Returns
    -------
    tensor, of the shape of `images`
        Each pixel is interpolated between the four nearest (bilinear).

    Examples
    --------
    >>> turned = random_turn(torch.zeros(2, 8, 8), 10.0, 0.0, torch.Generator().manual_seed(0))
    >>> turned.shape
    torch.Size([2, 8, 8])
    """
    count, rows, columns = images.shape[:3]
    angle = math.radians(most) * (2 * torch.rand(count, generator=generator) - 1)
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros(count)
    across = torch.stack([cos, -sin * rows / columns, zero], dim=1)  # the grid goes from -1 to 1 either way
    down = torch.stack([sin * columns / rows, cos, zero], dim=1)
    planes = images.reshape(count, rows, columns, -1).movedim(-1, 1) - background
    grid = affine_grid(torch.stack([across, down], dim=1), list(planes.shape), align_corners=False)
    turned = grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + background
    return turned.movedim(1, -1).reshape(images.shape)
