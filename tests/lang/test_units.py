"""Characters and byte-pair units in place of phones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import make_lang, read_lang, write_lang
from asr_kd.lang.normalise import Normaliser
from asr_kd.lang.units import CHARACTERS, SplitUnits, bpe_units, character_units, characters_of

SENTENCES = ["THE OTHER MOTHER BATHED THERE", "THEIR BROTHER'S FATHER", "GATHER THE FEATHERS"] * 5
words = st.text(st.sampled_from(sorted(set("".join(SENTENCES)) - {" "})), min_size=1, max_size=10)


def test_a_word_is_its_characters_and_others_have_none():
    assert SplitUnits(CHARACTERS, tuple)({"DON'T", "ÄH", ""}) == {"DON'T": [("D", "O", "N", "'", "T")]}


@given(words)
def test_units_put_together_are_the_word(word):
    units = BPE([word])[word][0]
    assert "".join(units) == f"\N{LOWER ONE EIGHTH BLOCK}{word}"
    assert set(units) <= set(BPE.symbols)


BPE = bpe_units(SENTENCES, 40)


def test_frequent_strings_become_units_and_unknown_characters_no_word():
    assert any("THE" in unit for unit in BPE.symbols)
    assert len(BPE.symbols) <= 40
    assert BPE(["ZEBRA"]) == {}  # no Z in the sentences
    assert bpe_units(SENTENCES, 40).symbols == BPE.symbols


def test_sizes_that_cannot_be_are_one_sentence():
    with pytest.raises(UserError, match=r"lang.bpe_size: 500 units are too many"):
        bpe_units(SENTENCES, 500)
    characters = len({c for sentence in SENTENCES for c in sentence if c != " "})
    says = (
        rf"lang.bpe_size: {characters} units are too few: each of the {characters} characters .* to {characters + 1} or"
    )
    with pytest.raises(UserError, match=says):
        bpe_units(SENTENCES, characters)
    assert len(bpe_units(SENTENCES, characters + 1).symbols) == characters + 1  # the advice works


@pytest.mark.parametrize("units", [SplitUnits(CHARACTERS, tuple), BPE])
def test_they_are_written_and_read_like_phones(tmp_path, units):
    said = units(["THE", "OTHER"])
    lang = make_lang(["THE"], said, units.symbols)
    write_lang(tmp_path, lang)
    assert read_lang(tmp_path) == lang
    assert lang.phones == ("SIL", *units.symbols)
    assert [lang.phones[k] for k in lang.pronunciations["OTHER"][0]] == list(said["OTHER"][0])


def test_characters_are_all_that_text_can_hold():
    assert len(CHARACTERS) == 27


def test_characters_of_any_script_are_learnt_from_the_transcripts():
    units = character_units(["привет мир", "ёж"], Normaliser("ru"))
    assert units.symbols == tuple(sorted(set("приветмирёж")))
    assert units({"мир", "эра"}) == {"мир": [("м", "и", "р")]}
    assert character_units(["ANY"], Normaliser()).symbols == CHARACTERS


def test_accents_and_viramas_belong_to_their_letter_and_korean_is_spelled():
    assert characters_of("ẹ̀kọ́") == ("ẹ̀", "k", "ọ́")
    assert "".join(characters_of("नमस्ते")) == "नमस्ते" and len(characters_of("नमस्ते")) == 5
    assert len(characters_of("한국어")) == 8


def test_too_many_characters_say_what_to_do():
    many = ["".join(map(chr, range(0x4E00, 0x4E00 + 401)))]
    with pytest.raises(UserError, match=r"401 are too many .* set lang.units: phones"):
        character_units(many, Normaliser("zh"))
    with pytest.raises(UserError, match="401 different characters"):
        bpe_units(many, 100)
