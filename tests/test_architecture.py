"""The house of the design: imports point down the layers only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "gatewise"

# The lower number may not import the higher one, nor may rooms of one floor import each other.
FLOORS = {
    "errors": 0,
    "whole": 0,
    "drawing": 1,
    "reference": 1,
    "kernels": 2,
    "nn": 3,
    "data": 4,
    "train": 4,
    "insight": 4,
    "tasks": 5,
    "bench": 5,
    "interop": 5,
    "stream": 5,
    "experiments": 6,
    "cli": 7,
    "__main__": 8,
}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """List the gatewise modules that a file imports anywhere in it, `from gatewise import x` as gatewise.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name == "gatewise" or name.startswith("gatewise.")}


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in FLOORS, f"{room} has no floor: add it to the design and to this table"
    for module in imports(path):
        if module == "gatewise.__version__":
            continue
        other = room_of(module)
        if other == "_core":
            assert room == "kernels", f"{path}: only kernels imports the core"
        elif other == "_operators":
            assert path.name == "operators.py", f"{path}: only nn/operators.py imports torch's operators"
        elif other != room:
            assert FLOORS[other] < FLOORS[room], f"{path}: {room} may not import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_below_nn_imports_torch(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if FLOORS[room] < FLOORS["nn"]:
        assert "import torch" not in path.read_text() and "from torch" not in path.read_text()


def test_the_table_finds_an_upward_import(tmp_path):
    """The check itself can fail."""
    bad = tmp_path / "bad.py"
    bad.write_text("from gatewise.cli import main\nfrom gatewise import tasks\n")
    assert {room_of(m) for m in imports(bad)} == {"cli", "tasks"}


def test_import_gatewise_loads_no_workbench():
    code = "import gatewise, sys; gatewise.LSTM; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert not {"matplotlib", "tyro", "rich", "PIL", "cattrs"} & set(loaded)
