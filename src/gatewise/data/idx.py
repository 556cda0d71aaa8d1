"""The IDX file format of MNIST: arrays of numbers, gzipped or not.

A file starts with four bytes: two zeros, the code of the number type, the number of axes. Then each axis's
size follows as four bytes, then the numbers; all of it big-endian.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import ArgumentError, DataError

DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one IDX file; whether it is gzipped is seen from its content, not from its name.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    array
        The numbers, of the file's own type and shape, in the machine's byte order.

    Raises
    ------
    DataError
        The file is missing, is no IDX file, or holds more or fewer numbers than its header says.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte.gz"
    >>> write_idx(path, np.array([7, 2, 1], dtype=np.uint8))
    >>> read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    content = _content(Path(path))
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES or content[3] == 0:
        raise DataError(
            f"{path} starts with the bytes {content[:4].hex(' ') or '(none)'}, an IDX file with 00 00, "
            f"a number type and a number of axes: give one of the original files, gzipped or not"
        )
    dtype, axes = DTYPES[content[2]], content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(f"{path} ends inside its header, after {len(content)} bytes: fetch the file again")
    shape = struct.unpack_from(f">{axes}I", content, 4)
    needed = math.prod(shape) * dtype.itemsize
    if len(content) - start != needed:
        raise DataError(
            f"{path} holds {len(content) - start:,} bytes of numbers where its header, of shape {shape}, "
            f"needs {needed:,}: fetch the file again"
        )
    array: NDArray[Any] = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write one IDX file, gzipped where its name ends in ``.gz``; the same array makes the same bytes.

    Parameters
    ----------
    path : path
        The file; one that exists is replaced.
    array : array
        At least one axis; uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    ArgumentError
        The array's number type or shape is none that IDX can hold.

    Examples
    --------
    >>> write_idx("/tmp/never-written", np.zeros(3, dtype=np.int64))
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: IDX holds uint8, int8, int16, int32, float32, float64 and not int64: convert it
    """
    codes = {dtype.newbyteorder("="): code for code, dtype in DTYPES.items()}
    dtype = array.dtype.newbyteorder("=")
    if dtype not in codes:
        raise ArgumentError(f"IDX holds {', '.join(map(str, codes))} and not {array.dtype}: convert it")
    if not 1 <= array.ndim <= 255:
        raise ArgumentError(f"IDX holds 1 to 255 axes and not {array.ndim}: reshape the array")
    header = bytes([0, 0, codes[dtype], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(DTYPES[codes[dtype]]).tobytes()
    if Path(path).suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # no time of writing: the same array, the same bytes
    Path(path).write_bytes(content)


def _content(path: Path) -> bytes:
    """Everything in the file, unpacked where it is gzipped."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path} cannot be read ({reason}): give the path of an IDX file") from error
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise DataError(f"{path} is a truncated or damaged gzip file ({error}): fetch it again") from error
