"""What the benchmark is told: a frozen dataclass that is its command line."""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import tyro

from gatewise.bench.grid import GRID, QUICK, QUICK_VARIED, VARIED, Size, read_sizes
from gatewise.drawing import check_ending
from gatewise.errors import ArgumentError

Kind = Literal["forward", "training"]
FormName = Literal["plain", "batch-first", "packed", "projected", "bfloat16", "float64"]
PeerName = Literal["torch", "cell-loop", "gate-loop", "onnxruntime", "jax"]
Malloc = Literal["default", "tuned", "both"]
VariantName = Literal[
    "peephole",
    "coupled",
    "layer-norm",
    "projection",
    "zoneout",
    "recurrent-dropout",
    "variational-dropout",
    "weight-dropout",
    "hard-sigmoid",
    "step",
    "linear-candidate",
    "linear-cell",
    "slstm",
    "peephole+coupled",
    "layer-norm+zoneout",
]

Name = TypeVar("Name", bound=str)

KINDS: tuple[Kind, ...] = get_args(Kind)
FORMS: tuple[FormName, ...] = get_args(FormName)
PEERS: tuple[PeerName, ...] = get_args(PeerName)
MALLOCS: tuple[Malloc, ...] = get_args(Malloc)
VARIANTS: tuple[VariantName, ...] = get_args(VariantName)


QUICK_TURNS, QUICK_TURN = 5, 0.002
TURN = 0.02


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """The settings of a benchmark.

    Raises
    ------
    ArgumentError
        A value is out of range.

    Examples
    --------
    >>> BenchConfig(sizes=("1",)).chosen_sizes()
    (Size(B=8, T=20, I=32, H=32, L=1, D=1),)
    >>> BenchConfig(repeats=1)
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: repeats is 1, needed is a number from 2 to 10000: change it
    """

    sizes: tuple[str, ...] = ("all",)
    """Rows of the peers' table by number, from 1, or sizes of your own as B,T,I,H,L or B,T,I,H,L,D; all: every row."""

    kinds: tuple[Kind, ...] = KINDS
    """forward: without gradients. training: forward, and backward to the input, the states and all parameters."""

    forms: tuple[FormName | Literal["all"], ...] = ("plain",)
    """plain: (T, B, I), float32. packed: T/4 to T steps. projected: proj_size H/2. Peers but torch: plain only."""

    peers: tuple[PeerName | Literal["all"], ...] = ("torch",)
    """Who stands beside gatewise; cell-loop and gate-loop are loops in Python. Who is not installed is listed so."""

    variants: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ("none",)
    """Names of variants, or all: their table in place of the peers'. (Without --forms, --peers, --kinds forward.)"""

    repeats: int = 21
    """Turns that each peer takes; the table gives their median."""

    seconds: float = 30.0
    """A peer whose turns take longer in a row takes fewer, but 5; if its first call does, none. The table says so."""

    threads: int = 0
    """CPU threads; 0 takes as many as torch finds."""

    isa: str = ""
    """The instruction set of gatewise's kernels, such as avx2; empty: the best of this machine. Peers keep theirs."""

    malloc: Malloc = "default"
    """default: as it comes. tuned: keeps freed memory, which spares torch page faults (glibc). both: two tables."""

    quick: bool = False
    """5 turns of 2 ms instead, and few sizes in place of all: shows that everything works, not how fast it is."""

    json: Path | None = None
    """A file for all that was measured, turn by turn."""

    figure: Path | None = None
    """A file for the figure, .png, .pdf or .svg: the ratios, and the share of the ceiling. --malloc both: two."""

    def __post_init__(self) -> None:
        self.chosen_sizes()
        for name, known in (("kinds", KINDS), ("forms", (*FORMS, "all")), ("peers", (*PEERS, "all"))):
            given: tuple[str, ...] = getattr(self, name)
            self._need(name, bool(given) and set(given) <= set(known), f"one or more of {', '.join(known)}")
        self._check_variants()
        self._need("malloc", self.malloc in MALLOCS, f"one of {', '.join(MALLOCS)}")
        self._need("repeats", 2 <= self.repeats <= 10000, "a number from 2 to 10000")
        self._need("seconds", 0 < self.seconds < math.inf, "a number above 0")
        self._need("threads", 0 <= self.threads <= 1024, "a number from 0 to 1024")
        if self.figure is not None:
            check_ending(self.figure)

    def _need(self, name: str, holds: bool, needed: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = (" ".join(map(str, value)) or "empty") if isinstance(value, tuple) else value
            raise ArgumentError(f"{name} is {shown}, needed is {needed}: change it")

    def _check_variants(self) -> None:
        """Refuse what has no place in the variants' table."""
        if self.variants == ("none",):
            return
        known = set(self.variants) <= {*VARIANTS, "all"}
        self._need("variants", bool(self.variants) and known, f"none, all, or one or more of {', '.join(VARIANTS)}")
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if field.name in ("kinds", "forms", "peers") and given not in (field.default, ("training",)):
                raise ArgumentError(
                    f"{field.name} is {' '.join(given)} and variants are asked for, whose table is of training, in the "
                    f"plain form, beside a loop in Python: leave out {field.name} or variants"
                )

    def chosen_sizes(self) -> tuple[Size, ...]:
        """Give the sizes to measure, in the order given."""
        if self.variants == ("none",):
            return read_sizes(self.sizes, QUICK if self.quick else GRID)
        return read_sizes(self.sizes, QUICK_VARIED if self.quick else VARIED)

    def chosen_variants(self) -> tuple[VariantName, ...]:
        """Give the variants to measure, in the order of `VARIANTS`; none: the table is that of the peers."""
        return _chosen(VARIANTS, self.variants)

    def chosen_forms(self) -> tuple[FormName, ...]:
        """Give the forms to measure, in the order of `FORMS`."""
        return _chosen(FORMS, self.forms)

    def chosen_peers(self) -> tuple[PeerName, ...]:
        """Give the peers beside gatewise, in the order of `PEERS`."""
        return _chosen(PEERS, self.peers)

    def figures(self) -> dict[str, Path]:
        """Give the figure's file for each run, by how malloc is in it.

        Examples
        --------
        >>> [str(path) for path in BenchConfig(malloc="both", figure=Path("a.png")).figures().values()]
        ['a.png', 'a-tuned.png']
        """
        if self.figure is None:
            return {}
        if self.malloc == "both":
            return {"default": self.figure, "tuned": self.figure.with_stem(f"{self.figure.stem}-tuned")}
        return {self.malloc: self.figure}

    def turns(self) -> tuple[int, float]:
        """Give how many turns there are, and how many seconds each takes at least."""
        return (QUICK_TURNS, QUICK_TURN) if self.quick else (self.repeats, TURN)

    def command(self) -> str:
        """Write the command line that says the same.

        Examples
        --------
        >>> BenchConfig(sizes=("1", "7"), quick=True).command()
        'gatewise bench --sizes 1 7 --quick'
        """
        words = ["gatewise", "bench"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                given = [] if value is True else value if isinstance(value, tuple) else [value]
                words += [f"--{field.name}", *map(str, given)]
        return shlex.join(words)

    def check_files(self) -> None:
        """Refuse files that cannot be written, before the time is spent.

        Raises
        ------
        ArgumentError
            A file's folder is missing or read-only, its name is a folder's, or one would be written over another.
        """
        figures = list(self.figures().values())
        for name, paths in (("json", [self.json] if self.json else []), ("figure", figures)):
            for path in paths:
                for holds, needed in (
                    (path.parent.is_dir(), "a file in a folder that exists"),
                    (not path.is_dir(), "a file, and this is a folder"),
                    (_can_be_written(path), "a file that can be written"),
                ):
                    if not holds:
                        raise ArgumentError(f"{name} is {path}, needed is {needed}: change it")
        if self.json and self.json.resolve() in [path.resolve() for path in figures]:
            raise ArgumentError(f"json and figure are both {self.json}, needed are two files: change one")


def _can_be_written(path: Path) -> bool:
    """Whether the file system lets it be opened; what is there stays as it is."""
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError:
        return False
    if new:
        path.unlink()
    return True


def _chosen(known: Sequence[Name], given: Sequence[str]) -> tuple[Name, ...]:
    return tuple(name for name in known if name in given or "all" in given)
