"""An LSTM for PyTorch that you can open: faster on a CPU, every gate and gradient readable.

`gatewise.LSTM` and `gatewise.LSTMCell` take the place of `torch.nn.LSTM` and `torch.nn.LSTMCell`.

Examples
--------
>>> import gatewise, torch
>>> lstm = gatewise.LSTM(28, 128, num_layers=2, batch_first=True)
>>> output, (h_n, c_n) = lstm(torch.zeros(100, 28, 28))
>>> output.shape, h_n.shape
(torch.Size([100, 28, 128]), torch.Size([2, 100, 128]))
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatewise.insight.doctor.live import doctor
    from gatewise.insight.gradient_flow import gradient_flow
    from gatewise.insight.trace import record, trace
    from gatewise.nn import LSTM, Gate, Gates, LSTMCell, explain_path
    from gatewise.stream import Stream
    from gatewise.tasks.load import load

__all__ = [
    "LSTM",
    "Gate",
    "Gates",
    "LSTMCell",
    "Stream",
    "__version__",
    "doctor",
    "explain_path",
    "gradient_flow",
    "load",
    "record",
    "trace",
]

__version__ = version("gatewise")


_ELSEWHERE = {
    "Stream": "gatewise.stream",
    "doctor": "gatewise.insight.doctor.live",
    "gradient_flow": "gatewise.insight.gradient_flow",
    "load": "gatewise.tasks.load",
    "record": "gatewise.insight.trace",
    "trace": "gatewise.insight.trace",
}


def __getattr__(name: str) -> object:
    # torch takes a second to import; the command line's --help should not wait for it.
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "gatewise.nn")), name)
    if name in ("kernels", "nn"):
        return import_module(f"gatewise.{name}")
    raise AttributeError(f"module 'gatewise' has no attribute {name!r}")
