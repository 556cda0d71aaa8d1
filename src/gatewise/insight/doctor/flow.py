"""The rules that follow values: from a recurrent module to its call, its output and the step taken of it.

Each function is walked once, in order, with an environment of what its names are known to be. What two branches
disagree on, what a loop changes and what comes from elsewhere is unknown, and of the unknown nothing is said.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from gatewise.insight.doctor.files import Source
from gatewise.insight.doctor.names import Names, dotted, keyword, literal
from gatewise.insight.doctor.values import (
    Axis,
    Column,
    Elementwise,
    LastStep,
    Output,
    Packed,
    Recurrent,
    Result,
    Tensor,
    ToOne,
    Unpacked,
    Value,
    merge,
)

Problem = tuple[ast.stmt | ast.expr, str, str, str]
"""Where, code, what, mend."""

SIZES = ("input_size", "hidden_size")
LAYERS = (*SIZES, "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
POSITIONS = {
    "LSTM": LAYERS,
    "GRU": LAYERS,
    "RNN": (*SIZES, "num_layers", "nonlinearity", *LAYERS[3:]),
    "LSTMCell": SIZES,
    "GRUCell": SIZES,
    "RNNCell": SIZES,
}
MODULES = {f"torch.nn.{kind}": kind for kind in POSITIONS} | {
    "gatewise.LSTM": "LSTM",
    "gatewise.LSTMCell": "LSTMCell",
}
OPTIONS = (".batch_first", ".bidirectional")
CREATED = {f"torch.{name}" for name in ("randn", "rand", "zeros", "ones", "empty")}
UTILS = "torch.nn.utils.rnn."
LOSSES = {f"torch.nn.{name}" for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")}
FUNCTIONAL = {f"torch.nn.functional.{name}" for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")}
SAME_MODULE = {"to", "cuda", "cpu", "float", "double", "half", "eval", "train", "requires_grad_"}
SAME_TENSOR = SAME_MODULE | {"contiguous", "detach", "clone", "type", "long", "requires_grad_"}

BATCH = {"batch", "batch_size", "batchsize", "batch_sz", "bs", "bsz", "b", "n_batch", "nbatch", "minibatch"}
TIME = {
    "t", "l", "time", "times", "steps", "seq", "seq_len", "seq_length", "seqlen", "sequence_length", "sequence_size",
    "sequence_len", "time_steps", "timesteps", "time_step", "n_steps", "num_steps", "max_len", "max_length", "window",
    "window_size", "lookback",
}  # fmt: skip


class Environment(dict[str, Value]):
    """What is known of the names of a function, `self.lstm` being a name too."""

    def forget(self, name: str) -> None:
        """Forget a name and its attributes."""
        for known in [known for known in self if known == name or known.startswith(f"{name}.")]:
            del self[known]

    def modules(self) -> Environment:
        """The names that stand for modules: these a nested function may know too."""
        return Environment({k: v for k, v in self.items() if isinstance(v, Recurrent | ToOne | Elementwise)})

    def join(self, one: Environment, other: Environment) -> None:
        """Become what two branches agree on."""
        self.clear()
        for name in one.keys() & other.keys():
            value = merge(one[name], other[name])
            if value is not None:
                self[name] = value


def problems(source: Source, names: Names) -> Iterator[Problem]:
    """Find what is wrong with the recurrent modules of a file and with the shapes of its losses.

    Parameters
    ----------
    source : Source
        The file.
    names : Names
        Its imports.

    Yields
    ------
    Problem
        Of the codes batch-and-time, last-of-bidirectional, last-of-padded and mse-broadcast.
    """
    walk = _Walk(source, names, Environment())
    walk.block(source.tree.body)
    yield from walk.found()


@dataclass
class _Walk:
    """A walk through one function, or through the statements of a module or a class."""

    source: Source
    names: Names
    known: Environment
    function: str = ""
    guards: list[str] = field(default_factory=list)
    pending: list[tuple[Problem, Result | None, LastStep | None]] = field(default_factory=list)
    nested: list[_Walk] = field(default_factory=list)

    def found(self) -> Iterator[Problem]:
        for problem, result, last in self.pending:
            # Who takes the first step as well, or half of the last one, puts the two directions together rightly.
            if last is None or not (last.is_cut or (result is not None and result.reads_first_step)):
                yield problem
        for walk in self.nested:
            yield from walk.found()

    # --- statements -----------------------------------------------------------------------------------------

    def block(self, statements: Iterable[ast.stmt]) -> None:
        later: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        for statement in statements:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self.known.forget(statement.name)
                later.append(statement)
            else:
                self.statement(statement)
        for function in later:  # when they run, the names around them have their last values
            self.into(function, self.known.modules())

    def into(self, function: ast.FunctionDef | ast.AsyncFunctionDef, known: Environment) -> None:
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.arg not in ("self", "cls"):
                known.forget(argument.arg)
        walk = _Walk(self.source, self.names, known, function.name)
        walk.block(function.body)
        self.nested.append(walk)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign():
                self.assign(node)
            case ast.AnnAssign(target=target, value=value):
                self.bind(target, None if value is None else self.value(value))
            case ast.If(test=test, body=body, orelse=orelse):
                self.value(test)
                self.guards.append(ast.unparse(test))
                self.branches(body, orelse)
                self.guards.pop()
            case ast.For() | ast.AsyncFor() | ast.While():
                self.loop(node)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                self.block(body)
                changed = _stored(handlers)
                for handler in handlers:
                    self.branches(handler.body, [])
                self.block([*orelse, *final])
                self.forget(changed)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    self.value(item.context_expr)
                    if item.optional_vars is not None:
                        self.bind(item.optional_vars, None)
                self.block(body)
            case ast.Match(subject=subject, cases=cases):
                self.value(subject)
                for case in cases:
                    self.branches(case.body, [])
                self.forget(_stored(cases))
            case ast.ClassDef():
                self.known.forget(node.name)
                self.class_(node)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.value(child)
                self.forget(_stored([node]))

    def branches(self, one: Sequence[ast.stmt], other: Sequence[ast.stmt]) -> None:
        before = Environment(self.known)
        self.block(one)
        after = Environment(self.known)
        self.known.clear()
        self.known.update(before)
        self.block(other)
        if _leaves(one):
            return
        if _leaves(other):
            self.known.clear()
            self.known.update(after)
        else:
            self.known.join(after, Environment(self.known))

    def loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        self.value(node.test if isinstance(node, ast.While) else node.iter)
        # What the body assigns may come from the round before.
        self.forget(_stored([node]))
        self.branches(node.body, [])
        self.block(node.orelse)

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.known.forget(name)

    def class_(self, node: ast.ClassDef) -> None:
        methods = [child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)]
        inside = _Walk(self.source, self.names, self.known.modules())
        inside.block(child for child in node.body if child not in methods)
        self.nested.append(inside)
        attributes = self.attributes(node)
        for method in methods:
            known = Environment(self.known.modules())
            known.forget("self")
            known.update(attributes)
            self.into(method, known)

    def attributes(self, node: ast.ClassDef) -> Environment:
        """The modules that a class keeps in itself: what all assignments to an attribute agree on."""
        given: dict[str, list[Value | None]] = {}
        for child in ast.walk(node):
            targets = child.targets if isinstance(child, ast.Assign) else []
            if isinstance(child, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
                targets = [child.target]
            for target in targets:
                for part in ast.walk(target):
                    name = dotted(part)
                    if not isinstance(part, ast.Attribute) or name is None or not name.startswith("self."):
                        continue
                    if name.endswith(OPTIONS):
                        given.setdefault(name.rpartition(".")[0], []).append(None)
                    elif name.count(".") == 1 and not isinstance(part.ctx, ast.Load):
                        value = self.module(child.value) if part is target and isinstance(child, ast.Assign) else None
                        given.setdefault(name, []).append(value)
        merged = Environment()
        for name, values in given.items():
            value = values[0]
            for other in values[1:]:
                value = merge(value, other)
            if value is not None:
                merged[name] = value
        return merged

    def assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        if isinstance(value, Result):
            value.statement = node
        for target in node.targets:
            self.bind(target, value)
        if len(node.targets) == 1:
            self.learn_axes(node.targets[0], node.value)

    def bind(self, target: ast.expr, value: Value | None) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            first = None
            if isinstance(value, Result) and len(target.elts) == 2:
                first = _output(value)
            elif isinstance(value, Unpacked) and len(target.elts) == 2:
                first = value.output
            for position, part in enumerate(target.elts):
                self.bind(part, first if position == 0 else None)
            return
        name = dotted(target)
        if name is None:
            for child in ast.iter_child_nodes(target):
                if isinstance(child, ast.expr):
                    self.value(child)
            if isinstance(target, ast.Starred):
                self.bind(target.value, None)
            return
        self.known.forget(name)
        if name.endswith(OPTIONS):
            self.known.pop(name.rpartition(".")[0], None)
        if value is not None:
            self.known[name] = value

    def learn_axes(self, target: ast.expr, value: ast.expr) -> None:
        """`batch_size, seq_len, _ = x.shape` names the axes of x; so does `batch_size = x.size(0)`."""
        of, position = _size_of(value)
        if of is None or self.known.get(of) is not None:
            return
        if position is None and isinstance(target, ast.Tuple | ast.List) and len(target.elts) == 3:
            self.known[of] = Tensor(tuple(_axis(part) for part in target.elts))
        elif position in (0, 1) and _axis(target) == "batch":
            self.known[of] = Tensor(("batch", None, None) if position == 0 else (None, "batch", None))

    # --- expressions ----------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Value | None:
        match node:
            case ast.Name() | ast.Attribute():
                name = dotted(node)
                if name is not None:
                    return self.known.get(name)
                self.value(node.value)  # type: ignore[union-attr]  # a Name has a dotted name
                return None
            case ast.Call():
                return self.call(node)
            case ast.Subscript():
                return self.subscript(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.value(test)
                return merge(self.value(body), self.value(orelse))
            case ast.NamedExpr(target=target, value=inner):
                value = self.value(inner)
                self.bind(target, value)
                return value
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                before = Environment(self.known)
                if isinstance(node, ast.Lambda):
                    self.forget(argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg))
                    self.value(node.body)
                else:
                    self.forget(_stored([node]))
                    self.parts(node)
                self.known.clear()
                self.known.update(before)
                return None
        self.parts(node)
        return None

    def parts(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
            elif isinstance(child, ast.comprehension | ast.keyword | ast.FormattedValue):
                self.parts(child)

    def module(self, node: ast.expr) -> Value | None:
        """A module that an expression makes."""
        if not isinstance(node, ast.Call):
            return None
        full = self.names.full(node.func)
        if full in MODULES:
            kind = MODULES[full]
            return Recurrent(kind, _option(node, kind, "batch_first"), _option(node, kind, "bidirectional"), node)
        if full == "torch.nn.Linear":
            out = node.args[1] if len(node.args) > 1 else keyword(node, "out_features")
            return ToOne() if literal(out) == 1 and literal(out) is not True else None
        if full in LOSSES:
            return Elementwise()
        if isinstance(node.func, ast.Attribute) and node.func.attr in SAME_MODULE:
            return self.module(node.func.value)
        return None

    def call(self, node: ast.Call) -> Value | None:
        full = self.names.full(node.func)
        method, base = None, None
        if isinstance(node.func, ast.Attribute) and full is None:
            method, base = node.func.attr, self.value(node.func.value)
            on = self.known.get(dotted(node.func) or "")
        else:
            on = self.value(node.func)
        given = [self.value(argument) for argument in node.args]
        for word in node.keywords:
            self.value(word.value)
        first = given[0] if given else None
        made = self.module(node)
        if made is not None:
            return made
        if isinstance(on, Recurrent):
            return None if on.is_cell else self.run(on, node, first)
        if isinstance(on, ToOne):
            return Column()
        if isinstance(on, Elementwise) or full in FUNCTIONAL:
            self.compare(node, given)
            return None
        if full in CREATED:
            return _created(node)
        if full is not None and full.startswith(UTILS):
            return _utility(full.removeprefix(UTILS), node, first)
        if method is None or (base is None and method not in ("view", "reshape", "unsqueeze")):
            return None
        if isinstance(base, Recurrent | ToOne | Elementwise):
            return base if method in SAME_MODULE else None
        return _method(method, node, base)

    def run(self, module: Recurrent, node: ast.Call, given: Value | None) -> Result:
        result = Result(module, node)
        if isinstance(given, Tensor | Packed):
            result.input = given
        if isinstance(given, Tensor) and given.padded:
            result.padded = "input"
        if keyword(node, "lengths") is not None:
            result.padded = "output"
        if not isinstance(given, Tensor) or len(given.axes) != 3 or self.guarded("batch_first"):
            return result
        name = ast.unparse(node.func)
        if module.batch_first is False and given.axes[0] == "batch" and given.axes[1] != "batch":
            result.has_finding = True
            self.report(
                node,
                "batch-and-time",
                f"{name} was made without batch_first=True, so it reads axis 0 as time, and axis 0 of "
                f"{ast.unparse(node.args[0])} is the batch: each sample is read as a step after the one before it.",
                f"{name} = {_with(module.made, 'batch_first', True)}",
                result,
            )
        elif module.batch_first is True and given.axes[1] == "batch" and given.axes[0] != "batch":
            result.has_finding = True
            self.report(
                node,
                "batch-and-time",
                f"{name} was made with batch_first=True, so it reads axis 1 as time, and axis 1 of "
                f"{ast.unparse(node.args[0])} is the batch: each sample is read as a step after the one before it.",
                self.mended(node.args[0], f"{ast.unparse(node.args[0])}.transpose(0, 1)"),
                result,
            )
        return result

    def compare(self, node: ast.Call, given: list[Value | None]) -> None:
        if len(given) < 2:
            return
        shapes = [
            "column" if isinstance(value, Column) or (isinstance(value, Tensor) and value.is_column)
            else "flat" if isinstance(value, Tensor) and value.is_flat
            else ""
            for value in given[:2]
        ]  # fmt: skip
        if sorted(shapes) != ["column", "flat"]:
            return
        column = node.args[shapes.index("column")]
        flat = node.args[shapes.index("flat")]
        self.report(
            node,
            "mse-broadcast",
            f"{ast.unparse(column)} has a last axis of size 1 and {ast.unparse(flat)} has one axis only: they are "
            "broadcast to [B, B], and each prediction is compared with every target.",
            self.mended(column, f"{ast.unparse(column)}.squeeze(-1)"),
            None,
        )

    def subscript(self, node: ast.Subscript) -> Value | None:
        base = self.value(node.value)
        self.value(node.slice)
        if isinstance(base, LastStep):
            base.is_cut = True
        if isinstance(base, Result) and literal(node.slice) == 0:
            return _output(base)
        if isinstance(base, Unpacked) and literal(node.slice) == 0:
            return base.output
        if not isinstance(base, Output) or base.packed:
            return None
        step, axis = _step(node.slice)
        if step == 0:
            base.result.reads_first_step = True
        return self.last(node, base, axis) if step == -1 and axis is not None else None

    def last(self, node: ast.Subscript, output: Output, axis: int) -> LastStep | None:
        """What is wrong with output[:, -1], where `axis` is 1, or output[-1], where it is 0."""
        result, module = output.result, output.result.module
        text = ast.unparse(node)
        if output.batch_first is None or self.guarded("batch_first"):
            return None
        if axis != (1 if output.batch_first else 0):
            self.wrong_axis(node, output, text)
            return None
        both = module.bidirectional is True
        if both and result.padded != "input" and not self.guarded("bidirectional"):
            last = LastStep()
            self.report(
                node,
                "last-of-bidirectional",
                f"{text} is the last step of both directions, and the reverse one begins there: its half has read one "
                "step of the sequence only.",
                self.with_state(node, result, both=True),
                result,
                last,
            )
            return last
        if result.padded == "output":
            self.report(
                node,
                "last-of-padded",
                f"{text} is the last step of the longest sequence: for every shorter one it is padding, all zeros. "
                "The last state holds each sequence's own last step.",
                self.with_state(node, result, both=both),
                result,
            )
        elif result.padded == "input":
            first = ast.unparse(result.call.args[0])
            flag = ", batch_first=True" if output.batch_first else ""
            self.report(
                node,
                "last-of-padded",
                f"{text} is the last step of the longest sequence: for every shorter one the module has read padding "
                "until there.",
                f"packed = torch.nn.utils.rnn.pack_padded_sequence({first}, lengths{flag}, enforce_sorted=False)\n"
                + self.with_state(node, result, both=both, given="packed"),
                result,
            )
        return None

    def wrong_axis(self, node: ast.Subscript, output: Output, text: str) -> None:
        result = output.result
        axes = result.input.axes if isinstance(result.input, Tensor) else ()
        if result.has_finding or (len(axes) == 3 and axes[0 if output.batch_first else 1] == "one"):
            return  # it has been said, or the batch has a single row, which is the last one
        name = ast.unparse(result.call.func)
        if not output.batch_first:
            in_order = len(axes) == 3 and axes[1] == "batch"
            self.report(
                node,
                "batch-and-time",
                f"{name} was made without batch_first=True, so its output is (time, batch, features): {text} is every "
                "step of the last sample, not the last step of every sample.",
                self.mended(node, f"{ast.unparse(node.value)}[-1]")
                if in_order
                else f"{name} = {_with(result.module.made, 'batch_first', True)}",
                result,
            )
        elif self.function == "forward" and len(axes) in (0, 3):
            self.report(
                node,
                "batch-and-time",
                f"{name} was made with batch_first=True, so its output is (batch, time, features): {text} is every "
                "step of the last sample, not the last step of every sample.",
                self.mended(node, f"{ast.unparse(node.value)}[:, -1]"),
                result,
            )

    # --- what is said ---------------------------------------------------------------------------------------

    def report(
        self, node: ast.expr, code: str, what: str, mend: str, result: Result | None, last: LastStep | None = None
    ) -> None:
        self.pending.append(((node, code, what, mend), result, last))

    def guarded(self, word: str) -> bool:
        """Whether the code stands under a condition that speaks of an option, so that it may well be right."""
        return any(word in guard for guard in self.guards)

    def mended(self, node: ast.expr, new: str) -> str:
        """The line of an expression with another in its place; the other alone where it goes over several lines."""
        if node.lineno != node.end_lineno or node.end_col_offset is None:
            return new
        line = self.source.text.splitlines()[node.lineno - 1].encode()
        whole = (line[: node.col_offset] + new.encode() + line[node.end_col_offset :]).decode().strip()
        comment = self.source.comments.get(node.lineno)
        return whole if comment is None else whole[: whole.rindex("#")].rstrip()

    def with_state(self, node: ast.Subscript, result: Result, *, both: bool, given: str | None = None) -> str:
        """The line that takes the last state instead of the last step; before it, where needed, the call."""
        state, taken_apart = _state(result)
        new = f"torch.cat([{state}[-2], {state}[-1]], dim=-1)" if both else f"{state}[-1]"
        line = self.mended(node, new)
        if taken_apart and given is None:
            return line
        call = copy.deepcopy(result.call)
        if given is not None:
            call.args[0] = ast.Name(given)
        pair = f"({state}, _)" if result.module.kind == "LSTM" else state
        if taken_apart and result.statement is not None:
            left = ast.unparse(result.statement.targets[0])[1:-1]
        else:
            left = f"output, {pair}"
            if result.statement is not None and isinstance(result.statement.targets[0], ast.Tuple):
                left = f"{ast.unparse(result.statement.targets[0].elts[0])}, {pair}"
        return f"{left} = {ast.unparse(call)}\n{line}"


def _leaves(block: Sequence[ast.stmt]) -> bool:
    return bool(block) and isinstance(block[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)


def _stored(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that are assigned to anywhere in some statements."""
    found = set()
    for node in nodes:
        for child in ast.walk(node):
            if isinstance(child, ast.Name | ast.Attribute) and not isinstance(child.ctx, ast.Load):
                found.add(dotted(child) or "")
    return found - {""}


def _option(call: ast.Call, kind: str, name: str) -> bool | None:
    if name not in POSITIONS[kind]:
        return False
    given = keyword(call, name)
    if given is None:
        if any(isinstance(argument, ast.Starred) for argument in call.args) or any(
            word.arg is None for word in call.keywords
        ):
            return None
        position = POSITIONS[kind].index(name)
        if position >= len(call.args):
            return False
        given = call.args[position]
    value = literal(given)
    return value if isinstance(value, bool) else None


def _with(call: ast.Call, name: str, value: bool) -> str:
    """A call with an option set."""
    new = copy.deepcopy(call)
    new.keywords = [word for word in new.keywords if word.arg != name] + [ast.keyword(name, ast.Constant(value))]
    return ast.unparse(new)


def _output(result: Result) -> Output:
    return Output(result, result.module.batch_first, packed=isinstance(result.input, Packed))


def _axis(node: ast.AST) -> Axis:
    """What an axis counts, by the name of its size."""
    if literal(node) == 1:
        return "one"
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    name = name.lower()
    return "batch" if name in BATCH else "time" if name in TIME else None


def _sizes(arguments: list[ast.expr]) -> list[ast.expr] | None:
    """The sizes of a shape, given one by one or as one tuple or list."""
    if len(arguments) == 1 and isinstance(arguments[0], ast.Tuple | ast.List):
        arguments = arguments[0].elts
    return None if not arguments or any(isinstance(size, ast.Starred) for size in arguments) else arguments


def _created(node: ast.Call) -> Tensor | None:
    size = keyword(node, "size")
    sizes = _sizes(node.args if size is None else [size])
    if sizes is None or (len(sizes) == 1 and literal(sizes[0]) is None and _axis(sizes[0]) is None):
        return None  # one name alone may be a whole shape
    return Tensor(tuple(_axis(size) for size in sizes))


def _utility(name: str, node: ast.Call, given: Value | None) -> Value | None:
    """torch.nn.utils.rnn's functions."""
    position = {"pad_sequence": 1, "pad_packed_sequence": 1}.get(name, len(node.args))
    flag = keyword(node, "batch_first") or (node.args[position] if len(node.args) > position else None)
    value = literal(flag)
    batch_first = False if flag is None else value if isinstance(value, bool) else None
    if name == "pad_sequence":
        axes: tuple[Axis, ...] = (None, None, None)
        if batch_first is not None:
            axes = ("batch", "time", None) if batch_first else ("time", "batch", None)
        return Tensor(axes, padded=True)
    if name in ("pack_padded_sequence", "pack_sequence"):
        return Packed()
    if name == "pad_packed_sequence" and isinstance(given, Output):
        given.result.padded = "output"
        return Unpacked(replace(given, batch_first=batch_first, packed=False))
    return None


def _method(method: str, node: ast.Call, base: Value | None) -> Value | None:
    """What a tensor's method gives."""
    numbers = [literal(argument) for argument in node.args]
    known = base if isinstance(base, Tensor) else None
    if method in ("view", "reshape"):
        sizes = _sizes(node.args)
        if sizes is None or (len(sizes) == 1 and literal(sizes[0]) != -1):
            return None
        return Tensor(tuple(_axis(size) for size in sizes))
    if method == "unsqueeze" and len(numbers) == 1:
        at = numbers[0]
        if known is not None and isinstance(at, int):
            axes = list(known.axes)
            axes.insert(at if at >= 0 else len(axes) + 1 + at, "one")
            return replace(known, axes=tuple(axes))
        return Tensor((None, "one", None)) if at == 1 else None
    if method in SAME_TENSOR and isinstance(base, Tensor | Column | Output):
        return base
    if known is None:
        return None
    if method in ("flatten", "ravel") and not node.args:
        return Tensor((None,))
    if method == "transpose" and len(known.axes) == 3 and sorted(map(str, numbers)) == ["0", "1"]:
        return replace(known, axes=(known.axes[1], known.axes[0], known.axes[2]))
    if method == "permute" and len(known.axes) == 3 and numbers == [1, 0, 2]:
        return replace(known, axes=(known.axes[1], known.axes[0], known.axes[2]))
    return None


def _size_of(node: ast.expr) -> tuple[str | None, int | None]:
    """The name of x, and k, in x.shape[k] or x.size(k); None for k in x.shape and x.size()."""
    position: object = None
    if isinstance(node, ast.Subscript):
        position, node = literal(node.slice), node.value
        if not isinstance(position, int) or not (isinstance(node, ast.Attribute) and node.attr == "shape"):
            return None, None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "size":
        position = literal(node.args[0]) if node.args else None
        return dotted(node.func.value), position if isinstance(position, int) else None
    if isinstance(node, ast.Attribute) and node.attr == "shape":
        return dotted(node.value), position if isinstance(position, int) else None
    return None, None


def _step(index: ast.expr) -> tuple[int | None, int | None]:
    """The step and the axis that an index takes: (-1, 1) for [:, -1]; None where it cuts something else too."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    step: int | None = None
    axis: int | None = None
    for position, part in enumerate(parts):
        number = literal(part)
        if isinstance(number, int) and position < 2 and axis is None:
            step, axis = number, position
        elif not (isinstance(part, ast.Slice) and part.lower is part.upper is part.step is None) and number is not ...:
            return (step, None) if step == 0 else (None, None)
        elif number is ... and position < len(parts) - 1:
            return None, None
    return step, axis


def _state(result: Result) -> tuple[str, bool]:
    """What the last h is called, and whether it is called so already."""
    statement = result.statement
    if statement is not None and isinstance(statement.targets[0], ast.Tuple) and len(statement.targets[0].elts) == 2:
        state = statement.targets[0].elts[1]
        if isinstance(state, ast.Tuple) and state.elts:
            state, suffix = state.elts[0], ""
        else:
            suffix = "[0]" if result.module.kind == "LSTM" else ""
        name = dotted(state)
        if name is not None and name.strip("_"):
            return name + suffix, True
    return "h_n", False
