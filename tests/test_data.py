"""IDX files, image sets, splits, and single images."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gatewise.data.idx import read_idx, write_idx
from gatewise.data.images import ImageSet, load_digits, load_mnist, read_image, stratified_split
from gatewise.errors import ArgumentError, DataError

MNIST = Path(os.environ.get("GATEWISE_MNIST", Path(__file__).parents[2] / "shared/data/mnist"))

idx_arrays = st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


@settings(max_examples=60, deadline=None)
@given(idx_arrays, st.booleans())
def test_idx_round_trip(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if packed else "a")
    write_idx(path, array)
    back = read_idx(path)
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, array)


def test_idx_bytes_are_those_of_the_format(tmp_path):
    write_idx(tmp_path / "a", np.array([[1, 258]], dtype=np.int16))
    assert (tmp_path / "a").read_bytes() == bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 1, 2])


def test_packing_is_seen_from_the_content_not_the_name(tmp_path):
    write_idx(tmp_path / "a.gz", np.arange(5, dtype=np.uint8))
    (tmp_path / "a.gz").rename(tmp_path / "packed")
    write_idx(tmp_path / "a", np.arange(5, dtype=np.uint8))
    (tmp_path / "a").rename(tmp_path / "plain.gz")
    np.testing.assert_array_equal(read_idx(tmp_path / "packed"), np.arange(5))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), np.arange(5))


def test_packed_files_hold_no_time(tmp_path):
    write_idx(tmp_path / "a.gz", np.arange(5, dtype=np.uint8))
    assert (tmp_path / "a.gz").read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_is_refused(tmp_path, packed):
    name = "a.gz" if packed else "a"
    write_idx(tmp_path / name, np.arange(6, dtype=np.uint8).reshape(2, 3))
    content = (tmp_path / name).read_bytes()
    for length in range(len(content)):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(DataError, match=name):
            read_idx(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 7, 7]), "holds 2 bytes of numbers .* needs 1"),
        (bytes([0, 0, 8, 4, *[255] * 16]), "holds 0 bytes of numbers"),
        (bytes([0, 0, 7, 1, 0, 0, 0, 0]), "starts with the bytes 00 00 07 01"),
        (bytes([0, 0, 8, 0]), "starts with the bytes 00 00 08 00"),
        (b"label,pixel", "starts with the bytes 6c 61 62 65"),
        (gzip.compress(b"", mtime=0)[:-1], "truncated or damaged gzip"),
    ],
)
def test_what_is_no_idx_file_is_refused(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "a")


def test_missing_idx_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "a")


@pytest.mark.parametrize("array", [np.zeros(2, dtype=np.int64), np.zeros((), dtype=np.uint8)])
def test_what_idx_cannot_hold_is_refused(tmp_path, array):
    with pytest.raises(ArgumentError, match="IDX holds"):
        write_idx(tmp_path / "a", array)


def test_the_digits_are_the_original():
    digits = load_digits()
    assert digits.images.shape == (1797, 8, 8)
    assert digits.images.max() == digits.white == 16
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # The first row of the first image, and the sum of all pixels, of the UCI file.
    assert digits.images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert int(digits.images.sum(dtype=np.int64)) == 561718


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), np.zeros(2, np.uint8), "3 images but 2 labels"),
        (np.zeros((3, 8, 8), np.float32), np.zeros(3, np.uint8), "type float32"),
        (np.zeros((3, 64), np.uint8), np.zeros(3, np.uint8), "three axes"),
        (np.zeros((3, 8, 8), np.uint8), np.zeros((3, 1), np.uint8), "needed is one axis"),
        (np.zeros((3, 8, 8), np.uint8), np.zeros(3, np.float32), "whole numbers"),
        (np.zeros((0, 8, 8), np.uint8), np.zeros(0, np.uint8), "no images"),
        (np.zeros((3, 8, 8), np.uint8), np.full(3, 10, np.uint8), "labels go from 10 to 10"),
        (np.full((3, 8, 8), 17, np.uint8), np.zeros(3, np.uint8), "value 17, needed are 0 to 16"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(DataError, match=message):
        ImageSet(images, labels, white=16)


def test_pixels_and_take():
    images = ImageSet(np.arange(4, dtype=np.uint8).reshape(4, 1, 1), np.arange(4), white=4)
    taken = images.take(np.array([3, 1]))
    assert taken.labels.tolist() == [3, 1]
    assert taken.pixels().ravel().tolist() == [0.75, 0.25]
    assert taken.pixels().dtype == np.float32


@pytest.mark.parametrize("names", ["{}-images-idx3-ubyte", "{}-images-idx3-ubyte.gz", "{}-images.idx3-ubyte"])
def test_mnist_names(tmp_path, names):
    write_idx(tmp_path / names.format("t10k"), np.ones((2, 3, 4), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([1, 2], np.uint8))
    test = load_mnist(tmp_path, "test")
    assert test.size == (3, 4)
    assert test.labels.tolist() == [1, 2]


def test_missing_mnist_file_is_named(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.ones((2, 3, 4), np.uint8))
    with pytest.raises(DataError, match="holds no t10k-labels-idx1-ubyte, gzipped or not"):
        load_mnist(tmp_path, "test")


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not at {MNIST} (GATEWISE_MNIST names another folder)")
def test_the_real_mnist():
    test = load_mnist(MNIST, "test")
    assert test.images.shape == (10_000, 28, 28)
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=40, max_size=80),
    st.tuples(st.floats(0.1, 0.4), st.floats(0.1, 0.4)),
    st.integers(0, 99),
)
def test_splits_divide_each_class_alike(labels, fractions, seed):
    labels = np.array(labels)
    try:
        parts = stratified_split(labels, fractions, seed)
    except ArgumentError:  # a part left empty by rounding, possible only where every class is small
        assert max(np.bincount(labels)) < 20
        return
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, fraction in zip(parts, fractions, strict=False):
        for label in set(labels.tolist()):
            size = int((labels == label).sum())
            assert abs(int((labels[part] == label).sum()) - fraction * size) <= 1
    again = stratified_split(labels, fractions, seed)
    assert all((one == other).all() for one, other in zip(parts, again, strict=True))


def test_a_split_is_the_same_for_ever():
    labels = np.repeat(np.arange(2), 10)
    test, dev, rest = stratified_split(labels, [0.2, 0.1], seed=7)
    assert (test.tolist(), dev.tolist()) == ([3, 6, 11, 12], [4, 10])
    assert len(rest) == 14
    other = stratified_split(labels, [0.2, 0.3], seed=7)
    assert other[0].tolist() == test.tolist()  # the later fractions do not move the earlier parts
    assert stratified_split(labels, [0.2], seed=8)[0].tolist() != test.tolist()


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [-0.1], [0.001], [float("nan")]])
def test_fractions_that_cannot_be(fractions):
    with pytest.raises(ArgumentError, match="fractions set aside"):
        stratified_split(np.repeat(np.arange(2), 10), fractions, 0)


GREY = np.array([[0, 51], [102, 255]], dtype=np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_grey_images_of_any_mode_read_alike(tmp_path, mode, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(GREY).convert(mode).save(path)
    np.testing.assert_array_equal(read_image(path, (2, 2)), GREY.astype(np.float32) / np.float32(255))


def test_one_bit_and_sixteen_bits(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "one.png")
    assert read_image(tmp_path / "one.png", (2, 2)).tolist() == [[0, 0], [1, 1]]
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", (2, 2)), GREY / np.float32(255))


def test_images_that_are_refused(tmp_path):
    path = tmp_path / "a.png"

    def refused(message):
        with pytest.raises(DataError, match=message):
            read_image(path, (28, 28))

    refused("is no file")
    path.write_bytes(b"no picture")
    refused("cannot be read as an image")
    Image.new("L", (32, 30)).save(path)
    refused(r"is 32×30 pixels \(width × height\), needed are 28×28")
    Image.new("RGB", (28, 28), (1, 2, 3)).save(path)
    refused("is a colour image")
    Image.new("LA", (28, 28), (5, 254)).save(path)
    refused("partly transparent")
    Image.new("L", (28, 28)).save(path, transparency=0)
    refused("partly transparent")
    Image.new("F", (28, 28)).save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(path)
    refused("mode F")
    frames = [Image.new("L", (28, 28), grey) for grey in (0, 9)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.gif").rename(path)
    refused("holds 2 frames")
    path.unlink()
    path.mkdir()
    refused("is no file")


def test_a_truncated_png_is_refused_or_whole(tmp_path):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    refused = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            pixels = read_image(path, (8, 8))
        except DataError:
            refused += 1
        else:  # only what comes after the last pixel is missing
            np.testing.assert_array_equal(pixels, noise / np.float32(255))
    assert refused >= content.index(b"IEND") - 16


def test_a_huge_image_is_refused_without_a_warning(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    for limit in (1000, 100):  # Pillow warns above the limit, and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="8×8"):
            read_image(tmp_path / "a.png", (8, 8))
