"""Word errors, against references written out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.evaluation.wer import WordErrors, align_words, characters, count_errors, kind, pooled, word_errors

sentences = st.lists(st.sampled_from(["A", "B", "C", "D"]), max_size=7)


def levenshtein(ref: list[str], hyp: list[str]) -> int:
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        diagonal, row[0] = row[0], i
        for j, h in enumerate(hyp, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (r != h))
    return row[-1]


@given(ref=sentences, hyp=sentences)
def test_alignment_spells_both_sides_and_costs_the_edit_distance(ref: list[str], hyp: list[str]) -> None:
    pairs = align_words(ref, hyp)
    assert [r for r, _ in pairs if r is not None] == ref
    assert [h for _, h in pairs if h is not None] == hyp
    assert (None, None) not in pairs
    counts = count_errors(pairs)
    assert counts.errors == levenshtein(ref, hyp)
    assert counts.words == len(ref)


def test_counts_by_hand() -> None:
    counts = word_errors(["PRESS", "ONE", "FOR", "SALES"], ["PRESS", "FOR", "MAILS", "NOW"])
    assert counts == WordErrors(insertions=1, deletions=1, substitutions=1, words=4)
    assert counts.wer == 0.75
    assert counts.as_dict() == {"ins": 1, "del": 1, "sub": 1, "words": 4}
    assert [kind(p) for p in [("A", "A"), ("A", "B"), (None, "B"), ("A", None)]] == ["correct", "sub", "ins", "del"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ÇA VA", "Ç A V A"),
        ("e\u0301te", "e\u0301 t e"),  # a letter and its mark, where the text is not composed
        ("שָׁלוֹם", "שָׁ ל וֹ ם"),
        ("مُحَمَّد", "مُ حَ مَّ د"),
        ("กำลัง", "กำ ลั ง"),
        ("한국", "한 국"),
        ("你好", "你 好"),
        ("a \u0301b", "a \u0301 b"),  # a mark that begins a word does not go to the word before
    ],
)
def test_a_character_is_a_letter_with_its_marks(text: str, expected: str) -> None:
    assert characters(text.split()) == expected.split()


def test_character_errors_by_hand() -> None:
    """LE CAFE for LES CAFÉS: two deleted, one substituted, of eight characters; the space between is none."""
    counts = word_errors(characters(["LES", "CAFÉS"]), characters(["LE", "CAFE"]))
    assert counts == WordErrors(deletions=2, substitutions=1, words=8)
    joined, split = characters(["PLUS", "TARD"]), characters(["PLUSTARD"])
    assert word_errors(joined, split).errors == 0


def test_empty_sides() -> None:
    assert word_errors([], []) == WordErrors()
    assert word_errors([], []).wer == 0.0
    assert word_errors([], ["A"]) == WordErrors(insertions=1)
    assert math.isinf(word_errors([], ["A"]).wer)
    assert word_errors(["A", "B"], []) == WordErrors(deletions=2, words=2)


def test_pooled_wer_is_errors_over_words_not_a_mean_of_rates() -> None:
    short, long = word_errors(["A"], ["B"]), word_errors(list("ABCDEFGHI"), list("ABCDEFGHI"))
    assert pooled([short, long]).wer == 0.1
    assert pooled([]) == WordErrors()
    # insertions into an utterance without words are not lost
    assert pooled([word_errors([], ["A"]), long]).errors == 1
