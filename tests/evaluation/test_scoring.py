"""Phones are scored as the classes that they belong to, wherever errors are counted; words as they are."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse.recipes.timit import get_phonemes

from asr_kd.corpora.settings import FolderConfig, PromptsConfig, TimitConfig
from asr_kd.corpora.timit_times import read_phone_map, scored_phones, scoring_of
from asr_kd.decoding.scales import grid_errors
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import WORDS, Scoring, rate_name
from asr_kd.lang.lexicon import ARPABET
from asr_kd.lang.settings import LangConfig

CONF = Path(__file__).parents[2] / "recipes" / "timit" / "conf"
CONFIG_PATH = CONF / "phones48.yaml"
PHONES, LANG = TimitConfig(transcripts="phones"), LangConfig()
THEIRS = get_phonemes(39)  # lhotse's: TIMIT's phone -> the scored one, "" left out


def test_the_scored_phones_are_39_whatever_set_was_trained() -> None:
    table = scored_phones(CONF, 39)
    assert len(set(table.values()) - {None}) == 39
    for trained in (61, 48, 39):
        for phone, name in read_phone_map(CONF, trained).items():
            assert name is None or (table[name] or "").lower() == THEIRS[phone], (trained, phone)
    assert {phone: table[phone] for phone in ("AO", "VCL", "EPI", "ZH", "IX", "Q")} == {
        "AO": "AA", "VCL": "SIL", "EPI": "SIL", "ZH": "SH", "IX": "IH", "Q": None,
    }  # fmt: skip
    assert set(ARPABET) < table.keys(), "a lexicon's phones can be scored too"


def test_a_set_is_scored_as_itself_where_that_is_wanted() -> None:
    table = scored_phones(CONF, 48)
    assert {name: table[name] for name in read_phone_map(CONF, 48).values() if name} == {
        name: name for name in read_phone_map(CONF, 48).values() if name
    }
    assert len(set(table.values()) - {None}) == 48


def test_silence_is_left_out_or_counts_once() -> None:
    scoring = scoring_of(PHONES, LANG, CONFIG_PATH)
    said = ["SIL", "VCL", "B", "IX", "CL", "T", "Q", "AO", "SIL"]
    assert scoring.scored(said) == ["B", "IH", "T", "AA"]
    assert scoring.scored(said, silence=True) == ["SIL", "B", "IH", "SIL", "T", "AA", "SIL"]
    assert scoring.scored(["sil", "b", "ao", "sil"]) == ["B", "AA"], "phones as words are lower case"
    assert scoring.scored([]) == scoring.scored(["SIL"]) == [] == scoring.scored([], silence=True)


@given(st.lists(st.sampled_from(sorted(scored_phones(CONF, 39)))))
def test_scoring_what_is_scored_already_changes_nothing(phones: list[str]) -> None:
    scoring = scoring_of(PHONES, LANG, CONFIG_PATH)
    for silence in (False, True):
        once = scoring.scored(phones, silence=silence)
        assert scoring.scored(once, silence=silence) == once
        assert ["SIL", "SIL"] not in [once[k : k + 2] for k in range(len(once))]


def test_words_are_scored_as_they_are() -> None:
    assert scoring_of(PromptsConfig(), LANG, CONFIG_PATH) == WORDS
    assert (WORDS.unit, WORDS.inputs, WORDS.scored(("SIL", "ah"), silence=True)) == ("word", {}, ["SIL", "ah"])


@pytest.mark.parametrize(
    ("settings", "unit", "characters"),
    [
        ({"language": "fr"}, "word", False),
        ({"language": "fr", "units": "characters"}, "word", True),
        ({"language": "ru", "units": "bpe"}, "word", True),
        ({"language": "zh", "units": "characters"}, "character", False),  # the same rate twice
        ({"language": "th"}, "character", False),
        ({"language": "ja", "units": "characters", "normalise": "none"}, "word", True),  # words are as written
    ],
)
def test_characters_are_counted_where_words_are_made_of_them(settings: dict, unit: str, characters: bool) -> None:
    scoring = scoring_of(FolderConfig(), LangConfig(**settings), CONFIG_PATH)
    assert (scoring.unit, scoring.characters) == (unit, characters)
    assert scoring_of(PHONES, LangConfig(**settings), CONFIG_PATH).unit == "phone"


def test_a_language_without_spaces_is_scored_by_its_characters() -> None:
    scoring = scoring_of(FolderConfig(), LangConfig(language="zh", units="characters"), CONFIG_PATH)
    assert scoring.scored(["你", "好", "wifi"]) == ["你", "好", "w", "i", "f", "i"]
    assert scoring.scored(scoring.scored(["กำลัง"])) == ["กำ", "ลั", "ง"]


def test_what_is_counted_is_part_of_the_stamp() -> None:
    kinds = [WORDS, Scoring(unspaced=True), Scoring(characters=True), Scoring({"B": "B"})]
    assert len({str(scoring.inputs) for scoring in kinds}) == 4 and WORDS.inputs == {}
    assert [rate_name(scoring.unit) for scoring in kinds] == ["WER", "CER", "WER", "PER"]


def test_the_map_is_part_of_the_stamp() -> None:
    by_size = {size: scoring_of(dataclasses.replace(PHONES, scored_phones=size), LANG, CONFIG_PATH).inputs
               for size in (48, 39)}  # fmt: skip
    assert len({str(inputs) for inputs in by_size.values()}) == 2 and all(by_size.values())


def test_more_phones_scored_than_trained_is_an_error() -> None:
    corpus = dataclasses.replace(PHONES, phone_set=39, scored_phones=48)
    with pytest.raises(UserError, match=r"phones48.yaml: corpus.scored_phones is 48, but corpus.phone_set only 39"):
        scoring_of(corpus, LANG, CONFIG_PATH)


def test_scales_are_chosen_by_what_is_scored() -> None:
    scoring = Scoring({"SIL": "SIL", "IX": "IH", "IH": "IH", "B": "B", "Q": None})
    grid = ((("IH", "B"), ("SIL", "IX", "Q", "B")), (("B",), ("SIL",)))
    assert grid_errors([["SIL", "IX", "B", "SIL"]], [grid], scoring).tolist() == [[0, 0], [1, 2]]
    assert grid_errors([["SIL", "IX", "B", "SIL"]], [grid]).tolist() == [[3, 2], [3, 3]]
