"""Phones are scored as the classes that they belong to, wherever errors are counted; words as they are."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse.recipes.timit import get_phonemes

from asr_kd.corpora.settings import PromptsConfig, TimitConfig
from asr_kd.corpora.timit_times import read_phone_map, scored_phones, scoring_of
from asr_kd.decoding.scales import grid_errors
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import WORDS, Scoring
from asr_kd.lang.lexicon import ARPABET

CONF = Path(__file__).parents[2] / "recipes" / "timit" / "conf"
CONFIG_PATH = CONF / "phones48.yaml"
PHONES = TimitConfig(transcripts="phones")
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
    scoring = scoring_of(PHONES, CONFIG_PATH)
    said = ["SIL", "VCL", "B", "IX", "CL", "T", "Q", "AO", "SIL"]
    assert scoring.scored(said) == ["B", "IH", "T", "AA"]
    assert scoring.scored(said, silence=True) == ["SIL", "B", "IH", "SIL", "T", "AA", "SIL"]
    assert scoring.scored(["sil", "b", "ao", "sil"]) == ["B", "AA"], "phones as words are lower case"
    assert scoring.scored([]) == scoring.scored(["SIL"]) == [] == scoring.scored([], silence=True)


@given(st.lists(st.sampled_from(sorted(scored_phones(CONF, 39)))))
def test_scoring_what_is_scored_already_changes_nothing(phones: list[str]) -> None:
    scoring = scoring_of(PHONES, CONFIG_PATH)
    for silence in (False, True):
        once = scoring.scored(phones, silence=silence)
        assert scoring.scored(once, silence=silence) == once
        assert ["SIL", "SIL"] not in [once[k : k + 2] for k in range(len(once))]


def test_words_are_scored_as_they_are() -> None:
    assert scoring_of(PromptsConfig(), CONFIG_PATH) == WORDS
    assert (WORDS.unit, WORDS.inputs, WORDS.scored(("SIL", "ah"), silence=True)) == ("word", {}, ["SIL", "ah"])


def test_the_map_is_part_of_the_stamp() -> None:
    by_size = {size: scoring_of(dataclasses.replace(PHONES, scored_phones=size), CONFIG_PATH).inputs
               for size in (48, 39)}  # fmt: skip
    assert len({str(inputs) for inputs in by_size.values()}) == 2 and all(by_size.values())


def test_more_phones_scored_than_trained_is_an_error() -> None:
    corpus = dataclasses.replace(PHONES, phone_set=39, scored_phones=48)
    with pytest.raises(UserError, match=r"phones48.yaml: corpus.scored_phones is 48, but corpus.phone_set only 39"):
        scoring_of(corpus, CONFIG_PATH)


def test_scales_are_chosen_by_what_is_scored() -> None:
    scoring = Scoring({"SIL": "SIL", "IX": "IH", "IH": "IH", "B": "B", "Q": None})
    grid = ((("IH", "B"), ("SIL", "IX", "Q", "B")), (("B",), ("SIL",)))
    assert grid_errors([["SIL", "IX", "B", "SIL"]], [grid], scoring).tolist() == [[0, 0], [1, 2]]
    assert grid_errors([["SIL", "IX", "B", "SIL"]], [grid]).tolist() == [[3, 2], [3, 3]]
