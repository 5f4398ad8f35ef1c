"""A corpus's transcripts as words, and what was dropped of them."""

from pathlib import Path

import pytest

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.listing import CorpusManifest, Utterance
from asr_kd.corpora.transcripts import check_losses, describe_dropped, dropped_metadata, in_words
from asr_kd.errors import UserError
from asr_kd.lang.normalise import Losses, Normaliser


def corpus(*texts: str, verbatim: bool = False) -> CorpusManifest:
    utterances = [
        Utterance(f"u{k}", Audio(Path(f"u{k}.wav")), text, "s", "train", verbatim=verbatim)
        for k, text in enumerate(texts)
    ]
    return CorpusManifest(utterances, [])


def test_texts_become_words_and_noises_are_no_speech() -> None:
    listing = in_words(corpus("Привет, мир!", "[noise]"), Normaliser("ru"))
    assert [u.text for u in listing.utterances] == ["привет мир"]
    assert listing.not_speech == ["u1"] and not listing.problems


def test_verbatim_texts_stay() -> None:
    assert in_words(corpus("SIL h# 12", verbatim=True), Normaliser()).utterances[0].text == "SIL h# 12"


def test_an_utterance_of_another_script_or_with_a_number_without_words_is_refused() -> None:
    problems = in_words(corpus("Привет"), Normaliser()).problems
    assert problems[0].reason.startswith("its transcript has no letter of the language en (П, Р, И")
    problems = in_words(corpus("pẹlẹ 5"), Normaliser("yo")).problems
    assert "the number 5 cannot be written out in the language yo" in problems[0].reason


def test_what_is_dropped_is_counted_and_shown_with_an_utterance() -> None:
    listing = in_words(corpus("one [beep]", "<unk> two, [beep]", "café"), Normaliser())
    lines = describe_dropped(dropped_metadata(listing.dropped["train"]), "en")
    assert lines == [
        "dropped 3 notes in brackets: 2 “[beep]”, 1 “<unk>”; first in u0",
        "dropped 1 punctuation mark or symbol: 1 “,”; first in u1",
        "dropped 1 letter or accent that the language en does not have: 1 “é”; first in u2",
    ]


def test_a_set_that_loses_more_than_a_hundredth_of_its_letters_stops(tmp_path: Path) -> None:
    normalise = Normaliser()
    check_losses(tmp_path, "train", normalise.explain("é" + 99 * "e")[1], normalise)
    with pytest.raises(UserError, match=r"1\.1% of the characters in the words of train are no letters of the lang"):
        check_losses(tmp_path, "train", normalise.explain("é" + 89 * "e")[1], normalise)
    check_losses(tmp_path, "train", Losses(), normalise)
