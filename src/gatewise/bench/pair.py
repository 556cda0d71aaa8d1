"""gatewise and torch side by side, compared and ready to be timed: what the programs of benchmarks/ start from."""

from collections.abc import Callable

from gatewise.bench.check import PeerError, disagreement
from gatewise.bench.config import Kind
from gatewise.bench.grid import Size
from gatewise.bench.peers import Gatewise, Torch
from gatewise.bench.work import draw


def compared(size: Size, kind: Kind) -> dict[str, Callable[[], object]]:
    """Make gatewise's call and torch's for the same weights and numbers, in float32.

    Parameters
    ----------
    size : Size
        The sizes.
    kind : {"forward", "training"}
        Forward alone, or forward and backward.

    Returns
    -------
    dict of str to callable
        By name; each has been called once.

    Raises
    ------
    PeerError
        They differ by more than rounding excuses.

    Examples
    --------
    >>> list(compared(Size(2, 3, 4, 5, 1, 1), "training"))
    ['gatewise', 'torch']
    """
    work = draw(size, "plain")
    calls = {peer.name: peer.calls(work)[kind] for peer in (Gatewise(), Torch())}
    what, _ = disagreement(calls["torch"].once(), calls["gatewise"].once(), work.dtype)
    if what:
        raise PeerError(f"nothing was timed: at {size} gatewise differs from torch: {what}")
    return {name: call.run for name, call in calls.items()}
