"""What is installed here and whether it works: each part is imported, and a toy graph is decoded and checked.

Every part that is missing or broken comes with the command that fixes it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asr_kd
from asr_kd.decoding.settings import BACKENDS, DecodingConfig
from asr_kd.io.cores import usable_cores

_ROOT = Path(asr_kd.__file__).resolve().parents[1]  # the checkout, where the package is installed editable
_REFERENCE = "make setup && .venv/bin/asr-kd doctor"
# extra -> what cannot be done without it; the extra `dev` is for work on asr_kd itself
_EXTRAS = {
    "k2": "asr-kd decode takes its own search",
    "dask": "no --executor tcp://...",
    "tensorboard": "no TensorBoard logs; the JSON-lines logs are written all the same",
}


@dataclass(frozen=True)
class Check:
    """One part of the set-up."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str  # a version, or what is wrong
    fix: str = ""  # the command that fixes it; empty where nothing is wrong
    needed: bool = True  # the main job cannot be done without it


@dataclass(frozen=True)
class Diagnosis:
    """All checks, in the order in which the parts are needed."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the main job (train, distil, decode, report) can be done here."""
        return not self._bad

    @property
    def _bad(self) -> list[str]:
        return [check.name for check in self.checks if check.needed and check.state != "ok"]

    def __str__(self) -> str:
        """Lines of text, each command on a line of its own."""
        width = max(len(check.name) for check in self.checks)
        lines = [f"asr_kd {asr_kd.__version__}, {platform.system()} {platform.machine()}"]
        for check in self.checks:
            lines.append(f"  {check.state:8}{check.name:{width}}  {check.detail}".rstrip())
            if check.fix:
                lines.append(f"          fix: {check.fix}")
        bad = f"The main job cannot be done here yet: {', '.join(self._bad)}."
        return "\n".join([*lines, "The main job can be done here." if self.ok else bad])


@dataclass(frozen=True)
class _Requirement:
    """What asr_kd's metadata says must be installed."""

    distribution: str
    versions: str  # ">=1.26"
    extra: str = ""  # empty: always needed

    @property
    def modules(self) -> list[str]:
        """What is imported of it."""
        name = _canonical(self.distribution)
        modules = [m for m, names in _packages().items() if name in map(_canonical, names) and not m.startswith("_")]
        usual = name.replace("-", "_")
        return modules if modules and usual not in modules else [usual]


@functools.cache  # each call reads the metadata of all that is installed
def _packages() -> Mapping[str, list[str]]:
    """Module -> the distributions that have it."""
    return importlib.metadata.packages_distributions()


def examine() -> Diagnosis:
    """Checks everything and changes nothing; imports all packages, so it takes some seconds."""
    requirements = sorted(_requirements(), key=lambda requirement: requirement.distribution != "torch")  # torch first
    parts = {requirement.distribution: _import_check(requirement) for requirement in requirements}
    k2 = parts.pop("k2", None) or _import_check(_Requirement("k2", "", extra="k2"))
    decoders = [_toy_check("native", parts["numba"]), _toy_check("kaldi", parts["kaldi-decoder"], parts["kaldifst"])]
    decoders += [
        _toy_check(name, Check(backend.package, "ok" if backend.installed else "missing", ""))
        for name, backend in BACKENDS.items()
        if name not in ("k2", "native", "kaldi")
    ]
    if k2.state != "missing":
        decoders.insert(0, _toy_check("k2", k2))
    needed = [check for check in parts.values() if check.needed]
    optional = [check for check in parts.values() if not check.needed]
    python = Check("Python", "ok", f"{platform.python_version()} ({sys.executable})")
    return Diagnosis((python, *needed, k2, *decoders, *_devices(), *optional, _download_check()))


# --- packages


def _requirements() -> Iterator[_Requirement]:
    for line in importlib.metadata.requires("asr_kd") or ():
        requirement, _, marker = line.partition(";")
        match = re.match(r"([\w.-]+)\s*(?:\[.*\])?\s*(.*)", requirement.strip())
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if match and (extra is None or extra[1] in _EXTRAS):
            yield _Requirement(_canonical(match[1]), match[2].strip(" ()"), extra[1] if extra else "")


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _import_check(requirement: _Requirement) -> Check:
    name, extra = requirement.distribution, requirement.extra
    modules = requirement.modules
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:  # a wrong binary may raise anything
        absent = isinstance(error, ModuleNotFoundError) and error.name in modules
        state: Literal["missing", "broken"] = "missing" if absent else "broken"
        detail = "not installed" if absent else _one_line(error)
        # a broken k2 counts: asr-kd decode would take it
        needed = not extra or (extra == "k2" and not absent)
        return Check(name, state, f"{detail}; {_EXTRAS[extra]}" if extra else detail, _fix(requirement, state), needed)
    return Check(name, "ok", _version(name), needed=not extra or extra == "k2")


def _fix(requirement: _Requirement, state: Literal["missing", "broken"]) -> str:
    """The command for this environment: a locked one is set up again as a whole, another gets the one package."""
    name, extra = requirement.distribution, requirement.extra
    for venv, command in ((".venv", "make setup"), (".venv-modern", "make setup ENV=modern")):
        if Path(sys.prefix) == _ROOT / venv and (not extra or (extra == "k2" and venv == ".venv")):
            return f"cd {_ROOT} && rm -rf {venv} && {command}"
    if name == "k2":  # its wheels fit one torch and one Python: those of the lock file
        return _REFERENCE
    package = f"'{name}{requirement.versions}'"
    if (Path(sys.prefix) / "asr_kd.stamp").exists():  # made by uv, without pip
        uv = "uv" if shutil.which("uv") else f"{_ROOT / '.uv/bin/uv'}"
        return f"{uv} pip install --python {sys.executable} {package}"
    force = "--force-reinstall --no-deps " if state == "broken" else ""
    return f"{sys.executable} -m pip install {force}{package}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


# --- decoding: four frames, three senones, and a graph whose arcs are words, small enough to try every path

TOY_ARCS = ((0, 1, 0, -0.25), (0, 2, 2, -1.0), (1, 1, 0, -0.5), (1, 2, 1, -0.75), (2, 2, 1, -0.125), (2, 3, -1, 0.0))
TOY_WORDS = ("A", "B", "C", "D", "E")  # of the arcs: from, to, senone, score; the last one ends the path
TOY_SCORES = ((-0.5, -2.0, -1.5), (-0.75, -1.0, -2.5), (-3.0, -0.25, -1.25), (-2.0, -0.5, -0.5))
TOY_BEST = ("A", "D", "E", "E"), -3.5


def _decode_toy(backend: str) -> tuple[tuple[str, ...], float]:
    """Words and score of the path that a decoder takes for the best."""
    import numpy as np

    from asr_kd.decoding.decoder import make_decoder
    from asr_kd.decoding.graph import Graph

    src, dst, senone = np.array([arc[:3] for arc in TOY_ARCS], np.int32).T.copy()
    output = np.array([*range(1, len(TOY_ARCS)), 0], np.int32)
    score = np.array([arc[3] for arc in TOY_ARCS], np.float32)
    graph = Graph(src, dst, senone, output, score, len(TOY_SCORES[0]), TOY_WORDS, ())
    decoder = make_decoder(backend, graph, DecodingConfig(), acoustic_scale=1.0)
    (best,) = decoder.decode([np.array(TOY_SCORES, np.float32)])
    return best.words, best.score


def _toy_check(backend: str, *parts: Check) -> Check:
    name = f"toy graph, {backend}"
    bad = [part for part in parts if part.state != "ok"]
    if bad:
        return Check(name, "broken", f"not tried, since it needs {' and '.join(p.name for p in bad)}", bad[0].fix)
    fix = _fix(_Requirement(parts[0].name, ""), "broken")
    (expected_words, expected_score) = TOY_BEST
    try:
        words, score = _decode_toy(backend)
    except Exception as error:  # whatever a wrong binary does
        return Check(name, "broken", _one_line(error), fix)
    if words != expected_words or abs(score - expected_score) > 1e-4:
        detail = f"best path {words} of score {score:.4f}, expected {expected_words} of score {expected_score:.4f}"
        return Check(name, "broken", detail, fix)
    return Check(name, "ok", f"the best of all paths, score {score:.4f}")


# --- the machine


def _devices() -> list[Check]:
    """Processor and GPUs, with the number format that precision `auto` takes there; needs torch."""
    cores = usable_cores()
    try:
        import torch

        from asr_kd.acoustic.model import fastest_dtype

        products = str(fastest_dtype("cpu")).removeprefix("torch.")
        checks = [Check("processor", "ok", f"{cores} cores, matrix products in {products}", needed=False)]
        if not torch.cuda.is_available():
            return [
                *checks,
                Check("GPU", "ok", "none that this torch can use; everything runs on the processor", needed=False),
            ]
        products = str(fastest_dtype("cuda")).removeprefix("torch.")
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.mem_get_info(index)[1] / 2**30
            detail = f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB, matrix products in {products}"
            checks.append(Check(f"GPU {index}", "ok", detail, needed=False))
        return checks
    except Exception as error:  # torch is missing or broken, which has its own line
        return [Check("processor", "ok", f"{cores} cores; torch says no more ({type(error).__name__})", needed=False)]


def _download_check() -> Check:
    """What stage 0 of recipes/prompts fetches Debian's packages with."""
    name = "apt-get, dpkg"
    absent = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if not absent:
        return Check(name, "ok", "recipes/prompts can fetch its speech", needed=False)
    detail = f"no {' and no '.join(absent)}; recipes/prompts tries the tarball of its makers, or takes a local copy"
    return Check(name, "missing", detail, "recipes/prompts/run.sh --prompts-dir DIR", needed=False)
