"""Written text -> spoken words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.lang.normalise import Losses, Normaliser, unspaced
from asr_kd.lang.numbers import NumberError

normalise = Normaliser()


@given(st.text())
def test_only_words_of_letters_and_apostrophes_come_out_and_twice_is_once(text: str) -> None:
    once = normalise(text)
    assert re.fullmatch(r"([A-Z][A-Z']*( [A-Z][A-Z']*)*)?", once)
    assert normalise(once) == once


@given(st.text(alphabet="0123456789.,sthndr%-' aB[(<>)]*#"))
def test_numbers_and_brackets_in_any_order(text: str) -> None:
    once = normalise(text)
    assert re.fullmatch(r"[A-Z' ]*", once)
    assert normalise(once) == once


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Press 1 for", "PRESS ONE FOR"),
        ("3D audio", "THREE D AUDIO"),
        ("a 28.8 kilobit modem", "A TWENTY EIGHT POINT EIGHT KILOBIT MODEM"),
        ("dial 500.", "DIAL FIVE HUNDRED"),
        ("1,2,3", "ONE TWO THREE"),
        ("at 3:45 or 3.1.4", "AT THREE FORTY FIVE OR THREE ONE FOUR"),
        ("don\u00b4t", "DON'T"),
        ("nothin'", "NOTHIN"),
        ("1,234", "ONE THOUSAND TWO HUNDRED AND THIRTY FOUR"),
        ("007", "ZERO ZERO SEVEN"),
        ("5551234567890", "FIVE FIVE FIVE ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE ZERO"),
        ("the 1st and 22nd", "THE FIRST AND TWENTY SECOND"),
        ("press * or #", "PRESS STAR OR POUND"),
        ("don\u2019t 'quote'", "DON'T QUOTE"),
        ("re-record it", "RE RECORD IT"),
        ("at [@]", "AT"),
        ('IAX (note: does not say "2")', "IAX"),
        ("<beep ascending>", ""),
        ("[this is an error beep tone]", ""),
        ("caf\u00e9", "CAFE"),
        ("...", ""),
    ],
)
def test_how_things_are_read(written: str, spoken: str) -> None:
    assert normalise(written) == spoken


LANGUAGES = ("fr", "es", "tr", "uk", "el", "ar", "fa", "he", "hi", "ka", "zh", "ja", "th", "ko", "yo", "ca")


@given(st.sampled_from(LANGUAGES), st.text(st.characters(exclude_categories=["Nd", "Cs"])))
def test_twice_is_once_in_every_language(language: str, text: str) -> None:
    once = Normaliser(language)(text)
    assert Normaliser(language)(once) == once == " ".join(once.split())


@pytest.mark.parametrize(
    ("language", "written", "words"),
    [
        (
            "fr",
            "L\u2019écran est activé : 21 %, 3,5 <unk>",
            "l'écran est activé vingt et un trois virgule cinq",
        ),
        ("it", "un po\u2019 di 'pane'", "un po di pane"),
        ("it", "un po\u2019 di pane", "un po' di pane"),
        ("de-CH", "1\u2019234", "eintausendzweihundertvierunddrei\u00dfig"),
        ("fr", "1 234", "mille deux cent trente quatre"),
        ("es", "¿Mañana? 1.234", "mañana mil doscientos treinta y cuatro"),
        ("de", "Straße STRAẞE", "straße straße"),
        ("tr", "ISPARTA İzmir", "ısparta izmir"),
        ("uk", "П\u2019ЯТЬ 5", "п'ять п'ять"),
        ("el", "ΟΔΟΣ", "οδος"),
        ("ka", "ᲗᲑᲘᲚᲘᲡᲘ", "თბილისი"),
        (
            "ar",
            "م\u0640\u0640رحبا ٣",
            "مرحبا ثلاثة",
        ),
        ("fa", "می\u200cخواهم", "می\u200cخواهم"),
        ("he", "צה״ל.", "צה״ל"),
        ("hi", "नमस\u094dत\u0947 ।", "नमस\u094dत\u0947"),
        ("zh", "你好，ABC。", "你 好 abc"),
        ("ja", "カー 第3章", "カ ー 第 三 章"),
        ("th", "น\u0e49ำก", "น\u0e49ำ ก"),
        ("ca", "col·lecció · x", "col·lecció x"),
        ("yo", "Ọjọ\u0301", "ọjọ\u0301"),
    ],
)
def test_a_language_keeps_its_letters_and_marks(language: str, written: str, words: str) -> None:
    assert Normaliser(language)(written) == words


@pytest.mark.parametrize(
    ("language", "number"),
    [
        ("hi", "21"),
        ("fr", "1er"),
        ("fr", "1st"),
        ("yo", "5"),
        ("zh", "5"),
        ("tr", "3,5"),
        ("ru", "5-й"),
        ("tr", "5'te"),
    ],
)
def test_a_number_without_words_is_named(language: str, number: str) -> None:
    with pytest.raises(NumberError, match=f"the number {number} cannot be written out in the language {language}"):
        Normaliser(language)(f"x {number} y")


def test_what_is_dropped_is_counted() -> None:
    words, losses = normalise.explain("café, да! [noise] [noise] 21")
    assert words == "CAFE TWENTY ONE"
    assert losses.lost == 3
    assert losses.characters == 8
    assert losses.dropped[("note", "[noise]")] == 2
    assert losses.dropped[("symbol", ",")] == 1
    assert losses.dropped[("letter", "Д")] == 1
    assert Normaliser("ru").explain("да")[1] == Losses(characters=2)


def test_verbatim_leaves_all_but_white_space() -> None:
    assert Normaliser("en", verbatim=True)("  Café <unk>\t12, ") == "Café <unk> 12,"


def test_languages_without_spaces_are_known_by_their_tag() -> None:
    assert [unspaced(tag) for tag in ("zh-Hant", "ja", "th", "ko", "en")] == [True, True, True, False, False]
