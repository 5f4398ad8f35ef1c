"""Real speech (TIMIT's sample): both back ends agree on the best path's cost, and what they hear makes sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from kaldialign import edit_distance

from asr_kd.alignment.tree import Tree, monophone_tree
from asr_kd.decoding.decoder import make_decoder
from asr_kd.decoding.graph import Graph, compile_graph
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.frames.features import fbank
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.lexicon import Lang

SILENT = {"h#", "pau", "epi"}
NUM_UTTERANCES = 60
DECODED = 12


def rows(path: Path) -> list[tuple[int, int, str]]:
    return [(int(a), int(b), what) for a, b, what in map(str.split, path.read_text().splitlines())]


@pytest.fixture(scope="module")
def speech(shared: Path) -> tuple[Graph, list[np.ndarray], list[list[str]]]:
    """A graph of words as their speakers said them, and utterances scored by one Gaussian per third of a phone."""
    names = sorted((shared / "data" / "timit-sample").rglob("*.WRD"))[:NUM_UTTERANCES]
    if not names:
        pytest.skip("no TIMIT sample in the folder `shared`")
    spoken = [(rows(name.with_suffix(".PHN")), rows(name)) for name in names]
    phones = ("SIL", *sorted({p for phone_rows, _ in spoken for _, _, p in phone_rows} - SILENT))
    index = {phone: number for number, phone in enumerate(phones)} | dict.fromkeys(SILENT, 0)
    pronunciations: dict[str, set[tuple[int, ...]]] = {}
    features, states, sentences = [], [], []
    for name, (phone_rows, word_rows) in zip(names, spoken, strict=True):
        sentences.append([word.upper() for _, _, word in word_rows])
        for begin, end, word in word_rows:
            said = tuple(index[p] for a, b, p in phone_rows if a >= begin and b <= end and p not in SILENT)
            pronunciations.setdefault(word.upper(), set()).update({said} if said else ())
        samples, rate = soundfile.read(name.with_suffix(".WAV"), dtype="float32")
        frames = fbank(samples[None], rate, 24)
        features.append(frames - frames.mean(0))
        label = np.zeros(len(frames), np.int64)
        for begin, end, phone in phone_rows:
            edges = np.linspace(begin, end, 4) / (rate / 100)
            for third in range(3):
                label[round(edges[third]) : round(edges[third + 1])] = 3 * index[phone] + third
        states.append(label)
    lang = Lang(phones, tuple(sorted(pronunciations)), {w: tuple(sorted(p)) for w, p in pronunciations.items()})
    tree: Tree = monophone_tree(phones)
    every, labels = np.concatenate(features), np.concatenate(states)
    spread = every.std(0)
    means = np.stack(
        [every[labels == s].mean(0) if (labels == s).any() else every.mean(0) for s in range(3 * len(phones))]
    )
    loglikes = [
        -0.5 * (((x[:, None] - means[None]) / spread) ** 2).sum(-1).astype(np.float32) for x in features[:DECODED]
    ]
    return compile_graph(lang, estimate(sentences, 2, lang.words), tree, 0.2), loglikes, sentences[:DECODED]


def test_both_back_ends_find_the_same_best_path_cost_on_real_utterances(speech):
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    graph, loglikes, _ = speech
    wide = DecodingConfig(search_beam=40.0, output_beam=1.0, max_active=200_000)
    answer = [make_decoder(name, graph, wide, acoustic_scale=0.3).decode(loglikes[:5]) for name in ("k2", "kaldi")]
    for k2, kaldi in zip(*answer, strict=True):
        assert k2.score == pytest.approx(kaldi.score, rel=1e-3)
        assert k2.words == kaldi.words


def test_most_words_of_real_utterances_are_recognised(speech):
    """With one Gaussian per state and a language model that knows the sentences; a broken graph finds none."""
    graph, loglikes, references = speech
    answers = make_decoder("kaldi", graph, DecodingConfig(), acoustic_scale=0.15).decode(loglikes)
    assert not any(hypothesis.failed for hypothesis in answers)
    errors = sum(edit_distance(r, list(h.words))["total"] for r, h in zip(references, answers, strict=True))
    assert errors / sum(map(len, references)) < 0.4
