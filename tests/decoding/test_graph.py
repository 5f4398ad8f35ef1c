"""HCLG finds what trying everything finds, and no word is lost on the way."""

import dataclasses
import errno
import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.decoding import graph as graph_module
from asr_kd.decoding.decoder import make_decoder
from asr_kd.decoding.epsilon import Outputs, remove_epsilon
from asr_kd.decoding.fst_io import Fst, from_kaldifst, to_kaldifst
from asr_kd.decoding.graph import (
    Graph,
    compile_graph,
    physical_triphones,
    read_graph,
    senone_arcs,
    with_self_loops,
    write_graph,
)
from asr_kd.decoding.lexicon_grammar import grammar_fst
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.errors import FullDiskError, UserError
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.lexicon import Lang

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

EXHAUSTIVE = DecodingConfig(search_beam=1000.0, output_beam=20.0, max_active=100_000)
QUANTISED = 0.01  # minimising rounds each arc's cost to 1/1024


@pytest.fixture(scope="module")
def graphs() -> dict[int, tuple]:
    rng = np.random.default_rng(7)
    trees = {variants: toy.toy_tree(rng, variants) for variants in (1, 2, 3)}
    return {v: (tree, compile_graph(toy.LANG, toy.ARPA, tree, toy.SILENCE)) for v, tree in trees.items()}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(3, 12),
    variants=st.sampled_from([1, 2, 3]),
    scale=st.sampled_from([0.1, 0.5, 1.0]),
    penalty=st.sampled_from([-1.0, 0.0, 2.0]),
)
def test_best_path_is_the_one_found_by_trying_everything(graphs, seed, frames, variants, scale, penalty):
    tree, graph = graphs[variants]
    loglikes = (4 * np.random.default_rng(seed).normal(size=(frames, tree.num_senones))).astype(np.float32)
    score, words = toy.best_by_trying_all(tree, loglikes, scale=scale, penalty=penalty)
    decoder = make_decoder("kaldi", graph, EXHAUSTIVE, acoustic_scale=scale, word_penalty=penalty)
    (answer,) = decoder.decode([loglikes])
    assert answer.score == pytest.approx(score, abs=QUANTISED)
    assert answer.words in words


@pytest.mark.slow
def test_every_word_sequence_survives_with_its_score(graphs):
    """Frames that spell a sentence out without doubt bring that sentence back, homophones by language model."""
    tree, graph = graphs[2]
    decoder = make_decoder("kaldi", graph, EXHAUSTIVE, acoustic_scale=1.0)
    sure, unsure = 0.0, -200.0
    for words, phones, _ in toy.sentences(3):
        context = (0, *phones, 0)
        path = [
            tree.tables[context[i], s, context[i - 1], context[i + 1]]
            for i in range(1, len(context) - 1)
            for s in range(3)
        ]
        loglikes = np.full((len(path), tree.num_senones), unsure, np.float32)
        loglikes[np.arange(len(path)), path] = sure
        (answer,) = decoder.decode([loglikes])
        rivals = toy.best_by_trying_all(tree, loglikes, scale=1.0, penalty=0.0)[1]
        assert answer.words in rivals, (words, phones)


def test_without_optional_silence_every_silence_is_a_word():
    """As phones are recognised: silence is a word of the language model, and nowhere else."""
    lang = Lang(toy.PHONES, ("A", "B", "SIL"), {"A": ((1,),), "B": ((2,),), "SIL": ((0,),)})
    arpa = estimate([["SIL", "A", "B", "SIL"], ["SIL", "B", "SIL"], ["SIL", "A", "SIL", "B", "SIL"]], 2)
    tree = toy.toy_tree(np.random.default_rng(1), 1)
    decoder = make_decoder("kaldi", compile_graph(lang, arpa, tree, 0.0), EXHAUSTIVE, acoustic_scale=1.0)
    for phones in ([0, 1, 0, 2, 0], [0, 1, 2, 0], [1, 2]):
        path = np.concatenate([tree.tables[phone, :, 0, 0] for phone in phones])
        loglikes = np.full((len(path), tree.num_senones), -200.0, np.float32)
        loglikes[np.arange(len(path)), path] = 0.0
        (answer,) = decoder.decode([loglikes])
        assert answer.words == tuple("SIL" if phone == 0 else "_AB"[phone] for phone in phones)


def _accepted(fst: Fst, outputs: Outputs, max_length: int, beginnings: set[tuple] | None = None) -> dict[tuple, float]:
    """(input labels, words) -> cost of the best path, by walking every path, or those whose labels begin so."""
    answer: dict[tuple, float] = {}
    stack = [(fst.start, (), (), 0.0)]
    while stack:
        state, inputs, words, cost = stack.pop()
        if np.isfinite(fst.final[state]) and inputs:
            key = inputs, words
            answer[key] = min(answer.get(key, np.inf), cost + float(fst.final[state]))
        for arc in np.flatnonzero(fst.src == state):
            label = int(fst.ilabel[arc])
            if label and len(inputs) == max_length:
                continue
            if label and beginnings is not None and (*inputs, label) not in beginnings:
                continue
            stack.append(
                (
                    int(fst.dst[arc]),
                    inputs + ((label,) if label else ()),
                    words + outputs.words(int(fst.olabel[arc])),
                    cost + float(fst.cost[arc]),
                )
            )
    return answer


@st.composite
def transducers(draw) -> Fst:
    """Small ones whose epsilon arcs only go to higher states, so that there is no epsilon cycle."""
    states = draw(st.integers(2, 5))
    rows = []
    for _ in range(draw(st.integers(1, 9))):
        a, b = draw(st.integers(0, states - 1)), draw(st.integers(0, states - 1))
        epsilon = draw(st.booleans()) and a != b
        src, dst = (min(a, b), max(a, b)) if epsilon else (a, b)
        rows.append(
            (src, dst, 0 if epsilon else draw(st.integers(1, 2)), draw(st.integers(0, 3)), draw(st.integers(0, 9)))
        )
    table = np.array(rows, np.int32)
    final = np.array([draw(st.sampled_from([np.inf, 0.0, 1.0])) for _ in range(states)], np.float32)
    return Fst(*table[:, :4].T.copy(), table[:, 4].astype(np.float32), final, 0)


@pytest.mark.slow
@settings(max_examples=200)
@given(transducers())
def test_removing_epsilons_changes_no_path(fst):
    outputs = Outputs(3)
    removed = remove_epsilon(fst, outputs)
    assert (removed.ilabel != 0).all()
    assert _accepted(removed, outputs, 4) == _accepted(fst, outputs, 4)


@pytest.mark.parametrize("num_triphones", [1, 2])  # with one of them, label 2 is a disambiguation symbol
@given(fst=transducers())
def test_a_chain_of_states_says_what_its_triphone_says(num_triphones, fst):
    triphones = np.array([[0, 2, 3], [0, 2, 4]], np.int32)[:num_triphones]  # they differ in their last state only
    outputs = Outputs(3)
    whole = _accepted(fst, outputs, 3)

    def spell(labels):
        spoken = [(triphones[label - 1] + 1).tolist() if label <= num_triphones else [6] for label in labels]
        return tuple(pdf for chain in spoken for pdf in chain)

    spelt = {(spell(labels), words): cost for (labels, words), cost in whole.items()}
    # a symbol is one label, not three: nine of them are too many ways to walk
    beginnings = {labels[:end] for labels, _ in spelt for end in range(1, len(labels) + 1)}
    chains = _accepted(senone_arcs(fst, triphones, 5), outputs, 9, beginnings if num_triphones == 1 else None)
    assert {key: chains[key] for key in spelt} == spelt
    assert num_triphones == 1 or chains == spelt  # symbols are shorter: more of them fit into as many labels


def test_large_graphs_do_not_run_out_of_numbers():
    """State times triphones, and state times senones, exceed 32 bits."""
    arcs = (np.zeros(2, np.int32), np.array([1, 65537], np.int32), np.full(2, 3, np.int32), np.zeros(2, np.int32))
    fst = Fst(*arcs, np.zeros(2, np.float32), np.zeros(65538, np.float32))
    chains = senone_arcs(fst, np.zeros((65535, 3), np.int32), 1)
    assert set(chains.dst[-2:].tolist()) == {1, 65537}  # the keys differ by 2 ** 32
    last = Fst(*(np.array([x], np.int32) for x in (0, 2**15, 7, 0)), np.zeros(1, np.float32), np.zeros(2**15 + 1))
    graph = with_self_loops(last, 2**16, (), ())
    assert graph.senone.tolist() == [6, 6, -1] and graph.dst.tolist() == [1, 1, 2]


def test_an_epsilon_cycle_is_refused():
    loop = np.array([0, 1, 1], np.int32)
    fst = Fst(loop, np.array([1, 0, 1], np.int32), np.array([0, 0, 1], np.int32), np.zeros(3, np.int32),
              np.zeros(3, np.float32), np.zeros(2, np.float32))  # fmt: skip
    with pytest.raises(ValueError, match="epsilon cycle"):
        remove_epsilon(fst, Outputs(1))


@given(transducers())
def test_kaldifst_and_back_is_the_same_transducer(fst):
    back = from_kaldifst(to_kaldifst(fst))
    order = np.argsort(fst.src, kind="stable")
    for name in ("src", "dst", "ilabel", "olabel", "cost"):
        np.testing.assert_array_equal(getattr(back, name), getattr(fst, name)[order])
    np.testing.assert_array_equal(back.final, fst.final)
    assert back.start == fst.start


def test_physical_triphones_are_the_distinct_triples():
    tree = toy.toy_tree(np.random.default_rng(1), 2)
    triphones, ids = physical_triphones(tree)
    for left, phone, right in np.ndindex(ids.shape):
        np.testing.assert_array_equal(triphones[ids[left, phone, right] - 1], tree.tables[phone, :, left, right])
    assert len(triphones) == ids.max()


def test_a_model_word_outside_the_vocabulary_cannot_be_recognised():
    arpa = estimate([["A", "B"], ["B", "A"]], 2)
    fst = grammar_fst(arpa, ("A",))
    assert set(fst.ilabel.tolist()) == {1, 2}  # A, and backing off


def test_a_word_without_pronunciation_is_named():
    lang = Lang(toy.PHONES, ("AB", "ODD"), {"AB": ((1,),)})
    with pytest.raises(UserError, match="'ODD'"):
        compile_graph(lang, toy.ARPA, toy.toy_tree(np.random.default_rng(0), 1), 0.5)


def test_a_tree_with_other_phones_is_refused():
    lang = dataclasses.replace(toy.LANG, phones=("SIL", "x", "y", "z"))
    with pytest.raises(UserError, match="align again"):
        compile_graph(lang, toy.ARPA, toy.toy_tree(np.random.default_rng(0), 1), 0.5)


def test_written_graph_is_read_back(graphs, tmp_path):
    graph = graphs[3][1]
    write_graph(graph, tmp_path)
    back = read_graph(tmp_path)
    for field in dataclasses.fields(Graph):
        before, after = getattr(graph, field.name), getattr(back, field.name)
        assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after, field.name
    (tmp_path / "graph.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="damaged"):
        read_graph(tmp_path)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("dst", 3, 10**6), ("dst", 3, -1), ("src", 0, -1), ("src", 0, 5), ("senone", 2, 10**5), ("senone", 2, -1),
        ("output", 1, 9999), ("output", 1, -1), ("score", 1, np.nan),
        ("score", slice(3), None), ("src", slice(None), None), ("senone", slice(None), 0.5),
    ],
)  # fmt: skip
def test_a_graph_that_would_lead_a_search_astray_is_refused(graphs, tmp_path, name, place, value):
    write_graph(graphs[2][1], tmp_path)
    with np.load(tmp_path / "graph.npz") as file:
        arrays = dict(file)
    if value is None:
        arrays[name] = np.delete(arrays[name], place)
    elif isinstance(value, float) and name != "score":
        arrays[name] = arrays[name] + value
    else:
        arrays[name][place] = value
    np.savez(tmp_path / "graph.npz", **arrays)
    with pytest.raises(UserError, match=r"graph\.npz is damaged"):
        read_graph(tmp_path)


def test_a_graph_that_grows_without_end_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "_GROWTH", 0)
    monkeypatch.setattr(graph_module, "_ALWAYS", 3)
    with pytest.raises(UserError, match="has more than 3 states after determinisation, and may grow without end"):
        compile_graph(toy.LANG, toy.ARPA, toy.toy_tree(np.random.default_rng(0), 1), 0.5)


def test_a_full_folder_of_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """kaldifst says only that it could not write."""
    fst = to_kaldifst(grammar_fst(toy.ARPA, toy.LANG.words))

    class Full:
        num_states = 1

        def write(self, path: str) -> bool:
            return False

    with pytest.raises(FullDiskError, match=f"^{tempfile.gettempdir()}: the disk is full"):
        from_kaldifst(Full())
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
    with pytest.raises(FullDiskError, match=f"^{tempfile.gettempdir()}: the disk is full"):
        to_kaldifst(from_kaldifst(fst))


def test_without_a_folder_for_temporary_files_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(UserError, match=r"found in \['/tmp'\]; set TMPDIR to a folder that can be written"):
        to_kaldifst(grammar_fst(toy.ARPA, toy.LANG.words))
