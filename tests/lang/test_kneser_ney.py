"""Models in arrays equal those in dictionaries, however many blocks the text has."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.errors import FullDiskError
from asr_kd.lang import ngram_counts, ngram_text
from asr_kd.lang.kneser_ney import estimate, estimate_table
from asr_kd.lang.ngram import BEGIN, END, Arpa
from asr_kd.lang.ngram_text import UNKNOWN, NumberedText, Scratch
from asr_kd.lang.pruning import prune, restrict
from tests.lang import reference_ngrams as reference

SENTENCES = st.lists(st.lists(st.sampled_from("abcd"), max_size=6), min_size=1, max_size=12)


def text_like_speech(sentences: int = 400) -> list[list[str]]:
    """Enough of it for counts of counts."""
    rng = random.Random(0)
    return [[f"w{int(rng.paretovariate(0.7)) % 200}" for _ in range(rng.randrange(9))] for _ in range(sentences)]


def assert_same(ours: Arpa, theirs: Arpa) -> None:
    assert ours.order == theirs.order
    for level, other in zip(ours.probabilities, theirs.probabilities, strict=True):
        assert level.keys() == other.keys()
        for ngram, log_p in level.items():
            assert log_p == pytest.approx(other[ngram], abs=1e-9)
    assert ours.backoffs.keys() == theirs.backoffs.keys()
    for history, weight in ours.backoffs.items():
        assert weight == pytest.approx(theirs.backoffs[history], abs=1e-7)


@given(SENTENCES, st.integers(1, 5), st.sets(st.sampled_from("abxy")))
def test_estimates_are_those_of_the_reference(sentences: list[list[str]], order: int, extra: set[str]) -> None:
    assert_same(estimate(sentences, order, extra), reference.estimate(sentences, order, extra))


@settings(max_examples=50, deadline=None)
@given(SENTENCES, st.integers(2, 4), st.integers(1, 30), st.data())
def test_many_blocks_on_disk_give_the_model_of_one_in_memory(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[list[str]], order: int, size: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram_text, "BLOCK_TOKENS", size)
        patch.setattr(ngram_counts, "BLOCK_TOKENS", data.draw(st.integers(1, 40)))
        patch.setattr(ngram_text, "_SMALL", 1)
        text = NumberedText.of(sentences, scratch=Scratch(folder))
        arpa = estimate_table(text, order).arpa()
    assert not list(folder.iterdir()), "scratch files have no name"
    assert_same(arpa, reference.estimate(sentences, order))


def test_discounts_by_count_and_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = text_like_speech()
    theirs = reference.estimate(sentences, 3)
    assert_same(estimate(sentences, 3), theirs)
    monkeypatch.setattr(ngram_text, "BLOCK_TOKENS", 300)
    monkeypatch.setattr(ngram_counts, "BLOCK_TOKENS", 500)
    text = NumberedText.of(sentences)
    assert len(text.blocks) > 4
    assert_same(estimate_table(text, 3).arpa(), theirs)


@settings(max_examples=100, deadline=None)
@given(SENTENCES, st.sampled_from([1e-4, 1e-2, 0.1]), st.integers(1, 4))
def test_pruning_is_that_of_the_reference(sentences: list[list[str]], threshold: float, order: int) -> None:
    ours = prune(estimate_table(NumberedText.of(sentences), order), threshold)
    assert_same(ours.arpa(), reference.prune(reference.estimate(sentences, order), threshold))


@pytest.mark.parametrize("threshold", [1e-5, 1e-4, 1e-3])
def test_pruning_a_larger_vocabulary_limited_to_its_frequent_words(threshold: float) -> None:
    sentences = text_like_speech()
    text = NumberedText.of(sentences).limited(60)
    table = estimate_table(text, 3)
    spoken = {word for word in table.words if not word.startswith("<")}
    assert len(spoken) == 60
    known = [[word if word in spoken else UNKNOWN for word in sentence] for sentence in sentences]
    theirs = restrict(reference.estimate(known, 3), spoken)
    assert_same(table.restricted(spoken).arpa(), theirs)
    pruned = prune(table, threshold).restricted(spoken)
    assert table.num_ngrams == sum(map(len, reference.estimate(known, 3).probabilities))
    assert 0 < pruned.num_ngrams < table.restricted(spoken).num_ngrams
    assert_same(pruned.arpa(), restrict(reference.prune(reference.estimate(known, 3), threshold), spoken))


def test_a_pruned_model_is_not_pruned_again() -> None:
    pruned = prune(estimate_table(NumberedText.of(text_like_speech()), 3), 1e-3)
    with pytest.raises(ValueError, match="cannot be pruned again"):
        prune(pruned, 1e-2)


def test_the_most_frequent_words_stay_and_ties_are_the_alphabets() -> None:
    text = NumberedText.of([["b", "c", "a"], ["c"], ["d"]])
    assert text.limited(2).words == (END, UNKNOWN, BEGIN, "a", "c")
    assert text.limited(4) is text
    a, c, unknown = (text.limited(2).number(word) for word in ("a", "c", UNKNOWN))
    assert text.limited(2).blocks[0].tolist()[1:4] == [unknown, c, a]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "memmap", full)
    monkeypatch.setattr(ngram_text, "_SMALL", 1)
    with pytest.raises(FullDiskError, match="the disk is full"):
        NumberedText.of([["a"]], scratch=Scratch(tmp_path))
    assert not list(tmp_path.iterdir())


def test_no_text_or_order_is_refused() -> None:
    with pytest.raises(ValueError, match="no sentences"):
        estimate([], 3)
    with pytest.raises(ValueError, match="at least 1"):
        estimate([["a"]], 0)


def test_an_empty_sentence_ends_at_once() -> None:
    assert math.exp(estimate([[]], 2).log_probability((BEGIN,), END)) == pytest.approx(1.0)
