"""The smallest benchmark, for tests of it."""

import pytest
import torch

from gatewise.bench.config import BenchConfig
from gatewise.bench.grid import Size

TINY = Size(3, 4, 5, 6, 2, 2)
TINY_WORD = "3,4,5,6,2,2"


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads for tiny sizes wait for one another where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_ceiling(monkeypatch):
    """What the machine's ceiling is does not matter here, and 1024³ takes most of a run's time."""
    monkeypatch.setattr("gatewise.bench.ceiling.SQUARE", 32)


def tiny(**changes):
    return BenchConfig(**{"sizes": (TINY_WORD,), "quick": True} | changes)
