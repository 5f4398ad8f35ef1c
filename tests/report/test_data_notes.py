"""What the report says of the corpus itself."""

from asr_kd.report.prose import _of_the_data

NOTHING = {"data": {"shared_speakers": [], "guessed_pronunciations": 0, "lm": {}}, "alignment": {}}


def test_nothing_is_said_where_nothing_is_to_be_said():
    assert _of_the_data(NOTHING) == []


def test_each_reason_for_doubt_is_named_with_its_number():
    words = {"boundaries": 1200, "within_20ms": 0.701}
    said = _of_the_data(
        {
            "data": {"shared_speakers": ["19", "26"], "guessed_pronunciations": 7, "lm": {"sentences_left_out": 1}},
            "alignment": {"compared": 3, "words": words, "boundaries": {"boundaries": 0}},
        }
    )
    text = " ".join(said).replace("\N{NO-BREAK SPACE}", " ")
    assert "Warning: 2 speakers of the test set (19, 26)" in text
    assert "7 words are in no lexicon" in text and "without 1 sentence of its text" in text
    assert "3 utterances, 70.1 % of 1,200 word boundaries and – of 0 phone boundaries" in text
