"""The rules about trainings and what they train: the seed, the sum of the losses, weights that are none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from gatewise.insight.doctor.files import Source
from gatewise.insight.doctor.flow import Problem
from gatewise.insight.doctor.gates import scopes, within
from gatewise.insight.doctor.names import Names, dotted

RANDOM = {f"torch.{name}" for name in ("randn", "rand", "normal", "empty", "zeros", "ones")}
WEIGHT_LIKE = re.compile(r"_?(.*emb(ed.*|s)?|.*table|.*lookup.*|.*weights?|[WUV](_?\w{1,3})?)")
FUNCTIONS = {"embedding": 1, "linear": 1, "matmul": 0, "mm": 0, "bmm": 0, "index_select": 0, "einsum": 1}
"""Functions that read a weight, with the first argument that may be one."""
CUTS = {"item", "detach", "tolist", "float", "numpy", "cpu"}
NO_GRADIENT = {"torch.no_grad", "torch.inference_mode"}


def no_seed(source: Source, names: Names) -> Iterator[Problem]:
    """Find a script that trains without a seed, and `torch.seed()` where a seed should be set.

    Parameters
    ----------
    source : Source
        The file.
    names : Names
        Its imports.

    Yields
    ------
    Problem
        Of the code no-seed.
    """
    drawn = False
    for node in source.nodes:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and names.full(call.func) in ("torch.seed", "torch.random.seed"):
            drawn = True
            text = ast.unparse(call.func).removesuffix("seed") + "manual_seed(0)"
            yield (
                call,
                "no-seed",
                (f"{ast.unparse(call)} draws a new seed in each run: no result can be had again."),
                text,
            )
    if drawn or not names.imports("torch") or _speaks_of_seeds(source):
        return
    loop = _training(source)
    if loop is not None:
        yield (
            loop,
            "no-seed",
            (
                "the file trains and sets no seed: initial weights, dropout and the order of the samples are others in "
                "each run, and no result can be had again."
            ),
            f"{names.local('torch')}.manual_seed(0)  # before the model is made",
        )


def _speaks_of_seeds(source: Source) -> bool:
    for node in source.nodes:
        words = (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "arg", None))
        said = [*words, getattr(node, "name", None), getattr(node, "module", None)]
        if any(isinstance(word, str) and ("seed" in word.lower() or "determinis" in word.lower()) for word in said):
            return True
    return False


def _training(source: Source) -> ast.For | ast.While | None:
    """The loop that trains, in a file that runs as a script."""
    is_script = any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in source.tree.body)
    nodes = source.nodes if is_script else within(source.tree.body)
    for node in nodes:
        if isinstance(node, ast.For | ast.While):
            called = {
                child.func.attr
                for child in within(node.body)
                if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute)
            }
            if {"backward", "step"} <= called:
                return node
    return None


def graph_kept_alive(source: Source, names: Names) -> Iterator[Problem]:
    """Find `total += loss` beside `loss.backward()` in a loop.

    Parameters
    ----------
    source : Source
        The file.
    names : Names
        Its imports.

    Yields
    ------
    Problem
        Of the code graph-kept-alive.
    """
    for scope in scopes(source):
        everywhere = list(within(scope))
        for loop in everywhere:
            if isinstance(loop, ast.For | ast.While):
                yield from _summed(loop, everywhere, names)


def _summed(loop: ast.For | ast.While, everywhere: Sequence[ast.AST], names: Names) -> Iterator[Problem]:
    body = list(within(loop.body))
    backward = {
        dotted(node.func.value)
        for node in body
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "backward"
    }
    assigned = [
        (dotted(target), node.value) for node in body if isinstance(node, ast.Assign) for target in node.targets
    ]
    free = {
        id(inner)
        for node in body
        if isinstance(node, ast.With) and any(_is_no_grad(item.context_expr, names) for item in node.items)
        for inner in within(node.body)
    }
    for node in body:
        if not isinstance(node, ast.AugAssign) or not isinstance(node.op, ast.Add) or id(node) in free:
            continue
        total, loss = dotted(node.target), dotted(node.value)
        if total is None or loss is None or loss not in backward:
            continue
        remade = [value for name, value in assigned if name == loss]
        if any(name == total for name, _ in assigned) or not remade or any(_cuts(value) for value in remade):
            continue
        if _is_backward_of(total, everywhere):
            continue
        yield (
            node,
            "graph-kept-alive",
            (f"{loss} carries its step's graph, and {total} holds on to all of them: memory grows with every step."),
            f"{total} += {loss}.item()",
        )


def _is_no_grad(node: ast.expr, names: Names) -> bool:
    return isinstance(node, ast.Call) and names.full(node.func) in NO_GRADIENT


def _cuts(value: ast.expr) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr in CUTS for node in ast.walk(value))


def _is_backward_of(total: str, everywhere: Sequence[ast.AST]) -> bool:
    """Whether a sum is itself propagated back, or made into something that may be."""
    for node in everywhere:
        if isinstance(node, ast.Attribute) and node.attr == "backward" and dotted(node.value) == total:
            return True
        if isinstance(node, ast.Assign) and total in {dotted(part) for part in ast.walk(node.value)}:
            made = {dotted(target) for target in node.targets}
            if any(
                isinstance(other, ast.Attribute) and other.attr == "backward" and dotted(other.value) in made
                for other in everywhere
            ):
                return True
    return False


def embedding_not_a_parameter(source: Source, names: Names) -> Iterator[Problem]:
    """Find a tensor that a module uses as a weight, though it is neither parameter nor buffer.

    Parameters
    ----------
    source : Source
        The file.
    names : Names
        Its imports.

    Yields
    ------
    Problem
        Of the code embedding-not-a-parameter.
    """
    for node in source.nodes:
        if isinstance(node, ast.ClassDef) and any(names.full(base) == "torch.nn.Module" for base in node.bases):
            yield from _plain_weights(node, source, names)


def _plain_weights(module: ast.ClassDef, source: Source, names: Names) -> Iterator[Problem]:
    methods = {method.name: method for method in module.body if isinstance(method, ast.FunctionDef)}
    if "__init__" not in methods or "forward" not in methods:
        return
    stored = [
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and dotted(node.value) == "self"
    ]
    for node in within(methods["__init__"].body):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target = node.targets[0]
        if not isinstance(target, ast.Attribute) or dotted(target.value) != "self":
            continue
        name = target.attr
        if not WEIGHT_LIKE.fullmatch(name) or stored.count(name) != 1 or not _is_random(node.value, names):
            continue
        if not _is_read_as_weight(f"self.{name}", methods["forward"]) or _is_handed_on(name, source):
            continue
        parameter = f"{names.local('torch.nn')}.Parameter"
        yield (
            node,
            "embedding-not-a-parameter",
            (
                f"self.{name} is a plain tensor, neither parameter nor buffer: it is not in model.parameters(), so no "
                "optimizer trains it, and neither .to(device) nor state_dict() takes it along."
            ),
            f"self.{name} = {parameter}({ast.unparse(node.value)})",
        )


def _is_random(value: ast.expr, names: Names) -> bool:
    """Whether an expression makes a new tensor, as it is or through torch.nn.init or a number's product."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult | ast.Div):
        return _is_random(value.left, names) or _is_random(value.right, names)
    if not isinstance(value, ast.Call):
        return False
    full = names.full(value.func) or ""
    if full.startswith("torch.nn.init.") and value.args:
        return _is_random(value.args[0], names)
    if isinstance(value.func, ast.Attribute) and not full and value.func.attr in ("to", "float", "requires_grad_"):
        return _is_random(value.func.value, names)
    return full in RANDOM


def _is_read_as_weight(name: str, forward: ast.FunctionDef) -> bool:
    for node in ast.walk(forward):
        match node:
            case ast.Subscript(value=value, ctx=ast.Load()) if dotted(value) == name:
                return True
            case ast.BinOp(op=ast.MatMult(), left=left, right=right) if name in (_bare(left), _bare(right)):
                return True
            case ast.Call(func=ast.Attribute(attr=attr), args=arguments) if attr in FUNCTIONS:
                if name in [_bare(argument) for argument in arguments[FUNCTIONS[attr] :]]:
                    return True
    return False


def _bare(node: ast.expr) -> str | None:
    """A name, transposed or not."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("t", "transpose"):
        node = node.func.value
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        node = node.value
    return dotted(node)


def _is_handed_on(name: str, source: Source) -> bool:
    """Whether code outside of the module takes the tensor, to train it perhaps, or a string names it."""
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and node.attr == name and dotted(node.value) != "self":
            return True
        if isinstance(node, ast.Constant) and node.value == name:
            return True
    return False
