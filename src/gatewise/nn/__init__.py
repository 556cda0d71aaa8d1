"""torch modules: `LSTM` and `LSTMCell`, drop-ins for `torch.nn.LSTM` and `torch.nn.LSTMCell`."""

from gatewise.nn.cell import LSTMCell
from gatewise.nn.lstm import LSTM

__all__ = ["LSTM", "LSTMCell"]
