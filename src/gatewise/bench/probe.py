"""In which state the machine is: what an empty parallel region costs, just before something is timed."""

import torch

from gatewise import kernels

FEWEST, MOST = 20, 1000
SECONDS = 0.01


def fork_join() -> float:
    """Time an empty parallel region of torch's number of threads, the first few left out.

    A machine whose cores others use takes a thousand times as long as a quiet one, and then takes fewer of them.

    Returns
    -------
    float
        Seconds of one.

    Examples
    --------
    >>> 0 < fork_join() < 1
    True
    """
    threads = torch.get_num_threads()
    first = kernels.fork_join(threads, FEWEST)
    return kernels.fork_join(threads, max(FEWEST, min(MOST, int(SECONDS / first))))
