"""What a report was made with: the package, the commit of its clone, and the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import asr_kd
from asr_kd.io.cores import usable_cores
from asr_kd.kernels.process import cpu_flags

_CLONE = Path(asr_kd.__file__).parents[1]
_PRODUCTS = ("avx512_bf16", "amx_bf16", "avx512f", "avx2")  # flags of processors, of which the first is named


@dataclass(frozen=True)
class MadeWith:
    """Versions and machine of the last stage; earlier ones may have run elsewhere.

    Attributes:
      commit: as `git describe --always --dirty` has it; empty where the package is not in a clone.
      processor: its name, and the widest products that it has.
    """

    asr_kd: str
    commit: str
    python: str
    torch: str
    cores: int
    processor: str


def made_with(clone: Path = _CLONE, cpuinfo: Path = Path("/proc/cpuinfo")) -> MadeWith:
    """Returns the versions, the commit and the machine of this process."""
    return MadeWith(
        asr_kd=asr_kd.__version__,
        commit=_commit(clone),
        python=platform.python_version(),
        torch=importlib.metadata.version("torch"),
        cores=usable_cores(),
        processor=_processor(cpuinfo),
    )


def _commit(clone: Path) -> str:
    if not (clone / ".git").exists():
        return ""
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # there is no git, or it refuses another user's clone
        return ""


def _processor(cpuinfo: Path) -> str:
    flags = cpu_flags(cpuinfo)
    products = next((flag for flag in _PRODUCTS if flag in flags), "")
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, "") or platform.machine()
    return f"{name} with {products}" if products else name
