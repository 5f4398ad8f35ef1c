"""Every phone that we know has its class; stops with closures: what a pronunciation becomes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.errors import UserError
from asr_kd.lang.lexicon import ARPABET, SILENCE, Lang
from asr_kd.lang.phones import CLASSES, CLOSURE_OF, GLOTTAL_STOP, OTHER, SYMBOLS, phone_class, with_closures
from asr_kd.lang.settings import LangConfig
from asr_kd.lang.units import pronunciation_model

PHONES = Path(__file__).parents[2] / "recipes" / "timit" / "conf" / "phones.txt"


def test_no_phone_of_cmudict_or_timit_is_left_over() -> None:
    timit = [line.split()[0] for line in PHONES.read_text().splitlines() if line and not line.startswith("#")]
    assert len(timit) == 61
    result = {phone_class(phone) for phone in (*ARPABET, *timit)}
    assert result == set(CLASSES) - {OTHER}


def test_case_and_stress_do_not_count() -> None:
    assert phone_class("AA1") == phone_class("aa") == "vowel"
    assert phone_class("") == phone_class(SILENCE) == phone_class("h#") == "silence"
    assert phone_class("Q7") == OTHER


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ("S P IY", ["S PCL P IY"]),  # before a vowel a stop is released
        ("B IH T", ["BCL B IH TCL T", "BCL B IH TCL"]),
        ("AE K T", ["AE KCL K TCL T", "AE KCL K TCL", "AE KCL TCL T", "AE KCL TCL",
                    "Q AE KCL K TCL T", "Q AE KCL K TCL", "Q AE KCL TCL T", "Q AE KCL TCL"]),
        ("IH N CH", ["IH N TCL CH", "Q IH N TCL CH"]),  # an affricate is always heard
        ("M UW", ["M UW"]),
    ],
)  # fmt: skip
def test_releases_closures_and_glottal_stops(said: str, becomes: list[str]) -> None:
    assert with_closures([said.split()]) == [tuple(one.split()) for one in becomes]


@given(st.lists(st.lists(st.sampled_from(ARPABET), min_size=1, max_size=9), max_size=3))
def test_every_variant_is_the_word_with_something_more_or_unreleased(pronunciations: list[list[str]]) -> None:
    variants = with_closures(pronunciations)
    assert len(set(variants)) == len(variants)
    plain = {tuple(phones) for phones in pronunciations}
    assert {tuple(phone for phone in variant if phone not in SYMBOLS) for variant in variants} >= plain
    for variant in variants:
        assert GLOTTAL_STOP not in variant[1:]
        for before, phone in zip(("", *variant), variant, strict=False):
            assert phone not in CLOSURE_OF or before == CLOSURE_OF[phone]
    if len(pronunciations) == 1:
        # the first is the word itself, every stop with its closure
        assert [phone for phone in variants[0] if phone not in SYMBOLS] == pronunciations[0]


def test_a_lexicon_knows_which_of_its_stops_are_closed() -> None:
    phones = ("SIL", "T", "TCL", "IY", "D", "DCL")
    assert Lang(phones, (), {"TEA": ((2, 1, 3),), "ADD": ((3, 5),)}).closed_stops == {(2, 1)}
    # TIMIT's transcripts of phones: each is a word
    assert Lang(phones, (), {"TCL": ((2,),), "T": ((1,),)}).closed_stops == frozenset()


def test_the_config_asks_for_them(tmp_path: Path) -> None:
    own = tmp_path / "lexicon.txt"
    own.write_text("TEA T IY\n")
    model = pronunciation_model(LangConfig(closures=True), own, [])
    assert model({"TEA", "OATS"}) == {
        "TEA": [("TCL", "T", "IY")],
        "OATS": [("OW", "TCL", "T", "S"), ("Q", "OW", "TCL", "T", "S")],
    }
    assert set(model.symbols) == {*ARPABET, *SYMBOLS}
    assert pronunciation_model(LangConfig(), own, [])({"TEA"}) == {"TEA": [("T", "IY")]}
    with pytest.raises(UserError, match=r"lang\.closures is for lang\.units: phones with"):
        pronunciation_model(LangConfig(closures=True, units="characters"), own, [])
