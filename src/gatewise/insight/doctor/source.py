"""The doctor for source: reads it, and never runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gatewise.errors import DataError
from gatewise.insight.doctor import flow, gates, training
from gatewise.insight.doctor.files import Source, paths_of, read
from gatewise.insight.doctor.findings import Finding, Findings
from gatewise.insight.doctor.names import Names

RULES: tuple[Callable[[Source, Names], Iterator[flow.Problem]], ...] = (
    flow.problems,
    gates.gate_order,
    gates.lost_bias,
    training.embedding_not_a_parameter,
    training.no_seed,
    training.graph_kept_alive,
)


@dataclass(frozen=True)
class Visit:
    """What reading some files came to.

    Parameters
    ----------
    findings : Findings
        By file and line.
    files : int
        How many files were read.
    unread : tuple of str
        One line for each file that could not be read.
    """

    findings: Findings
    files: int
    unread: tuple[str, ...]


def visit(*targets: str) -> Visit:
    """Look for mistakes in the source of files, folders or modules.

    Parameters
    ----------
    *targets : str
        Paths or modules' dotted names, as in `gatewise.insight.doctor.files.paths_of`.

    Returns
    -------
    Visit
        What was found, and which files could not be read.

    Raises
    ------
    ArgumentError
        There is no such file or module, or no Python in it.

    Examples
    --------
    >>> visit("gatewise.insight").findings
    nothing found
    """
    found, files, unread = Findings(), 0, []
    for path in dict.fromkeys(path for target in targets for path in paths_of(target)):
        try:
            source = read(path)
            found += examine(source)
        except DataError as error:
            unread.append(str(error))
        except RecursionError:
            unread.append(f"{path} cannot be read: its code is nested too deeply")
        else:
            files += 1
    return Visit(found, files, tuple(unread))


def examine(source: Source) -> Findings:
    r"""Look for mistakes in source that has been read.

    Parameters
    ----------
    source : Source
        The file.

    Returns
    -------
    Findings
        By line.

    Examples
    --------
    >>> import ast
    >>> text = "import torch\ntorch.seed()"
    >>> examine(Source("a.py", text, ast.parse(text), {}))
    a.py:2:1 no-seed: torch.seed() draws a new seed in each run: no result can be had again.
        mend: torch.manual_seed(0)
    """
    names = Names(source.tree)
    lines = source.text.splitlines()
    found: dict[tuple[int, int, str], Finding] = {}
    for rule in RULES:
        for node, code, what, mend in rule(source, names):
            where, line = source.place(node.lineno)
            column = 1 + len(lines[node.lineno - 1].encode()[: node.col_offset].decode())
            found[node.lineno, column, code] = Finding(where, line, column, code, what, mend)
    return Findings(found[key] for key in sorted(found))
