"""Images of one's own: a folder with a subfolder for each class, of PNG and JPEG files."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gatewise.data.images import ImageSet
from gatewise.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg")
BYTES_A_NUMBER = 5
"""A byte as it is read, and four as the model reads it."""


def find_images(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """List the images below a folder, class by class, without opening any.

    Names that begin with a dot are passed over, and so are files beside the class folders that are no images, such as
    a README. Within the class folders whatever is no PNG or JPEG file is refused: it would be missed without a word.

    Parameters
    ----------
    folder : path
        Holds a folder for each class, which is called as the folder is.

    Returns
    -------
    dict of str to list of path
        The classes in the order of their names, and of each the files in the order of theirs; upper case of the
        endings does not matter.

    Raises
    ------
    DataError
        There is no such folder; it holds fewer than two classes, one without images, images outside of the class
        folders, or other files within.

    Examples
    --------
    >>> find_images("no/such/folder")
    Traceback (most recent call last):
    gatewise.errors.DataError: no/such/folder is no folder: give one that holds a folder of images for each class
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give one that holds a folder of images for each class")
    entries = _entries(folder)
    outside = [path for path in entries if path.suffix.lower() in ENDINGS and not path.is_dir()]
    if outside:
        raise DataError(
            f"{outside[0]} lies outside of the class folders, needed is a folder for each class: move it into its own"
        )
    classes = [path for path in entries if path.is_dir()]
    if len(classes) < 2:
        found = f"only one class, {classes[0].name}" if classes else "no class folders"
        raise DataError(f"{folder} holds {found}, needed are at least 2: make a folder for the images of each class")
    images = {path.name: _images(path) for path in classes}
    empty = [name for name, paths in images.items() if not paths]
    if empty:
        raise DataError(
            f"{folder / empty[0]} holds no images, needed are PNG or JPEG files ({', '.join(ENDINGS)}): "
            "put some there or remove the folder"
        )
    return images


def read_images(
    images: Mapping[str, Sequence[Path]], size: tuple[int, int] | None = None, colour: bool = False
) -> ImageSet:
    """Read images as `read_picture` does, all of one size.

    Parameters
    ----------
    images : mapping of str to sequence of path
        As `find_images` lists them; a class may be without any here.
    size : (int, int), default None
        The rows and columns to which each is resized; without it all must have the same already.
    colour : bool, default False
        Keep red, green and blue rather than their grey.

    Returns
    -------
    ImageSet
        In the order of `images`, with the names of the classes and the files.

    Raises
    ------
    DataError
        An image cannot be read, or without `size` two have different sizes, or all together do not fit into memory.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, grey in (("dark", 10), ("light", 200)):
    ...     (folder / name).mkdir()
    ...     Image.new("L", (4, 3), grey).save(folder / name / "a.png")
    >>> found = read_images(find_images(folder))
    >>> found.names, found.size, found.labels.tolist(), found.images[:, 0, 0].tolist()
    (('dark', 'light'), (3, 4), [0, 1], [10, 200])
    """
    paths = [path for of_class in images.values() for path in of_class]
    labels = np.repeat(np.arange(len(images)), [len(of_class) for of_class in images.values()])
    first, _, _ = _picture(paths[0], size, colour)
    needed = len(paths) * first.size * BYTES_A_NUMBER
    if needed > _memory():
        raise DataError(
            f"{len(paths):,} images of {_shown(first)} pixels need {needed / 2**30:,.0f} GiB of memory, there are "
            f"{_memory() / 2**30:,.0f}: make them smaller with --size ROWS COLUMNS"
        )
    pixels = np.empty((len(paths), *first.shape), dtype=np.uint8)
    greyed = resized = 0
    for place, path in enumerate(paths):
        one, was_greyed, was_resized = _picture(path, size, colour)
        if one.shape != first.shape:
            raise DataError(
                f"{path} has {_shown(one)} pixels (rows × columns) and {paths[0]} has {_shown(first)}, needed is one "
                "size: give --size ROWS COLUMNS to resize them all"
            )
        pixels[place] = one
        greyed += was_greyed
        resized += was_resized
    notes = [f"{resized:,} of {len(paths):,} resized to {_shown(first)} (Pillow's bilinear filter)"] * bool(resized)
    notes += [f"{greyed:,} of {len(paths):,} turned from colour to grey, --colour keeps it"] * bool(greyed)
    return ImageSet(
        pixels,
        labels,
        classes=len(images),
        source=str(paths[0].parent.parent),
        names=tuple(images),
        files=tuple(str(path) for path in paths),
        note="; ".join(notes),
    )


def read_picture(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, colour: bool = False
) -> NDArray[np.uint8]:
    """Read one image file of any size, in grey or in colour.

    It is turned as its EXIF orientation says. Grey is Pillow's: 0.299 red + 0.587 green + 0.114 blue; 16 bits become
    8. Resizing stretches the whole image, by Pillow's bilinear filter, which averages where it makes smaller.

    Parameters
    ----------
    path : path
        The file.
    size : (int, int), default None
        The rows and columns to which it is resized, if it has others.
    colour : bool, default False
        Keep red, green and blue rather than their grey.

    Returns
    -------
    uint8 array, shape (rows, columns), or (rows, columns, 3) in colour
        From 0 (black) to 255 (white).

    Raises
    ------
    DataError
        The file is missing or no image, damaged, partly transparent, far too large or of several frames.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "green.png"
    >>> Image.new("RGB", (20, 10), (0, 255, 0)).save(path)
    >>> read_picture(path, size=(1, 2)).tolist(), read_picture(path, size=(1, 1), colour=True).tolist()
    ([[150, 150]], [[[0, 255, 0]]])
    """
    return _picture(Path(path), size, colour)[0]


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, by name; hidden files are none of the user's."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}): make it readable") from error


def _images(folder: Path) -> list[Path]:
    """The images of a class."""
    entries = _entries(folder)
    others = [path for path in entries if path.suffix.lower() not in ENDINGS or path.is_dir()]
    if others:
        kind = "a folder" if others[0].is_dir() else "no PNG or JPEG file"
        more = f" (and {len(others) - 1:,} more are not images)" if len(others) > 1 else ""
        raise DataError(
            f"{others[0]} is {kind}{more}, needed are images ending in {', '.join(ENDINGS)}: convert it or move it away"
        )
    return entries


def _picture(path: Path, size: tuple[int, int] | None, colour: bool) -> tuple[NDArray[np.uint8], bool, bool]:
    """The pixels, whether they were turned from colour to grey, and whether resized."""
    if not path.is_file():
        raise DataError(f"{path} is no file: give the path of an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as about EXIF data that are damaged: the pixels are not
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                frames = getattr(opened, "n_frames", 1)
                if frames > 1 and opened.format != "MPO":  # a camera's JPEG with its preview, the picture first
                    raise DataError(f"{path} holds {frames} frames, needed is one: save the one you mean")
                return _converted(path, ImageOps.exif_transpose(opened), size, colour)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise DataError(f"{path} has more than {limit} pixels, too many to unpack: make it smaller") from error
    except DataError:
        raise
    except Exception as error:  # each of Pillow's formats lets damage show as it likes
        reason = str(error).removesuffix(f" {str(path)!r}") or type(error).__name__
        raise DataError(
            f"{path} cannot be read as an image ({reason}): replace it, or move it out of the folder"
        ) from error


def _converted(
    path: Path, image: Image.Image, size: tuple[int, int] | None, colour: bool
) -> tuple[NDArray[np.uint8], bool, bool]:
    deep = image.mode.startswith("I")
    if image.has_transparency_data and (deep or np.asarray(image.convert("RGBA"))[..., 3].min() < 255):
        raise DataError(f"{path} is partly transparent, needed is an opaque image: save it without transparency")
    if deep:  # Pillow's own conversion to 8 bits cuts off what is above 255
        image = Image.fromarray(np.round(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8))
    of_colours = not deep and image.mode not in ("1", "L", "LA")
    if of_colours and not colour:
        pixels = np.asarray(image.convert("RGB"))
        of_colours = bool(np.ptp(pixels, axis=-1).any())  # a grey image may be saved as one in colour
    image = image.convert("RGB" if colour else "L")
    resized = size is not None and (image.height, image.width) != size
    if resized and size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image), of_colours and not colour, resized


def _memory() -> float:
    """The machine's, in bytes; infinite where it does not tell."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return pages * size if pages > 0 and size > 0 else math.inf


def _shown(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[0]}×{pixels.shape[1]}"
