"""A recogniser of a toy language: random weights, a real graph."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.decoding.graph import compile_graph
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.frames.normalisation import Normalisation
from asr_kd.runtime.recogniser import Parts, RecogniserSettings

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "decoding" / "toy.py")
assert _spec is not None and _spec.loader is not None
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

RATE, BINS = 8000, 8


@pytest.fixture(scope="session")
def parts() -> Parts:
    tree = toy.toy_tree(np.random.default_rng(0), 2)
    context = DnnConfig(layers=1, width=8, left_context=3, right_context=2)
    model = build_model(context, num_dims=BINS, num_senones=tree.num_senones, seeds=[3])
    model.precision = "float32"
    rng = np.random.default_rng(1)
    normalisation = Normalisation(
        rng.normal(-8, 1, (1, BINS)).astype(np.float32), rng.uniform(0.5, 1, BINS).astype(np.float32)
    )
    settings = RecogniserSettings(
        sampling_rate=RATE,
        num_mel_bins=BINS,
        acoustic_scale=0.5,
        word_penalty=0.0,
        running_seconds=6.0,
        decoding=DecodingConfig(),
    )
    return Parts(model, tree, compile_graph(toy.LANG, toy.ARPA, tree, 0.5), toy.LANG, normalisation, settings)


@pytest.fixture(scope="session")
def running(parts: Parts) -> Parts:
    """The same with a running mean."""
    normalisation = replace(parts.normalisation, running=parts.normalisation.running_mean(6.0))
    return replace(parts, normalisation=normalisation)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """(n,) float32 of changing loudness."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0.01, 0.3, round(seconds / 0.1) + 1), RATE // 10)[: round(seconds * RATE)]
    return (loud * rng.normal(size=len(loud))).astype(np.float32)
