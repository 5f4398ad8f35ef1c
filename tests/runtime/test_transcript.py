"""The files that a transcript can be written as."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.runtime.transcript import FORMATS, Transcript, Word, captions, joined

TWO = Transcript((Word("HELLO", 0.1, 0.456, 0.9123), Word("<I&U>", 61.0, 61.5, 1.0)), 0.0, 62.0)


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("text", "a b.wav\tHELLO <I&U>\n"),
        ("ctm", "a_b 1 0.10 0.36 HELLO 0.912\na_b 1 61.00 0.50 <I&U> 1.000\n"),
        ("srt", "1\n00:00:00,100 --> 00:00:00,456\nHELLO\n\n2\n00:01:01,000 --> 00:01:01,500\n<I&U>\n\n"),
        (
            "vtt",
            "WEBVTT\n\n1\n00:00:00.100 --> 00:00:00.456\nHELLO\n\n"
            "2\n00:01:01.000 --> 00:01:01.500\n&lt;I&amp;U&gt;\n\n",
        ),
    ],
)
def test_forms(form, written):
    assert FORMATS[form]("a b.wav", TWO) == written


def test_json_has_everything():
    lost = Transcript(TWO.words, 0.0, 62.0, lost=((3.0, 4.5),))
    data = json.loads(FORMATS["json"]("é.wav", lost))
    assert data["recording"] == "é.wav" and data["seconds"] == 62 and data["text"] == TWO.text
    assert data["words"][0] == {"word": "HELLO", "start": 0.1, "end": 0.456, "confidence": 0.912}
    assert data["lost"] == [[3.0, 4.5]]


@given(st.lists(st.tuples(st.text("ABC", min_size=1, max_size=50), st.floats(0, 3), st.floats(0.01, 4)), max_size=40))
def test_captions_have_all_words_and_end_at_pauses(drawn):
    words, at = [], 0.0
    for text, pause, length in drawn:
        words.append(Word(text, at + pause, at + pause + length, 1.0))
        at = words[-1].end
    parts = list(captions(Transcript(tuple(words), 0.0, at)))
    assert [word for part in parts for word in part] == words
    for part in parts:
        assert all(b.start - a.end < 0.5 for a, b in itertools.pairwise(part))
        assert len(part) == 1 or (len(" ".join(word.word for word in part)) <= 42 and part[-1].end - part[0].start <= 6)


def test_parts_of_a_recording_are_one():
    more = Transcript((Word("X", 62.0, 63.0, 0.5),), 62.0, 70.0, lost=((64.0, 70.0),))
    whole = joined([TWO, more])
    assert (whole.start, whole.end, whole.lost) == (0.0, 70.0, ((64.0, 70.0),))
    assert whole.text == "HELLO <I&U> X"
