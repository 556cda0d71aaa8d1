"""What two modules return, compared."""

import torch
from torch.nn.utils.rnn import PackedSequence

# A result is a sum of some hundred products of numbers around 1, carried through at most a dozen steps and three
# layers: some tens of the type's epsilon, relative to the largest number of its tensor.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-5}


def assert_same(ours, theirs, name="", tolerance=None):
    """Compare tensors, tuples of them, packed sequences and None."""
    if isinstance(theirs, PackedSequence):
        assert isinstance(ours, PackedSequence), name
        assert_same(ours.data, theirs.data, f"{name} data", tolerance)
        for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            mine, other = getattr(ours, field), getattr(theirs, field)
            assert (mine is None) == (other is None), (name, field)
            assert other is None or torch.equal(mine, other), (name, field)
        return
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs), name
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, other, f"{name}[{number}]", tolerance)
        return
    assert (ours is None) == (theirs is None), name
    if theirs is None:
        return
    assert ours.shape == theirs.shape, name
    assert ours.dtype == theirs.dtype, name
    if theirs.numel():
        scale = theirs.abs().max().item() or 1.0
        error = (ours - theirs).abs().max().item() / scale
        assert error <= (tolerance or TOLERANCE[theirs.dtype]), f"{name}: {error:.1e} relative"
