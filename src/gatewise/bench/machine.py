"""What the times were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gatewise import __version__, kernels

SPEED_VARIABLES = (
    *("ATEN_", "DNNL_", "GATEWISE_", "GLIBC_TUNABLES", "GOMP_", "KMP_", "LD_PRELOAD", "MALLOC_", "MKL_", "OMP_"),
    "ONEDNN_",
)
"""How the names of environment variables begin that change how fast torch or gatewise is."""


@dataclass(frozen=True)
class Machine:
    """The machine, the versions and the settings of a run."""

    cpu: str
    cores: int
    """That this process may use."""
    threads: int
    system: str
    python: str
    gatewise: str
    isa: str
    """gatewise's instruction set."""
    torch: str
    torch_isa: str
    load: float
    """The load average of the last minute when the run began; not a number where the system has none."""
    environment: dict[str, str]
    """Variables that change the speed."""

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return asdict(self) | {"load": None if self.load != self.load else self.load}

    def lines(self) -> list[str]:
        """Say it in a few lines."""
        lines = [
            f"machine   {self.cpu}, {self.cores} core{'s' * (self.cores != 1)}; {self.system}",
            f"gatewise  {self.gatewise}, instruction set {self.isa}; {self.threads} "
            f"thread{'s' * (self.threads != 1)} for all that can be told how many",
            f"torch     {self.torch}, instruction set {self.torch_isa}; Python {self.python}",
        ]
        if self.environment:
            lines.append(f"set       {' '.join(f'{name}={value}' for name, value in self.environment.items())}")
        if self.load == self.load:
            busy = self.load > 0.25 * self.cores
            lines.append(f"load      {self.load:.2f}{BUSY if busy else ''}")
        return lines


BUSY = ": other work runs here, or just has; the ratios within this run are worth more than its times"


def describe() -> Machine:
    """Describe the machine as it is now, with the threads and the instruction set in use.

    Examples
    --------
    >>> describe().isa == kernels.instruction_set()
    True
    """
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        gatewise=__version__,
        isa=kernels.instruction_set(),
        torch=torch.__version__,
        torch_isa=torch.backends.cpu.get_cpu_capability().lower(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
        environment={name: value for name, value in sorted(os.environ.items()) if name.startswith(SPEED_VARIABLES)},
    )


def _cpu() -> str:
    """The CPU's name, as the system has it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
