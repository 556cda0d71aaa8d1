"""What the names in a file stand for, as far as its imports tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator

TORCH_NN = ("torch.nn.modules.rnn", "torch.nn.modules", "gatewise.nn.lstm", "gatewise.nn.cell", "gatewise.nn")
SHORT = {"gatewise.nn.lstm": "gatewise", "gatewise.nn.cell": "gatewise", "gatewise.nn": "gatewise"}


def dotted(node: ast.AST) -> str | None:
    """A name with its attributes as text.

    Parameters
    ----------
    node : ast.AST
        An expression.

    Returns
    -------
    str or None
        Such as ``self.lstm``; None if it is anything else.

    Examples
    --------
    >>> dotted(ast.parse("self.lstm", mode="eval").body), dotted(ast.parse("a().b", mode="eval").body)
    ('self.lstm', None)
    """
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{node.attr}"
    return None


def literal(node: ast.AST | None) -> object:
    """The value of a constant; None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if isinstance(value, int | float) else None
    return node.value if isinstance(node, ast.Constant) else None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The argument that a call gives by this name."""
    return next((word.value for word in call.keywords if word.arg == name), None)


class Names:
    """The full names behind a file's own.

    Parameters
    ----------
    tree : ast.Module
        The file. A name that it binds in any other way than by one import is left unknown.

    Examples
    --------
    >>> names = Names(ast.parse("import torch.nn as nn"))
    >>> names.full(ast.parse("nn.LSTM", mode="eval").body)
    'torch.nn.LSTM'
    """

    def __init__(self, tree: ast.Module) -> None:
        imported: dict[str, set[str]] = {}
        bound: set[str] = set()
        for node in ast.walk(tree):
            for name, full in _imports(node):
                imported.setdefault(name, set()).add(full)
            bound |= set(_bound(node))
        self._full = {name: next(iter(full)) for name, full in imported.items() if len(full) == 1 and name not in bound}

    def full(self, node: ast.AST) -> str | None:
        """The full name of a name with attributes; None where imports do not tell it."""
        text = dotted(node)
        if text is None:
            return None
        first, _, rest = text.partition(".")
        if first not in self._full:
            return None
        whole = f"{self._full[first]}.{rest}" if rest else self._full[first]
        module, _, name = whole.rpartition(".")
        return f"{SHORT.get(module, 'torch.nn')}.{name}" if module in TORCH_NN else whole

    def imports(self, package: str) -> bool:
        """Whether anything of a package is imported."""
        return any(full.split(".")[0] == package for full in self._full.values())

    def local(self, full: str) -> str:
        """What the file calls it, or else its full name."""
        return next((name for name, whole in self._full.items() if whole == full), full)


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.ImportFrom) and node.level:
        yield from (alias.asname or alias.name for alias in node.names)  # from a package that is not looked up
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
