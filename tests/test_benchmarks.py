"""Every benchmark can be loaded: a name that it uses and that is gone from the package is seen here."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("bench_*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_it_can_be_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(path, monkeypatch)


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "5")  # some set it for this process
    monkeypatch.syspath_prepend(path.parent)  # as python does for a script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_there_are_some() -> None:
    assert len(BENCHMARKS) >= 6


def test_what_confidences_are_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load(Path(__file__).parents[1] / "benchmarks/bench_confidence.py", monkeypatch)
    right = np.array([True, True, True, False])
    share = np.full(4, 0.75)
    assert bench.normalised_cross_entropy(share, right) == pytest.approx(0.0)
    assert bench.normalised_cross_entropy(right.astype(float), right) > 0.98
    assert bench.normalised_cross_entropy(np.array([0.9, 0.9, 0.9, 0.9]), right) < 0
    assert bench.area_under_the_curve(share, right) == 0.5
    assert bench.area_under_the_curve(np.array([0.9, 0.5, 0.2, 0.4]), right) == pytest.approx(2 / 3)
