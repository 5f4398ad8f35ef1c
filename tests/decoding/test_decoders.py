"""All back ends: the same best path, retries, failures, and what is said where k2 is missing."""

import importlib.util
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.decoding.decoder import make_decoder
from asr_kd.decoding.graph import compile_graph
from asr_kd.decoding.settings import BACKENDS, DecodingConfig
from asr_kd.decoding.word_paths import words_at
from asr_kd.errors import UserError

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

EXHAUSTIVE = DecodingConfig(search_beam=1000.0, output_beam=1000.0, max_active=100_000)
NARROW = DecodingConfig(search_beam=0.5, output_beam=0.5, min_active=0, max_active=1000, retry_beams=(1.0, 100.0))


@pytest.fixture(scope="module")
def graph():
    return compile_graph(toy.LANG, toy.ARPA, toy.toy_tree(np.random.default_rng(3), 2), toy.SILENCE)


@pytest.fixture(params=list(BACKENDS))
def backend(request) -> str:
    package = BACKENDS[request.param].package
    pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    return request.param


def noise(graph, lengths, seed=0, spread=3.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(spread * rng.normal(size=(length, graph.num_senones))).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("name", ["k2", "native"])
def test_all_back_ends_find_the_same_best_path(graph, name):
    if name == "k2":
        pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    loglikes = noise(graph, [3, 50, 17, 120, 80, 9, 33])
    ours, kaldi = (
        make_decoder(each, graph, EXHAUSTIVE, acoustic_scale=0.4, word_penalty=-0.3).decode(loglikes)
        for each in (name, "kaldi")
    )
    for one, other in zip(ours, kaldi, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-3)
        assert one.words == other.words


@pytest.mark.parametrize("portion", [1, 7, 500])
@pytest.mark.parametrize("settings", [EXHAUSTIVE, NARROW, DecodingConfig()])
def test_frames_in_portions_give_the_words_of_all_at_once(graph, portion, settings):
    decoder = make_decoder("native", graph, settings, acoustic_scale=0.4, word_penalty=0.2)
    stream = decoder.stream()
    for seed in range(3):  # one search after the other
        (loglikes,) = noise(graph, [60], seed)
        for first in range(0, 60, portion):
            stream.accept(loglikes[first : first + portion])
            words, senones = stream.best(final=True)
            assert len(senones) == stream.num_frames and senones.max() < graph.num_senones
        (expected,) = decoder.decode([loglikes])
        np.testing.assert_array_equal(stream.loglikes, loglikes)
        assert stream.finish().words == expected.words
        if not expected.retried:
            assert words == expected.words
        stream.restart()
        assert stream.num_frames == 0 and stream.best() == ((), pytest.approx(np.zeros(0)))


def test_answers_do_not_depend_on_the_batch(graph, backend):
    loglikes = noise(graph, [40, 3, 90, 25])
    decoder = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=0.5)
    together = decoder.decode(loglikes)
    for alone, hypothesis in zip(loglikes, together, strict=True):
        (by_itself,) = decoder.decode([alone])
        assert by_itself.words == hypothesis.words
        assert by_itself.score == pytest.approx(hypothesis.score, rel=1e-6)


def test_grid_from_one_lattice_equals_decoding_at_each_point(graph, backend):
    loglikes, scales, penalties = noise(graph, [30, 45, 12]), (0.2, 0.4, 0.8), (-1.0, 0.0, 1.5)
    grids = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=0.4).decode_grid(loglikes, scales, penalties)
    for i, scale in enumerate(scales):
        for j, penalty in enumerate(penalties):
            decoder = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=scale, word_penalty=penalty)
            assert [grid[i][j] for grid in grids] == [h.words for h in decoder.decode(loglikes)]


def test_where_kaldi_finds_no_lattice_each_point_of_the_grid_is_searched(graph, monkeypatch):
    monkeypatch.setattr("asr_kd.decoding.kaldi_decoder.SMALL_GRAPH", 0)
    loglikes, scales, penalties = noise(graph, [40, 25])[1:], (0.3, 0.8), (-1.0, 0.5)
    decoder = make_decoder("kaldi", graph, EXHAUSTIVE, acoustic_scale=0.4)
    from_lattices = decoder.decode_grid(loglikes, scales, penalties)
    monkeypatch.setattr("asr_kd.decoding.kaldi_decoder.LATTICE_BEAM", 0.01)
    assert decoder.lattice(loglikes[0]) is None
    searched = decoder.decode_grid(loglikes, scales, penalties)
    assert (
        searched[0][0][1]
        == make_decoder("kaldi", graph, EXHAUSTIVE, acoustic_scale=0.3, word_penalty=0.5).decode(loglikes)[0].words
    )
    assert searched == from_lattices


def misleading(graph) -> np.ndarray:
    """15 frames in which one state is far better than all others, and then no path can go on from it in time."""
    loglikes = np.full((15, graph.num_senones), -5.0, np.float32)
    loglikes[:14, graph.senone[(graph.src == 0)][0]] = 0.0
    return loglikes


@pytest.mark.parametrize("settings", [EXHAUSTIVE, NARROW])
def test_one_search_gives_words_and_lattice(graph, settings):
    decoder = make_decoder("native", graph, settings, acoustic_scale=0.4)
    utterances = [*noise(graph, [40, 2, 25]), misleading(graph)]
    searched = []
    for loglikes in utterances:
        hypothesis, lattice = decoder.decode_with_lattice(loglikes)
        assert [hypothesis] == decoder.decode([loglikes])
        assert hypothesis.failed == (lattice is None)
        if lattice is not None:
            same = decoder.lattice(loglikes)
            for part in fields(lattice):
                np.testing.assert_array_equal(getattr(lattice, part.name), getattr(same, part.name))
            ((words,),) = words_at(lattice, graph, [1.0], [0.0])
            assert words == hypothesis.words
        searched.append((hypothesis, lattice))
    stream = decoder.stream()
    assert stream.lattice() is None  # of no frames
    for loglikes, (hypothesis, lattice) in zip(utterances, searched, strict=True):
        stream.accept(loglikes[:1])
        stream.accept(loglikes[1:])
        ours = stream.lattice()
        if hypothesis.retried:
            assert ours is None  # a stream is not searched again
        else:
            np.testing.assert_array_equal(ours.acoustic, lattice.acoustic)
        stream.restart()


def test_an_utterance_without_a_path_is_tried_again_with_wider_beams(graph, backend):
    ordinary, hard = noise(graph, [30], spread=0.0)[0], misleading(graph)
    plain, retried = make_decoder(backend, graph, NARROW, acoustic_scale=1.0).decode([ordinary, hard])
    assert retried.retried and not retried.failed
    (best,) = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=1.0).decode([hard])
    assert retried.score == pytest.approx(best.score, rel=1e-4)
    assert not plain.failed
    grid = make_decoder(backend, graph, NARROW, acoustic_scale=1.0).decode_grid([hard], (1.0,), (0.0,))
    assert grid == [((best.words,),)]


def test_wider_beams_are_tried_until_a_path_is_found(graph, backend):
    """The first of them may leave a lattice with arcs in which none leads to the end."""
    decoder = make_decoder(backend, graph, NARROW, acoustic_scale=0.4)
    answers = decoder.decode(noise(graph, [30] * 12))
    assert any(answer.retried for answer in answers) and not any(answer.failed for answer in answers)


@pytest.mark.parametrize("settings", [EXHAUSTIVE, NARROW])  # a narrow beam leaves arcs in a lattice without a path
def test_an_utterance_too_short_for_any_path_fails_and_the_others_do_not(graph, backend, settings):
    short, long = noise(graph, [2, 30])
    decoder = make_decoder(backend, graph, settings, acoustic_scale=0.5)
    failed, answer = decoder.decode([short, long])
    assert failed.failed and failed.retried and failed.words == ()
    assert not answer.failed
    assert decoder.decode_grid([short], (0.5, 1.0), (0.0,)) == [(((),), ((),))]


def test_a_model_of_another_tree_is_refused(graph, backend):
    decoder = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=1.0)
    wrong = np.zeros((9, graph.num_senones + 1), np.float32)
    with pytest.raises(UserError, match=f"{graph.num_senones + 1} senones but the graph has {graph.num_senones}"):
        decoder.decode([wrong])


def test_likelihoods_that_are_not_numbers_are_refused(graph, backend):
    broken = np.full((9, graph.num_senones), np.nan, np.float32)
    with pytest.raises(UserError, match="not finite"):
        make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=1.0).decode([broken])


def test_where_k2_is_missing_the_message_says_what_mends_it(graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)  # importing it raises ImportError
    monkeypatch.delitem(sys.modules, "asr_kd.decoding.k2_decoder", raising=False)
    with pytest.raises(UserError, match=r"requirements\.lock.*--decoder native"):
        make_decoder("k2", graph, EXHAUSTIVE, acoustic_scale=1.0)
    (answer,) = make_decoder("native", graph, EXHAUSTIVE, acoustic_scale=1.0).decode(noise(graph, [12]))
    assert not answer.failed


def test_an_unknown_decoder_is_named(graph):
    with pytest.raises(UserError, match="'sphinx'"):
        make_decoder("sphinx", graph, EXHAUSTIVE, acoustic_scale=1.0)


def test_gradients_are_not_recorded(graph, backend):
    with torch.enable_grad():
        assert make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=1.0).decode(noise(graph, [12]))
