"""Which files a path or a module's name stands for, and what is in them. Nothing of them is ever run."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import os
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from gatewise.errors import ArgumentError, DataError

SKIPPED = {"__pycache__", "node_modules"}
SUFFIXES = {".py", ".ipynb"}


@dataclass(frozen=True)
class Source:
    """Python source that has been read.

    Parameters
    ----------
    path : str
        Of its file.
    text : str
        All of it; a notebook's code cells one after the other.
    tree : ast.Module
        What Python makes of it.
    comments : dict of int to str
        The comment on each line that has one, without its ``#``.
    cells : tuple of (int, int)
        A notebook's code cells: the number of the cell, and the line of `text` before its first; of a .py file, none.
    """

    path: str
    text: str
    tree: ast.Module
    comments: dict[int, str]
    cells: tuple[tuple[int, int], ...] = ()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    def place(self, line: int) -> tuple[str, int]:
        """Where a line of the text is in the file: the path, with the cell in a notebook, and the line in it."""
        for number, before in reversed(self.cells):
            if line > before:
                return f"{self.path}:cell {number}", line - before
        return self.path, line


def paths_of(target: str) -> list[Path]:
    """List the files that a path or a module's name stands for.

    Parameters
    ----------
    target : str
        A .py or .ipynb file; a folder, for all of these below it but in hidden folders, virtual environments and
        ``__pycache__``; or a module's dotted name, found from the current folder or where Python finds modules.

    Returns
    -------
    list of Path
        Sorted.

    Raises
    ------
    ArgumentError
        There is no such file or module, or no Python in it.

    Examples
    --------
    >>> [path.name for path in paths_of("gatewise.insight.doctor.findings")]
    ['findings.py']
    """
    if not target:
        raise ArgumentError("the path is empty: give a file, a folder or a module's name")
    path = Path(target)
    if path.is_dir():
        return _below(path)
    if path.exists():
        if not path.is_file():
            raise ArgumentError(f"{path} is no regular file: give one, or a folder or a module's name")
        if path.suffix not in SUFFIXES:
            raise ArgumentError(f"{path} is no .py or .ipynb file: give one of these, a folder or a module's name")
        return [path]
    if path.suffix in SUFFIXES or not all(part.isidentifier() for part in target.split(".")):
        raise ArgumentError(f"{target} is no file, folder or module: give one that exists")
    return _of_module(target)


def _below(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in SKIPPED and not (Path(root) / name / "pyvenv.cfg").exists()
        ]
        # (A hidden file may be an editor's lock, which leads nowhere.)
        found += [Path(root) / name for name in files if Path(name).suffix in SUFFIXES and not name.startswith(".")]
    if not found:
        raise ArgumentError(f"{folder} holds no .py or .ipynb file: give a folder that does")
    return sorted(found)


def _of_module(name: str) -> list[Path]:
    # find_spec on a dotted name would import, and so run, the packages around the module; this looks at files only.
    locations: list[str] | None = None
    parts = name.split(".")
    for part in parts[:-1]:
        locations = list(_spec(part, locations, name).submodule_search_locations or ())
    spec = _spec(parts[-1], locations, name)
    if spec.submodule_search_locations is not None:
        return sorted({path for folder in spec.submodule_search_locations for path in _below(Path(folder))})
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ArgumentError(f"{name} is a module without Python source: give one that is written in Python")
    return [Path(spec.origin)]


def _spec(part: str, locations: list[str] | None, name: str) -> ModuleSpec:
    """Where one part of a dotted name is: in the package before it, or on the import path if it is the first."""
    if locations is None:
        spec = PathFinder.find_spec(part, [os.getcwd()])
        with contextlib.suppress(ValueError):  # a module that was made without a spec
            spec = spec or importlib.util.find_spec(part)
    else:
        spec = PathFinder.find_spec(part, locations)
    if spec is None:
        raise ArgumentError(f"{name} is no file, folder or module: give one that exists")
    return spec


def read(path: Path) -> Source:
    """Read a file.

    Parameters
    ----------
    path : Path
        A .py or .ipynb file.

    Returns
    -------
    Source
        What is in it.

    Raises
    ------
    DataError
        It is no Python, or no notebook; the message begins with the path and, where it is known, the line.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        if path.suffix == ".ipynb":
            text, cells = _notebook(path)
        else:
            with tokenize.open(path) as file:
                text, cells = file.read(), ()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a string is none of our business
            tree = ast.parse(text)
        comments = dict(_comments(text))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = (error.msg if isinstance(error, SyntaxError) else str(error)) or type(error).__name__
        raise DataError(f"{path}{line} cannot be read as Python: {reason}") from error
    return Source(str(path), text, tree, comments, cells)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#").strip()


def _notebook(path: Path) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The code cells of a notebook, and where each begins."""
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    lines: list[str] = []
    cells = []
    try:
        sources = [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]
    except (TypeError, KeyError) as error:
        raise ValueError("it is no notebook of format 4") from error
    for number, (kind, source) in enumerate(sources, start=1):
        code = source.splitlines()
        if kind != "code" or (code and code[0].startswith("%%")):
            continue
        cells.append((number, len(lines)))
        # IPython's own commands are no Python.
        lines += ["" if line.lstrip().startswith(("%", "!", "?")) else line for line in code]
    return "\n".join(lines) + "\n", tuple(cells)
