"""The phone bigram: what an alignment holds, and nothing else, can be recognised."""

import math

import numpy as np
import pytest

from asr_kd.lang.lexicon import Lang
from asr_kd.lang.ngram import BEGIN, END
from asr_kd.lang.phone_bigram import phone_bigram, phones_as_words

PHONES = ("SIL", "AA", "B", "ZH")


def test_a_known_alignment_gives_its_bigrams_discounted_and_interpolated() -> None:
    """By hand: one discount d for each order, as there are too few counts of counts for three."""
    utterances = [np.array(phones, np.int32) for phones in ([0, 2, 1, 0], [2, 1, 2, 1], [])]
    arpa = phone_bigram(utterances, PHONES)
    assert arpa.words == ("AA", "B", "SIL")  # ZH is in no utterance
    # bigrams: <s> SIL, SIL B, B AA (3), AA SIL, SIL </s>, <s> B, AA B, AA </s>; none twice: n1 = 7, n2 = 0
    d = min(0.8, 7.5 / (7.5 + 2 * 0.5))
    # continuations, after how many phones each ends a bigram: SIL 2, B 3, AA 1, </s> 2; n1 = 1, n2 = 2
    counts, d1 = {"SIL": 2, "B": 3, "AA": 1, END: 2}, min(0.8, 1.5 / (1.5 + 2 * 2.5))
    unigram = {phone: (count - d1) / 8 + 4 * d1 / 8 / 4 for phone, count in counts.items()}
    expected = {
        ("B", "AA"): (3 - d) / 3 + d / 3 * unigram["AA"],
        (BEGIN, "SIL"): (1 - d) / 2 + d * unigram["SIL"],
        ("AA", END): (1 - d) / 3 + d * unigram[END],
        ("SIL", "AA"): d * unigram["AA"],  # was not seen
    }
    for (history, phone), probability in expected.items():
        assert math.exp(arpa.log_probability((history,), phone)) == pytest.approx(probability, rel=1e-9)


def test_each_phone_of_the_bigram_is_a_word_that_sounds_like_itself() -> None:
    arpa = phone_bigram([[0, 2, 1, 0]], PHONES)
    lang = phones_as_words(PHONES, arpa)
    assert lang == Lang(PHONES, ("AA", "B", "SIL"), {"AA": ((1,),), "B": ((2,),), "SIL": ((0,),)})
    with pytest.raises(ValueError, match="the phone bigram has AA, which is no phone of the lexicon"):
        phones_as_words(("SIL", "B"), arpa)


def test_no_alignment_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sentences"):
        phone_bigram([[], []], PHONES)
