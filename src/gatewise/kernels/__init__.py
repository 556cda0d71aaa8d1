"""The compiled core from NumPy: checks, allocates, calls. The only package that imports the core.

torch's tensors reach the same kernels by the operators of csrc/operators.cpp, which check and allocate in torch's own
terms.

`sequence` is the layer itself, and `walk`, `besides` and `sizes` are what a call of it needs; `instruction_sets` says
which code computes it. Their names are used from here: ``kernels.forward(x, h_0, c_0, weight_ih, weight_hh)``.
"""

from gatewise.kernels.arrays import BFLOAT16
from gatewise.kernels.besides import Besides
from gatewise.kernels.bfloat16 import from_bfloat16, to_bfloat16
from gatewise.kernels.elementwise import exp_of_negative, log_sigmoid, sigmoid, tanh
from gatewise.kernels.instruction_sets import (
    ISA_VARIABLE,
    TORCH_VERSION,
    available,
    instruction_set,
    multiplies_bfloat16,
    use,
    using,
)
from gatewise.kernels.sequence import Activations, Forward, Gradients, activations, backward, forward
from gatewise.kernels.sizes import Kept, Plan, kept_numbers, plan
from gatewise.kernels.threads import fork_join, forked
from gatewise.kernels.walk import Walk

__all__ = [
    "BFLOAT16",
    "ISA_VARIABLE",
    "TORCH_VERSION",
    "Activations",
    "Besides",
    "Forward",
    "Gradients",
    "Kept",
    "Plan",
    "Walk",
    "activations",
    "available",
    "backward",
    "exp_of_negative",
    "fork_join",
    "forked",
    "forward",
    "from_bfloat16",
    "instruction_set",
    "kept_numbers",
    "log_sigmoid",
    "multiplies_bfloat16",
    "plan",
    "sigmoid",
    "tanh",
    "to_bfloat16",
    "use",
    "using",
]
