"""Figures of what is seen inside: gates and cells over time, the gradient over the lag, time constants."""

from gatewise.insight.figures.constants import draw_time_constants
from gatewise.insight.figures.gates import draw_cell, draw_gates
from gatewise.insight.figures.lags import MOST_LAYERS, draw_comparison, draw_lags

__all__ = ["MOST_LAYERS", "draw_cell", "draw_comparison", "draw_gates", "draw_lags", "draw_time_constants"]
