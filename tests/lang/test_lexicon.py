"""The phone lexicon and its files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import ARPABET, make_lang, pronounce, read_lang, read_lexicon, write_lang, write_lexicon
from asr_kd.lang.settings import LangConfig
from asr_kd.lang.units import pronunciation_model


def test_cmudict_without_stress_and_each_pronunciation_once() -> None:
    result = pronounce(["ASTERISK", "A", "THE", "QQQQ"], {})
    assert result["ASTERISK"] == [("AE", "S", "T", "ER", "IH", "S", "K")]
    assert result["A"] == [("AH",), ("EY",)]  # the article and the letter
    assert result["THE"] == [("DH", "AH"), ("DH", "IY")]
    assert "QQQQ" not in result


def test_the_hand_written_lexicon_has_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("# ours\nip AY P IY1  # letters\n\nQQQQ K Y UW\nQQQQ K UW\n")
    own = read_lexicon(path)
    assert pronounce(["IP", "QQQQ", "QQQQ'S"], own) == {
        "IP": [("AY", "P", "IY")],
        "QQQQ": [("K", "Y", "UW"), ("K", "UW")],
        "QQQQ'S": [("K", "Y", "UW", "Z"), ("K", "UW", "Z")],
    }


@pytest.mark.parametrize(("line", "says"), [("WORD", "WORD has no phones"), ("WORD W XX D", "XX is not one of")])
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(f"GOOD G UH D\n{line}\n")
    with pytest.raises(UserError, match=f"lexicon.txt:2: {says}"):
        read_lexicon(path)


def test_a_lexicon_is_read_as_cmudict_is_shipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("\ufeffFORWARD F AO1 R\n;;; # a comment\nforward(2) F F\nFORWARD(3) F AO R\n", encoding="utf-8")
    assert read_lexicon(path) == {"FORWARD": [("F", "AO", "R"), ("F", "F")]}
    assert not caplog.records


def test_words_that_no_transcript_can_have_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("GOOD G UH D\nCO-OP K OW\n<UNK> K AE F EY\n", encoding="utf-8")
    read_lexicon(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: no transcript can have 2 of its words: CO-OP, <UNK>"
    ]


WORDS = st.text("ABC'", min_size=1, max_size=4)


@given(
    st.dictionaries(
        WORDS, st.lists(st.lists(st.sampled_from(ARPABET), min_size=1, max_size=4).map(tuple), min_size=1, unique=True)
    ),
    st.data(),
)
def test_read_gives_what_write_got(tmp_path_factory, pronunciations, data) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("lang")
    vocabulary = [word for word in pronunciations if data.draw(st.booleans())]
    lang = make_lang(vocabulary, pronunciations)
    write_lang(folder, lang)
    assert read_lang(folder) == lang
    assert lang.phones[0] == "SIL" and len(lang.phones) == 40
    assert list(lang.words) == sorted(vocabulary)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_lang(tmp_path, make_lang(["A"], {"A": [("EY",)], "B": [("B", "IY")]}))
    (tmp_path / "lexicon.txt").write_text("A EY\nB B XX\n")
    with pytest.raises(UserError, match=r"lexicon.txt:2: XX is not in phones.txt"):
        read_lang(tmp_path)
    (tmp_path / "lexicon.txt").write_text("B B IY\n")
    with pytest.raises(UserError, match=r"A of words\.txt has no pronunciation"):
        read_lang(tmp_path)
    (tmp_path / "words.txt").unlink()
    with pytest.raises(UserError, match=r"words.txt: cannot be read .*asr-kd prepare"):
        read_lang(tmp_path)


def test_a_further_lexicon_adds_words_and_changes_none(tmp_path: Path) -> None:
    lang = make_lang(["A"], {"A": [("AH",)]})
    write_lang(tmp_path, lang)
    more = tmp_path / "more.txt"
    write_lexicon(more, {"A": [("EY",)], "TEA": [("T", "IY")]})
    index = {phone: number for number, phone in enumerate(lang.phones)}
    both = read_lang(tmp_path, more, tmp_path / "missing.txt")
    assert both.pronunciations == lang.pronunciations | {"TEA": ((index["T"], index["IY"]),)}
    assert (both.phones, both.words) == (lang.phones, lang.words)
    more.write_text("TEA T XX\n")
    with pytest.raises(UserError, match=r"more\.txt:1: XX is not in phones\.txt"):
        read_lang(tmp_path, more)


def test_a_lexicon_of_another_language_has_its_own_phones(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("Ёлка j o1 l k a0\nЁЛКА(2) j o1 l k @\n!SIL SIL\nда d a1 # yes\n", encoding="utf-8")
    settings = LangConfig(language="ru", lexicon=str(path), guess_pronunciations=True)
    model = pronunciation_model(settings, path, [])
    assert model.symbols == ("@", "a0", "a1", "d", "j", "k", "l", "o1")
    said = model({"ёлка", "да", "лак"})
    assert said["ёлка"] == [("j", "o1", "l", "k", "a0"), ("j", "o1", "l", "k", "@")]
    assert said["да"] == [("d", "a1")]
    assert "лак" in model.guessed and set(said["лак"][0]) <= set(model.symbols)


def test_english_with_phones_of_its_own_leaves_cmudict_out(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("tea t i:\n")
    model = pronunciation_model(LangConfig(use_cmudict=False), path, [])
    assert model.symbols == ("i:", "t") and model({"TEA", "OATS"}) == {"TEA": [("t", "i:")]}
    with pytest.raises(UserError, match=r"t is not one of cmudict's 39 phones .* set lang.use_cmudict: false"):
        pronunciation_model(LangConfig(), path, [])


@pytest.mark.parametrize(
    ("line", "says"), [("мир SIL i r", "SIL is the name of silence"), ("мир 0.5 m i r", "0.5 is a probability")]
)
def test_phones_that_cannot_be_are_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(f"да d a\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"lexicon.txt:2: {says}"):
        pronunciation_model(LangConfig(language="ru"), path, [])


def test_a_probability_of_1_in_front_of_every_pronunciation_is_no_phone(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("да 1 d a\nмир 1 m i r\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"lexicon\.txt: 1 is a probability and no phone"):
        pronunciation_model(LangConfig(language="ru"), path, [])
    path.write_text("да 1 d a\nмир m i r\n", encoding="utf-8")  # an inventory of digits
    assert pronunciation_model(LangConfig(language="ru"), path, [])({"да"}) == {"да": [("1", "d", "a")]}


def test_a_language_without_cmudict_needs_a_lexicon(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs a lexicon in fr; .* or set lang.units: characters"):
        pronunciation_model(LangConfig(language="fr", guess_pronunciations=True), tmp_path / "lexicon.txt", [])
