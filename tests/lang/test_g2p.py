"""What letters are learnt to stand for, and how new words are said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.lang.g2p import G2P, align_letters
from asr_kd.lang.lexicon import ARPABET, everything_known

# every letter has its sound, X has two and H has none
SOUNDS = {"A": ("AH",), "B": ("B",), "E": ("EH",), "H": (), "K": ("K",), "O": ("OW",), "X": ("K", "S"), "T": ("T",)}


def say(word: str) -> tuple[str, ...]:
    return tuple(phone for letter in word for phone in SOUNDS[letter])


REGULAR = [
    a + b + c + d for a in "BKT" for b in "AEO" for c in ("X", "HB", "T", "KH", "XT") for d in ("A", "EH", "O", "BE")
]
LEXICON = {word: [say(word)] for word in REGULAR}


def test_regular_spelling_is_learnt_and_new_words_are_said_by_it():
    sentences, left_out = align_letters(LEXICON)
    assert left_out == 0
    learnt = {pair for sentence in sentences for pair in sentence}
    assert learnt == {f"{letter}:{' '.join(sounds)}" for letter, sounds in SOUNDS.items()}
    model = G2P.train(LEXICON)
    for word in ("XOB", "TEXAH", "BOXOBOX", "HATHAT"):
        assert model.pronounce(word) == [say(word)]


words = st.lists(st.sampled_from("ABEHKOXT"), min_size=1, max_size=6).map("".join)
variants = st.lists(st.sampled_from(["AH", "B", "K", "S"]), min_size=1, max_size=8).map(tuple)


@given(st.dictionaries(words, st.lists(variants, min_size=1, max_size=2), min_size=1, max_size=8))
def test_an_alignment_loses_no_letter_and_no_phone(lexicon):
    fit = [(w, v) for w, vs in lexicon.items() for v in vs if len(v) <= 2 * len(w)]
    if not fit:
        with pytest.raises(ValueError, match="no pronunciation"):
            align_letters(lexicon)
        return
    sentences, left_out = align_letters(lexicon)
    assert left_out == sum(map(len, lexicon.values())) - len(fit)
    for (word, variant), pairs in zip(fit, sentences, strict=True):
        assert "".join(pair[0] for pair in pairs) == word
        assert tuple(phone for pair in pairs for phone in pair[2:].split()) == variant


@given(words, st.integers(1, 4))
def test_guesses_are_distinct_the_best_first_and_of_known_phones(word, count):
    model = MODEL
    guesses = model.pronounce(word, count)
    assert len(set(guesses)) == len(guesses) <= count
    assert guesses == model.pronounce(word, 10)[:count]
    assert all(guess and {phone for phone in guess} <= {p for s in SOUNDS.values() for p in s} for guess in guesses)


MODEL = G2P.train(LEXICON, order=3)


def test_what_differs_only_in_the_first_letter_of_a_long_word_is_offered_too():
    both = {f"A{'T' * n}": [("AH", *["T"] * n), ("EY", *["T"] * n)] for n in range(1, 6)}
    guesses = G2P.train(both, order=2).pronounce("ATTTTTTT", 2)
    assert sorted(guesses) == [("AH", *["T"] * 7), ("EY", *["T"] * 7)]


def test_the_same_lexicon_gives_the_same_model():
    assert G2P.train(LEXICON, order=3) == MODEL


def test_a_pronunciation_of_more_than_two_phones_a_letter_is_left_out_and_counted():
    model = G2P.train({**LEXICON, "BO": [say("BO"), ("B", "OW", "T", "AH", "K")], "E": [()]}, order=3)
    assert model.left_out == 2
    assert model.pronounce("BO") == [say("BO")]


def test_unknown_letters_are_passed_over():
    assert MODEL.pronounce("B-Ä'TA") == MODEL.pronounce("BTA")
    assert MODEL.pronounce("123") == [] == MODEL.pronounce("")


@pytest.mark.slow
def test_real_english_words_that_it_has_not_seen():
    known = {word: found for word, found in everything_known({}).items() if word.isalpha() and word[0] in "BCS"}
    held_out = sorted(known)[::40]
    model = G2P.train({word: found for word, found in known.items() if word not in set(held_out)}, order=5)
    guesses = {word: model.pronounce(word)[0] for word in held_out}
    assert sum(guess in known[word] for word, guess in guesses.items()) > 0.55 * len(held_out)
    assert all(set(guess) <= set(ARPABET) for guess in guesses.values())
    assert model.left_out > 0  # abbreviations: more than two phones a letter
