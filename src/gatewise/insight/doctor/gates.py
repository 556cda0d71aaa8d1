"""The rules about a cell's weights: the order of the four gates, and the two biases that torch keeps."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Sequence

from gatewise.insight.doctor.files import Source
from gatewise.insight.doctor.flow import Problem
from gatewise.insight.doctor.names import Names, dotted

ORDER = "ifgo"
CALLED = {
    "i": ("i", "in", "input"),
    "f": ("f", "forget"),
    "g": ("g", "c", "cell", "candidate", "cand", "ctilde", "chat", "cbar"),
    "o": ("o", "out", "output"),
}
GATES = {name: gate for gate, names in CALLED.items() for name in names}
WORDS = {"i": "input", "f": "forget", "g": "cell", "o": "output"}

NUMBERED = re.compile(r"(weight|bias)_(ih|hh)_l\d+(_reverse)?")
"""The names that only the torch modules of several layers have."""
OF_A_CELL = re.compile(r"(weight|bias)_(ih|hh)")
STACKS = {"cat", "concat", "concatenate", "stack", "vstack", "hstack", "tensor", "array", "as_tensor", "asarray"}
"""By what torch and NumPy put the four together."""
FOLLOWED = {"T", "mT", "data"}
FOLLOWED_METHODS = {"t", "detach", "clone", "numpy", "cpu", "transpose", "tolist", "to", "float", "double"}
PRODUCTS = {"linear", "matmul", "mm", "addmm"}


def gate_order(source: Source, names: Names) -> Iterator[Problem]:
    """Find gates that are stacked into a torch LSTM, or taken out of one, in another order than its own.

    Parameters
    ----------
    source : Source
        The file.
    names : Names
        Its imports.

    Yields
    ------
    Problem
        Of the code gate-order.
    """
    cells = _cells(source, names)
    for node in source.nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            if _weight(node.targets[0], cells):
                yield from _stacked(node, node.targets[0], node.value, source)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            if (
                isinstance(call.func, ast.Attribute)
                and call.func.attr in ("copy_", "set_")
                and len(call.args) == 1
                and _weight(call.func.value, cells)
            ):
                yield from _stacked(node, call.func.value, call.args[0], source)
    for scope in scopes(source):
        yield from _taken_apart(scope, cells)


def scopes(source: Source) -> Iterator[Sequence[ast.stmt]]:
    """The bodies of a file and of each of its functions, each without the functions inside of it."""
    yield source.tree.body
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.body


def within(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes of a scope, in the order of the source, without those of the functions inside of it."""
    for node in body:
        yield from _within(node)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _within(child)


def _cells(source: Source, names: Names) -> set[str]:
    """The names that are torch's or gatewise's LSTMCell and nothing else in the file."""
    made: dict[str, bool] = {}
    for node in source.nodes:
        if isinstance(node, ast.Assign):
            full = names.full(node.value.func) if isinstance(node.value, ast.Call) else None
            for target in node.targets:
                name = dotted(target)
                if name is not None:
                    is_cell = full in ("torch.nn.LSTMCell", "gatewise.LSTMCell")
                    made[name] = is_cell and made.get(name, True)
    return {name for name, is_cell in made.items() if is_cell}


def _weight(node: ast.AST, cells: set[str]) -> bool:
    """Whether an expression is a torch LSTM's weight or bias, or one's data."""
    if isinstance(node, ast.Attribute) and node.attr == "data":
        node = node.value
    if not isinstance(node, ast.Attribute):
        return False
    if NUMBERED.fullmatch(node.attr):
        return True
    return bool(OF_A_CELL.fullmatch(node.attr)) and dotted(node.value) in cells


def _said(order: str) -> str:
    return ", ".join(WORDS[gate] for gate in order)


# --- stacked ------------------------------------------------------------------------------------------------


def _stacked(statement: ast.stmt, target: ast.AST, value: ast.expr, source: Source) -> Iterator[Problem]:
    four = _four(value)
    if four is None:
        return
    names = [_name(element) for element in four.elts]
    order = _order([name for name in names if name is not None]) if None not in names else None
    by_comment = order is None
    if by_comment:
        order = _order_of_comments(four.elts, source)
    if order is None or order == ORDER:
        return
    place = (four.lineno, four.col_offset)
    new = copy.deepcopy(statement)
    for node in ast.walk(new):
        if isinstance(node, ast.List | ast.Tuple) and (node.lineno, node.col_offset) == place and len(node.elts) == 4:
            node.elts = [node.elts[order.index(gate)] for gate in ORDER]
            break
    done, but = ("commented", ", whatever the comments say") if by_comment else ("stacked", "")
    what = (
        f"the rows of {ast.unparse(target)} are {done} as {_said(order)}, and torch reads them as {_said(ORDER)}{but}."
    )
    yield four, "gate-order", what, ast.unparse(new) + ("  # if the comments are right" if by_comment else "")


def _four(value: ast.expr) -> ast.List | ast.Tuple | None:
    """The list of four that an expression stacks."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call) and node.args:
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            first = node.args[0]
            if name in STACKS and isinstance(first, ast.List | ast.Tuple) and len(first.elts) == 4:
                return first
    return None


def _name(node: ast.expr) -> str | None:
    """The name of a gate's weight, with what only changes its form taken off."""
    while True:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FOLLOWED_METHODS:
            node = node.func.value
        elif isinstance(node, ast.Attribute) and node.attr in FOLLOWED:
            node = node.value
        else:
            return dotted(node)


def _order(names: Sequence[str]) -> str | None:
    """The order of four gates by names that differ in nothing else, such as W_f, W_i, W_c, W_o."""
    before = _shared(names)
    after = _shared([name[before:][::-1] for name in names])
    order = "".join(_gate(name[before : len(name) - after]) for name in names)
    return order if sorted(order) == sorted(ORDER) else None


def _shared(names: Sequence[str]) -> int:
    """How many characters all of them begin with."""
    return next(
        (i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )


def _gate(text: str) -> str:
    plain = re.sub(r"[^a-z]", "", text.lower().replace("gate", ""))
    return GATES.get(plain, "?")


def _order_of_comments(rows: Sequence[ast.expr], source: Source) -> str | None:
    """The order of four rows by the comments at their ends."""
    lines = [row.end_lineno or 0 for row in rows]
    if len(set(lines)) != 4:
        return None
    order = ""
    for line in lines:
        words = re.findall(r"[a-z]+", source.comments.get(line, "").lower())
        gates = {GATES[word] for word in words if word in GATES}
        order += gates.pop() if len(gates) == 1 else "?"
    return order if sorted(order) == sorted(ORDER) else None


# --- taken apart --------------------------------------------------------------------------------------------


def _taken_apart(scope: Sequence[ast.stmt], cells: set[str]) -> Iterator[Problem]:
    weights: set[str] = set()  # names of what is a weight, or a product with one
    chunks: dict[str, dict[int, tuple[str, ast.stmt]]] = {}  # names of the four parts of one
    for node in within(scope):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        name = dotted(target)
        if _is_split(value, weights, cells):
            if isinstance(target, ast.Tuple | ast.List) and len(target.elts) == 4:
                named = [dotted(part) for part in target.elts]
                order = _order([part for part in named if part]) if None not in named else None
                if order not in (None, ORDER):
                    assert order is not None
                    right = [named[order.index(gate)] for gate in ORDER]
                    yield (
                        target,
                        "gate-order",
                        _apart(ast.unparse(value), order),
                        (f"{', '.join(str(part) for part in right)} = {ast.unparse(value)}"),
                    )
            elif name is not None:
                chunks[name] = {}
        elif name is not None and isinstance(value, ast.Subscript) and dotted(value.value) in chunks:
            index = value.slice
            if isinstance(index, ast.Constant) and isinstance(index.value, int):
                chunks[dotted(value.value) or ""][index.value] = (name, node)
        elif name is not None:
            chunks.pop(name, None)
            weights.discard(name)
            if _of_weights(value, weights, cells):
                weights.add(name)
    for chunked, parts in chunks.items():
        in_order = _order([parts[number][0] for number in range(4)]) if sorted(parts) == [0, 1, 2, 3] else None
        if in_order is not None and in_order != ORDER:
            number = next(number for number in range(4) if in_order[number] != ORDER[number])
            first = parts[in_order.index(ORDER[number])][0]
            yield parts[number][1], "gate-order", _apart(chunked, in_order), f"{first} = {chunked}[{number}]"


def _apart(text: str, order: str) -> str:
    return f"the four parts of {text} are named {_said(order)}, and torch keeps them as {_said(ORDER)}."


def _is_split(value: ast.expr, weights: set[str], cells: set[str]) -> bool:
    """Whether an expression cuts a weight, or a product with one, into parts."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute):
        return False
    if value.func.attr not in ("chunk", "split", "tensor_split", "unbind"):
        return False
    of = value.args[0] if dotted(value.func.value) in ("torch", "np", "numpy") and value.args else value.func.value
    return _of_weights(of, weights, cells)


def _of_weights(node: ast.expr, weights: set[str], cells: set[str]) -> bool:
    if _weight(node, cells) or dotted(node) in weights:
        return True
    match node:
        case ast.Attribute(value=value, attr=attr):
            return attr in FOLLOWED and _of_weights(value, weights, cells)
        case ast.BinOp(left=left, op=ast.Add() | ast.MatMult(), right=right):
            return _of_weights(left, weights, cells) or _of_weights(right, weights, cells)
        case ast.Call(func=ast.Attribute(value=value, attr=attr), args=arguments):
            if attr in FOLLOWED_METHODS:
                return _of_weights(value, weights, cells)
            return attr in PRODUCTS and any(_of_weights(argument, weights, cells) for argument in arguments)
    return False


# --- biases -------------------------------------------------------------------------------------------------


def lost_bias(source: Source, names: Names) -> Iterator[Problem]:
    """Find code that takes both weights of a layer out of a torch LSTM and one of its two biases.

    Parameters
    ----------
    source : Source
        The file.
    names : Names
        Its imports.

    Yields
    ------
    Problem
        Of the code lost-bias.
    """
    strings = {node.value for node in source.nodes if isinstance(node, ast.Constant)}
    if any(isinstance(text, str) and "bias_" in text for text in strings):
        return  # names of biases that are put together cannot be followed
    for scope in scopes(source):
        taken: dict[tuple[str, str], dict[str, ast.Attribute]] = {}
        mentioned: set[str] = set()
        for node in within(scope):
            if isinstance(node, ast.Attribute) and NUMBERED.fullmatch(node.attr):
                mentioned.add(node.attr)
            value = _value_taken(node)
            for part in () if value is None else _copied(value):
                kind, _, layer = part.attr.partition("_l")
                taken.setdefault((dotted(part.value) or "", layer), {}).setdefault(kind, part)
        for (module, layer), parts in taken.items():
            biases = [kind for kind in ("bias_ih", "bias_hh") if kind in parts]
            other = {"bias_ih": "bias_hh", "bias_hh": "bias_ih"}
            if not module or not {"weight_ih", "weight_hh"} <= parts.keys() or len(biases) != 1:
                continue
            if f"{other[biases[0]]}_l{layer}" in mentioned:
                continue
            here, lost = f"{module}.{biases[0]}_l{layer}", f"{module}.{other[biases[0]]}_l{layer}"
            yield (
                parts[biases[0]],
                "lost-bias",
                (
                    f"{here} is taken along and {lost} is not: torch adds both, so a copy with one of them computes "
                    "something else."
                ),
                f"{module}.bias_ih_l{layer} + {module}.bias_hh_l{layer}",
            )


def _value_taken(node: ast.AST) -> ast.expr | None:
    """What a statement takes over: the value it assigns, returns or copies."""
    if isinstance(node, ast.Assign | ast.Return):
        return node.value
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "copy_":
        return call.args[0] if call.args else None
    return None


def _copied(value: ast.expr) -> Iterator[ast.Attribute]:
    """The weights and biases whose numbers go into a value: not those of which only the shape does."""
    if isinstance(value, ast.Attribute):
        if NUMBERED.fullmatch(value.attr):
            yield value
        elif value.attr in FOLLOWED:
            yield from _copied(value.value)
        return
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if value.func.attr in ("size", "dim", "numel", "new_zeros", "new_ones") or value.func.attr.endswith("_"):
            return
        yield from _copied(value.func.value)
    for child in ast.iter_child_nodes(value):
        if isinstance(child, ast.keyword):
            yield from _copied(child.value)
        elif isinstance(child, ast.expr) and child is not getattr(value, "func", None):
            yield from _copied(child)
