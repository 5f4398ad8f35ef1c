"""How words may begin where the lexicon writes stops with their closures."""

import numpy as np
import pytest

from asr_kd.alignment.topology import LOG_NO_CLOSURE, compile_transcript, path_segments
from asr_kd.alignment.viterbi import viterbi
from asr_kd.lang.lexicon import Lang

PHONES = ("SIL", "T", "TCL", "IY", "S", "Q", "B", "BCL")
SAID = {
    "TEA": ["TCL T IY"],
    "SEAT": ["S IY TCL T", "S IY TCL"],
    "EAT": ["IY TCL T", "IY TCL", "Q IY TCL T", "Q IY TCL"],
    "SS": ["S"],
}
LANG = Lang(
    PHONES,
    (),
    {w: tuple(tuple(PHONES.index(p) for p in variant.split()) for variant in variants) for w, variants in SAID.items()},
)


def aligned(words: str, heard: str, *, length: int = 4) -> list[tuple[str, int]]:
    """(phone, word) along the best path, where the sounds are these, each state `length` frames long."""
    classes = np.array([3 * PHONES.index(phone) + k for phone in heard.split() for k in range(3)])
    classes = np.repeat(classes, length)
    loglikes = np.full((len(classes), 3 * len(PHONES)), -8.0, np.float32)
    loglikes[np.arange(len(classes)), classes] = 0.0
    graph = compile_transcript(words.split(), LANG)
    segments = path_segments(graph, viterbi(loglikes, graph)[0])
    return [(PHONES[phone], word) for phone, word in zip(segments.phone.tolist(), segments.word.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("words", "heard", "found"),
    [
        # after a pause a word begins with the release, in the midst of speech with the closure
        ("TEA", "SIL T IY SIL", "SIL/- T/0 IY/0 SIL/-"),
        ("SS TEA", "S SIL T IY", "S/0 SIL/- T/1 IY/1"),
        ("SS TEA", "S TCL T IY", "S/0 TCL/1 T/1 IY/1"),
        # one closure serves both words: it is the end of the first
        ("SEAT TEA", "S IY TCL T IY", "S/0 IY/0 TCL/0 T/1 IY/1"),
        ("SEAT TEA", "S IY TCL T TCL T IY", "S/0 IY/0 TCL/0 T/0 TCL/1 T/1 IY/1"),
        # a glottal stop is the second word's, but between vowels it is nobody's
        ("SS EAT", "S Q IY TCL", "S/0 Q/1 IY/1 TCL/1"),
        ("EAT", "SIL Q IY TCL T SIL", "SIL/- Q/0 IY/0 TCL/0 T/0 SIL/-"),
        ("TEA EAT", "T IY Q IY TCL", "T/0 IY/0 Q/- IY/1 TCL/1"),
        ("TEA EAT", "T IY SIL Q IY TCL", "T/0 IY/0 SIL/- Q/1 IY/1 TCL/1"),
    ],
)
def test_what_is_heard_before_says_how_a_word_begins(words: str, heard: str, found: str) -> None:
    expected = [(phone, -1 if word == "-" else int(word)) for phone, word in (one.split("/") for one in found.split())]
    assert aligned(words, heard) == expected


def test_a_release_cannot_follow_a_vowel_or_fricative_at_once() -> None:
    """No arc from S or IY into the second state of a closed stop."""
    graph = compile_transcript(["SS", "TEA"], LANG)
    release = int(np.flatnonzero((graph.phone == PHONES.index("T")) & (graph.word == 1))[0])
    entering = range(graph.first[3 * release], graph.first[3 * release + 1])
    before = {PHONES[graph.phone[graph.source[arc] // 3]] for arc in entering} - {"T"}
    assert before == {"TCL", "SIL"}
    silence = next(arc for arc in entering if graph.phone[graph.source[arc] // 3] == 0)
    assert graph.weight[silence] == pytest.approx(LOG_NO_CLOSURE + np.log(0.5))


def test_states_only_lead_to_later_ones() -> None:
    graph = compile_transcript(["TEA", "EAT", "SEAT", "TEA"], LANG)
    target = np.repeat(np.arange(graph.num_states), np.diff(graph.first))
    assert (graph.source <= target).all()


def test_a_lexicon_without_closures_is_as_it_was() -> None:
    """The same words without closures: silence apart, nodes are entered from the words before."""
    plain = Lang(("SIL", "T", "IY"), (), {"TEA": ((1, 2),)})
    graph = compile_transcript(["TEA", "TEA"], plain)
    assert graph.phone.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert graph.word.tolist() == [-1, 0, 0, -1, 1, 1, -1]
