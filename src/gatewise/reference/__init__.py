"""The equations of the LSTM in NumPy, float64, with every gradient derived by hand.

`step` holds one step of the cell and its gradient, `sequence` the loop over time, layers and
directions. The numbers in their comments are those of docs/equations.md. Nothing here is fast; it
is what the fast code is compared with.

`step` and `sequence` stay the names of the modules: one step is `gatewise.reference.step.step`.
"""

from gatewise.reference.sequence import Forward, Gradients, backward, forward
from gatewise.reference.step import Step

__all__ = ["Forward", "Gradients", "Step", "backward", "forward"]
