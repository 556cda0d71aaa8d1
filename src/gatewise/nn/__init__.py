"""torch modules: `LSTM` and `LSTMCell`, drop-ins for `torch.nn.LSTM` and `torch.nn.LSTMCell`."""

from gatewise.nn.cell import LSTMCell
from gatewise.nn.gates import Gate, Gates
from gatewise.nn.lstm import LSTM
from gatewise.nn.paths import Path, explain_path

__all__ = ["LSTM", "Gate", "Gates", "LSTMCell", "Path", "explain_path"]
