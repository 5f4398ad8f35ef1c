"""Characters and pieces in place of phones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import make_lang, read_lang, write_lang
from asr_kd.lang.units import CHARACTERS, Characters, Pieces

SENTENCES = ["THE OTHER MOTHER BATHED THERE", "THEIR BROTHER'S FATHER", "GATHER THE FEATHERS"] * 5
words = st.text(st.sampled_from(sorted(set("".join(SENTENCES)) - {" "})), min_size=1, max_size=10)


def test_a_word_is_its_characters_and_others_have_none():
    assert Characters()({"DON'T", "ÄH", ""}) == {"DON'T": [("D", "O", "N", "'", "T")]}


@given(words)
def test_pieces_put_together_are_the_word(word):
    pieces = PIECES([word])[word][0]
    assert "".join(pieces) == f"\N{LOWER ONE EIGHTH BLOCK}{word}"
    assert set(pieces) <= set(PIECES.symbols)


PIECES = Pieces(SENTENCES, 40)


def test_frequent_strings_become_pieces_and_strange_characters_no_word():
    assert any("THE" in piece for piece in PIECES.symbols)
    assert len(PIECES.symbols) <= 40
    assert PIECES(["ZEBRA"]) == {}  # no Z in the sentences
    assert Pieces(SENTENCES, 40).symbols == PIECES.symbols


def test_sizes_that_cannot_be_are_one_sentence():
    with pytest.raises(UserError, match=r"lang.bpe_size: 500 units are too many"):
        Pieces(SENTENCES, 500)
    with pytest.raises(UserError, match=r"lang.bpe_size: no 3 pieces can be learnt"):
        Pieces(SENTENCES, 3)


@pytest.mark.parametrize("units", [Characters(), PIECES])
def test_they_are_written_and_read_like_phones(tmp_path, units):
    said = units(["THE", "OTHER"])
    lang = make_lang(["THE"], said, units.symbols)
    write_lang(tmp_path, lang)
    assert read_lang(tmp_path) == lang
    assert lang.phones == ("SIL", *units.symbols)
    assert [lang.phones[k] for k in lang.pronunciations["OTHER"][0]] == list(said["OTHER"][0])


def test_characters_are_all_that_text_can_hold():
    assert len(CHARACTERS) == 27
