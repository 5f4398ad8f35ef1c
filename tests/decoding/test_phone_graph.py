"""The graph of phones finds what trying every sequence of phones finds: bigram, contexts, silences, penalty."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.decoding.decoder import make_decoder
from asr_kd.decoding.graph import Graph, compile_graph
from asr_kd.decoding.settings import BACKENDS, DecodingConfig
from asr_kd.lang.phone_bigram import phone_bigram, phones_as_words

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

EXHAUSTIVE = DecodingConfig(search_beam=1000.0, output_beam=20.0, max_active=100_000)
QUANTISED = 0.01  # minimising rounds each arc's cost to 1/1024
ALIGNED = [[0, 1, 2, 3, 0], [0, 3, 1, 0, 2, 1, 0], [2, 2, 1], [0, 1, 0]]
BIGRAM = phone_bigram(ALIGNED, toy.PHONES)


@pytest.fixture(scope="module")
def tree():
    return toy.toy_tree(np.random.default_rng(11), 2)


@pytest.fixture(scope="module")
def graph(tree) -> Graph:
    return compile_graph(phones_as_words(toy.PHONES, BIGRAM), BIGRAM, tree, 0.0)


def best_by_trying_all(tree, loglikes: np.ndarray, scale: float, penalty: float) -> tuple[float, set[tuple[str, ...]]]:
    """The best score in float64 and all sequences of phones that have it; silence is one of them."""
    frames, scores = len(loglikes), {}
    for length in range(1, frames // 3 + 1):
        for phones in itertools.product(range(len(toy.PHONES)), repeat=length):
            context = (0, *phones, 0)
            senones = [tree.tables[context[i], state, context[i - 1], context[i + 1]]
                       for i in range(1, length + 1) for state in range(3)]  # fmt: skip
            per_state = scale * loglikes.astype(np.float64)[:, senones]
            acoustic = max(per_state[np.arange(frames), path].sum() for path in toy.alignments(frames, 3 * length))
            names = tuple(toy.PHONES[phone] for phone in phones)
            scores[names] = acoustic + toy.language_score(BIGRAM, names) + penalty * length + frames * np.log(0.5)
    best = max(scores.values())
    return best, {names for names, score in scores.items() if score > best - QUANTISED}


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(3, 11),
    scale=st.sampled_from([0.1, 0.5, 1.0]),
    penalty=st.sampled_from([-1.0, 0.0, 2.0]),
)
def test_the_best_path_is_the_one_found_by_trying_everything(tree, graph, backend, seed, frames, scale, penalty):
    if not BACKENDS[backend].installed:
        pytest.skip(f"{backend} is not installed")
    loglikes = (4 * np.random.default_rng(seed).normal(size=(frames, tree.num_senones))).astype(np.float32)
    score, phones = best_by_trying_all(tree, loglikes, scale, penalty)
    decoder = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=scale, word_penalty=penalty)
    (answer,) = decoder.decode([loglikes])
    assert answer.score == pytest.approx(score, abs=QUANTISED)
    assert answer.words in phones
