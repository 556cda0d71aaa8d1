"""Small series: their tables, their settings and how they are trained, for the tests of forecasts."""

import numpy as np

from gatewise.data.series import Series
from gatewise.data.steps import Step
from gatewise.data.table import Times
from gatewise.data.windows import make_form

SMALL = {"hidden_size": 6, "threads": 1, "epochs": 2, "window": 8, "horizon": 3}
WORDS = ["--hidden-size", "6", "--threads", "1", "--epochs", "1", "--window", "8", "--horizon", "3"]


def table(count=120, seed=0, **changes):
    """Days of a wave of 7 with noise, a feature that follows it, and one that is known: the columns as lists."""
    generator = np.random.default_rng(seed)
    days = np.arange(count)
    known = (days % 5 == 0).astype(float)
    kw = 10 + 3 * np.sin(2 * np.pi * days / 7) + known + 0.1 * generator.standard_normal(count)
    dates = np.datetime64("2001-01-01") + days
    columns = {"day": dates.astype(str), "kw": kw, "wind": kw / 2 + generator.standard_normal(count), "off": known}
    return {name: list(changes.get(name, values)) for name, values in columns.items()}


def plain(target, future=0, name="", observed=None):
    """A series of rows without times and features."""
    target = np.array(target, float)
    there = np.ones(len(target), bool) if observed is None else np.array(observed)
    clock = Times(np.arange(len(target) + future), "row")
    return Series(name, clock, target, np.ones((len(target), 0)), np.ones((len(target) + future, 0)), there, there)


def form_of(series, **changes):
    settings = {
        "window": 4,
        "horizon": 2,
        "season": None,
        "calendar": None,
        "scaling": "group",
        "dev_fraction": 0.1,
        "test_fraction": 0.2,
        "whole_windows": False,
    }
    return make_form(series, Step("row", 1), **settings | changes)
