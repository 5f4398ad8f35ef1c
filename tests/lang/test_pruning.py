"""A pruned model is still a distribution, is smaller, and loses as little as the threshold says."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.lang.kneser_ney import NGramTable, estimate, estimate_table
from asr_kd.lang.ngram import END, perplexity
from asr_kd.lang.ngram_text import NumberedText
from asr_kd.lang.pruning import prune, restrict

WORDS = ["A", "B", "C", "D"]
texts = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), min_size=3, max_size=30)


def full_model(sentences: list[list[str]], order: int) -> NGramTable:
    return estimate_table(NumberedText.of(sentences), order)


def mass(arpa, history):
    return sum(math.exp(arpa.log_probability(history, word)) for word in (*arpa.words, END))


@settings(max_examples=100, deadline=None)
@given(texts, st.sampled_from([1e-6, 1e-3, 1e-2, 0.1]), st.integers(2, 3))
def test_every_history_still_has_the_mass_one(sentences, threshold, order):
    pruned = prune(full_model(sentences, order), threshold).arpa()
    histories = {ngram[:-1] for level in pruned.probabilities for ngram in level} | {
        (a, b) for a in WORDS for b in WORDS
    }
    for history in histories:
        if set(history) <= {*pruned.words, "<s>"}:
            assert mass(pruned, history) == pytest.approx(1, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(texts)
def test_no_threshold_no_change_and_a_higher_one_keeps_a_part(sentences):
    table = full_model(sentences, 3)
    assert prune(table, 0.0) is table
    full, *retained = (prune(table, threshold).arpa() for threshold in (0.0, 1e-4, 1e-2, 10.0))
    sizes = [sum(map(len, arpa.probabilities)) for arpa in (full, *retained)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(retained[0].probabilities[n].keys() <= full.probabilities[n].keys() for n in range(3))
    assert retained[0].probabilities[0] == full.probabilities[0]  # single words always stay


def test_what_backing_off_predicts_as_well_goes_and_what_it_does_not_stays():
    # B follows A nearly always; what follows C is as if C were not there
    sentences = [["A", "B"]] * 40 + [["C", word] for word in ("A", "C", "D", "B") for _ in range(5)]
    full, pruned = (prune(full_model(sentences, 2), threshold).arpa() for threshold in (0.0, 0.02))
    assert ("A", "B") in pruned.probabilities[1]
    assert len(pruned.probabilities[1]) < len(full.probabilities[1])
    assert perplexity(pruned, sentences) < 1.3 * perplexity(full, sentences)


def test_longer_ngrams_keep_the_shorter_ones_that_they_continue():
    sentences = [["A", "B", "C"]] * 30 + [["D", "B", "D"]] * 30 + [["B", "A"], ["C", "A"], ["A", "D"]]
    pruned = prune(full_model(sentences, 3), 0.01).arpa()
    assert pruned.probabilities[2]
    assert {ngram[:-1] for ngram in pruned.probabilities[2]} <= pruned.probabilities[1].keys() | {("<s>",)}


def test_restrict_drops_other_words_everywhere():
    arpa = restrict(estimate([["A", "X", "B"], ["A", "B"]], 3), {"A", "B"})
    assert arpa.words == ("A", "B")
    assert not any("X" in ngram for level in arpa.probabilities for ngram in level)
    assert not any("X" in history for history in arpa.backoffs)
