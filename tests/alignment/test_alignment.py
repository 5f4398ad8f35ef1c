"""Graphs, Viterbi, flat start and tree on problems whose answer is known."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment import flat_start as flat_start_module
from asr_kd.alignment.flat_start import flat_start
from asr_kd.alignment.realignment import align
from asr_kd.alignment.set_alignment import align_block
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import CannotAlignError, compile_transcript, context_key, equal_alignment, path_segments
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.alignment.tree import monophone_tree, read_tree, write_tree
from asr_kd.alignment.tree_growing import Statistics, grow_tree
from asr_kd.alignment.viterbi import viterbi
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.lang.lexicon import Lang

from ..stores import write_store

LANG = Lang(
    phones=("SIL", "A", "B", "C"),
    words=("AB", "C"),
    pronunciations={"AB": ((1, 2), (1,)), "C": ((3,),)},
)


def brute_force(loglikes, graph):
    """The best score over every path, in float64, from the arcs themselves."""
    target = np.repeat(np.arange(graph.num_states), np.diff(graph.first))
    arcs = {(int(s), int(t)): float(w) for s, t, w in zip(graph.source, target, graph.weight, strict=True)}
    paths = [([s], float(graph.initial[s]) + loglikes[0, graph.classes[s]]) for s in range(graph.num_states)]
    paths = [(path, score) for path, score in paths if np.isfinite(score)]
    for frame in loglikes[1:]:
        paths = [
            ([*path, t], score + weight + frame[graph.classes[t]])
            for path, score in paths
            for (s, t), weight in arcs.items()
            if s == path[-1]
        ]
    return max(score + float(graph.final[path[-1]]) for path, score in paths)


@given(seed=st.integers(0, 10**6), frames=st.integers(3, 8))
def test_viterbi_finds_the_best_of_all_paths(seed, frames):
    graph = compile_transcript(["AB"], LANG)
    loglikes = np.random.default_rng(seed).normal(0, 3, (frames, 12)).astype(np.float32)
    path, score = viterbi(loglikes, graph)
    assert score == pytest.approx(brute_force(loglikes.astype(np.float64), graph), rel=1e-6, abs=1e-5)
    assert len(path) == frames


def test_path_takes_the_pronunciation_and_the_silences_that_fit():
    graph = compile_transcript(["AB", "C"], LANG)
    phones = [0, 0, 1, 1, 3, 3, 0, 0]  # silence, the short AB, C, silence: three frames per phone or more
    classes = np.repeat([[3 * p + k for k in range(3)] for p in (0, 1, 3, 0)], 2, axis=1).ravel()
    loglikes = np.full((len(classes), 12), -20.0, np.float32)
    loglikes[np.arange(len(classes)), classes] = 0.0
    segments = path_segments(graph, viterbi(loglikes, graph)[0])
    assert segments.phone.tolist() == [0, 1, 3, 0]
    assert segments.start.tolist() == [0, 6, 12, 18, 24]
    assert segments.words() == [(0, 6, 12), (1, 12, 18)]
    assert len(phones) == 8


def test_too_short_and_unknown_words_cannot_be_aligned():
    graph = compile_transcript(["AB", "C"], LANG)
    with pytest.raises(CannotAlignError, match=r"5 frames.*6"):
        viterbi(np.zeros((5, 12), np.float32), graph)
    with pytest.raises(CannotAlignError, match="5 frames"):
        equal_alignment(graph, 5)
    with pytest.raises(CannotAlignError, match="XYZ"):
        compile_transcript(["XYZ"], LANG)
    with pytest.raises(CannotAlignError, match="empty"):
        compile_transcript([], LANG)


def speech(tmp_path, count=40):
    """Utterances of AB and C with a Gaussian per monophone state; returns the store and each frame's true phone."""
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 4, (12, 6))
    utterances, texts, truth = [], [], []
    for number in range(count):
        words = [["AB", "C"][k] for k in rng.integers(0, 2, 4)]
        phones = [0, *itertools.chain(*([1, 2] if w == "AB" else [3] for w in words)), 0]
        states = np.repeat([3 * p + k for p in phones for k in range(3)], rng.integers(1, 14, 3 * len(phones)))
        utterances.append((f"u{number}", (centres[states] + rng.normal(0, 0.7, (len(states), 6))).astype(np.float32)))
        texts.append(" ".join(words))
        truth.append(states // 3)
    write_store(tmp_path / "store", utterances, texts=texts)
    return FrameStore.open(tmp_path / "store"), np.concatenate(truth)


class Gaussians:
    """In place of the flat start's net: one Gaussian with unit variance per class."""

    def __init__(self, num_states):
        self._num_states = num_states

    @classmethod
    def untrained(cls, num_dims, num_states, settings, seed):
        return cls(num_states)

    def state(self):
        return {}

    def restore(self, state):
        pass

    def prepare(self, source, utterances, settings):
        self._frames = source.normalised(0, len(source.ids))

    def fit(self, frames, states):
        overall = self._frames.mean(0)
        self._means = np.stack(
            [self._frames[frames[states == c]].mean(0) if (states == c).any() else overall
             for c in range(self._num_states)]
        )  # fmt: skip

    def log_posteriors(self, source, utterances):
        return [self._of_one(source, utterance) for utterance in utterances]

    def _of_one(self, source, utterance):
        scores = -0.5 * ((source.normalised(utterance)[:, None] - self._means) ** 2).sum(-1) * 10
        return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def test_flat_start_finds_the_phones(tmp_path, monkeypatch):
    monkeypatch.setattr(flat_start_module, "MonophoneNet", Gaussians)
    store, truth = speech(tmp_path)
    data = TranscribedFrames.of_store(store, LANG)
    aligner = flat_start(data, AlignmentConfig(rounds=8), seed=1, nj=2)
    graphs, _ = data.graphs(range(len(store.ids)))
    paths = aligner.paths(store, graphs)
    result = np.concatenate([graph.classes[path] // 3 for graph, (path, _) in zip(graphs.values(), paths, strict=True)])
    assert (result == truth).mean() > 0.9
    equal = np.concatenate(
        [
            g.classes[equal_alignment(g, int(n))] // 3
            for g, n in zip(graphs.values(), np.diff(store.offsets), strict=True)
        ]
    )
    assert (equal == truth).mean() < (result == truth).mean() - 0.1  # the start was not the answer


def test_features_and_transcripts_are_aligned_without_a_folder(tmp_path):
    """The library's function, with the net itself; what cannot be aligned is returned as the reason."""
    store, truth = speech(tmp_path)
    features = [store.features[store.span(u)].astype(np.float32) for u in range(len(store.ids))]
    settings = AlignmentConfig(linear_rounds=4, rounds=2)
    *result, unknown, short = align(
        [*features, features[0], features[0][:4]], [*store.texts, "XYZ", "AB C"], LANG, settings
    )
    assert "XYZ" in str(unknown) and "4 frames" in str(short)
    assert isinstance(unknown, CannotAlignError) and isinstance(short, CannotAlignError)
    states = np.concatenate([alignment.states for alignment in result])
    assert (states // 3 == truth).mean() > 0.9
    for alignment, text in zip(result, store.texts, strict=True):
        assert [word for word, _, _ in alignment.segments.words()] == list(range(len(text.split())))
        assert alignment.segments.start[-1] == len(alignment.states)
    with pytest.raises(CannotAlignError, match="no utterance can be aligned"):
        align(features[:1], ["XYZ"], LANG)
    with pytest.raises(CannotAlignError, match="too short for its transcript"):
        align([features[0][:4]], ["AB C"], LANG)


def test_subset_is_a_function_of_the_seed(tmp_path):
    store, _ = speech(tmp_path)
    data = TranscribedFrames.of_store(store, LANG)
    hours = float(store.durations.sum()) / 3600 / 3
    assert data.choose_subset(hours, 1) == data.choose_subset(hours, 1) != data.choose_subset(hours, 2)
    assert len(data.choose_subset(hours, 1)) < len(store.ids) / 2
    assert data.choose_subset(100.0, 1) == list(range(len(store.ids)))


class NoAligner:
    """Aligns nothing, and notes what it was asked for."""

    def align(self, data, utterances, *, nj=1):
        self.asked = list(utterances)
        return {utterance: CannotAlignError("it cannot be aligned") for utterance in utterances}


def test_the_utterance_without_the_warp_is_aligned_for_its_copies(tmp_path):
    features = [(name, np.random.default_rng(k).normal(size=(9, 2))) for k, name in enumerate(("a_vt0.9", "a", "b"))]
    store = write_store(tmp_path, features, texts=["AB", "AB", "C"], warps=[0.9, 1.0, 1.0])
    data, aligner = TranscribedFrames.of_store(store, LANG), NoAligner()
    for utterances, asked in ((range(3), [1, 2]), (range(1), [1])):  # also where it is in the next block
        block = align_block(data, utterances, aligner)
        assert aligner.asked == asked
        assert [int(utterance) for utterance in json.loads(str(block["failed"]))] == list(utterances)
    align_block(data.selected([1, 2]), range(2), aligner)
    assert aligner.asked == [0, 1]


def statistics(num_phones=6, frames_each=60):
    """Phone 1's middle state sounds different after the phones 4 and 5; nothing else depends on context."""
    rng = np.random.default_rng(0)
    keys, features = [], []
    for phone, hmm, left, right in itertools.product(range(1, num_phones), range(3), range(num_phones), range(2)):
        centre = phone + (5.0 if (phone, hmm) == (1, 1) and left in (4, 5) else 0.0) + 10 * (phone > 3)
        context = (np.array([index], np.int32) for index in (phone, hmm, left, right))
        keys.append(np.repeat(context_key(*context, num_phones), frames_each))
        features.append(centre + rng.normal(0, 1, (frames_each, 3)))
    keys, features = np.concatenate(keys).astype(np.int32), np.concatenate(features)
    collected = Statistics(tuple("SABCDE"), np.unique(keys), 3)
    for part in np.array_split(np.random.default_rng(1).permutation(len(keys)), 5):
        collected.add(keys[part], features[part])
    return collected


def test_the_first_split_is_the_one_that_matters():
    tree = grow_tree(statistics(), leaves=19, min_count=50)
    assert tree.num_senones == 19  # 18 roots and one split
    table = tree.tables[1, 1]
    assert len(np.unique(table)) == 2
    assert len(np.unique(table[[4, 5]])) == 1
    assert not set(np.unique(table[[4, 5]])) & set(np.unique(table[[0, 1, 2, 3]]))
    assert len(np.unique(tree.tables[2, 1])) == 1


def test_every_senone_is_used_and_belongs_to_one_phone_and_position():
    tree = grow_tree(statistics(), leaves=30, min_count=50)
    owners = {}
    for phone, hmm in itertools.product(range(6), range(3)):
        for state in np.unique(tree.tables[phone, hmm]).tolist():
            assert owners.setdefault(state, (phone, hmm)) == (phone, hmm)
    assert sorted(owners) == list(range(tree.num_senones))
    assert tree.name(int(tree.tables[1, 1, 4, 0])).startswith("A.2 (left")


def test_min_count_forbids_small_leaves():
    assert grow_tree(statistics(frames_each=5), leaves=40, min_count=10**6).num_senones == 18


def test_tree_on_disk(tmp_path):
    tree = replace(monophone_tree(("SIL", "A")), counts=np.arange(6))
    write_tree(tree, tmp_path)
    again = read_tree(tmp_path)
    assert again.phones == tree.phones
    assert np.array_equal(again.tables, tree.tables)
    assert np.exp(again.log_priors()).sum() == pytest.approx(1.0, abs=1e-6)
    (tmp_path / "tree.npz").write_bytes(b"PK damaged")
    with pytest.raises(UserError, match="damaged"):
        read_tree(tmp_path)
    with pytest.raises(UserError, match=r"holds no tree\.npz"):
        read_tree(tmp_path / "nowhere")
