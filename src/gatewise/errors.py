"""The one family of exceptions that gatewise raises for what a user gave it.

Each message is one line: what was given, what was needed, what to do. The command line turns every
`GatewiseError` into that line and exit status 2; a traceback means a bug in gatewise itself.
"""


class GatewiseError(Exception):
    """Base class: catch this one to catch whatever gatewise says about its input.

    Examples
    --------
    >>> issubclass(ShapeError, GatewiseError)
    True
    """


class ShapeError(GatewiseError, RuntimeError, ValueError):
    """A tensor has a wrong size along a named axis (torch raises RuntimeError here, or ValueError)."""


class DtypeError(GatewiseError, ValueError, RuntimeError):
    """A tensor's number type does not fit the weights (torch raises ValueError for inputs, RuntimeError for states)."""


class ArgumentError(GatewiseError, ValueError):
    """A constructor or an option was given a value outside of what it takes."""


class KernelError(GatewiseError, RuntimeError):
    """The compiled core cannot do what was asked on this machine, such as an instruction set it lacks."""


class DataError(GatewiseError, ValueError):
    """A data file is missing, damaged or does not fit the others."""


class RunError(GatewiseError, ValueError):
    """A run folder is missing, is none, or lacks one of its files."""


class DivergenceError(GatewiseError, ArithmeticError):
    """A training's loss is no finite number any more."""
