"""Manual times: every phone keeps its frames, and its states share them in the best way."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.supervision import AlignmentItem

from asr_kd.alignment.manual import best_split, equal_split, frames_of, read_starts
from asr_kd.alignment.topology import CannotAlignError, compile_transcript
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT, frame_seconds
from asr_kd.frames.store import FrameStore
from asr_kd.lang.lexicon import Lang

from ..stores import write_store

LANG = Lang(("SIL", "A", "B"), ("A", "B", "SIL"), {"A": ((1,),), "B": ((2,),), "SIL": ((0,),)})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 40))
def test_every_phone_gets_a_frame_in_order_and_near_its_time(times: list[float], extra: int) -> None:
    seconds = np.array([0.0, *sorted(times)])
    frames = len(seconds) + extra
    starts = frames_of(seconds, frames, FRAME_SHIFT)
    assert starts is not None and starts[0] == 0 and starts[-1] == frames
    assert (np.diff(starts) >= 1).all()
    expected = np.round(100 * seconds)
    gaps = np.diff(np.append(expected, frames))
    if (gaps >= 1).all():  # nothing had to move
        assert (starts[:-1] == expected).all()
    assert frames_of(seconds, len(seconds) - 1, FRAME_SHIFT) is None


@given(st.integers(0, 1000), st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_the_best_split_is_the_best_of_all(seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    graph = replace(compile_transcript(["A", "B", "A"][: len(lengths)], LANG, optional_silence=False), starts=starts)
    scores = rng.normal(size=(starts[-1], 9)).astype(np.float32)
    path, score = best_split(scores, graph)
    best = 0.0
    for node, (begin, end) in enumerate(itertools.pairwise(starts)):
        ways = [
            states for states in itertools.combinations_with_replacement(range(3), int(end - begin))
            if set(states) == ({1} if end - begin == 1 else {0, 2} if end - begin == 2 else {0, 1, 2})
        ]  # fmt: skip
        phone = graph.phone[node]
        best += max(sum(float(scores[begin + t, 3 * phone + s]) for t, s in enumerate(way)) for way in ways)
        assert (path[begin:end] // 3 == node).all() and (np.diff(path[begin:end]) >= 0).all()
        assert (equal_split(graph)[begin:end] // 3 == node).all()
    assert score == pytest.approx(best, abs=1e-4)
    assert sum(float(scores[t, graph.classes[s]]) for t, s in enumerate(path)) == pytest.approx(best, abs=1e-4)
    with pytest.raises(CannotAlignError, match="frames, but its phones have"):
        best_split(scores[:-1], graph)


def put_cuts(path: Path, phones: dict[str, list[tuple[str, float, float]]]) -> None:
    cuts = []
    for name, of_name in phones.items():
        items = [AlignmentItem(label, start, end - start) for label, start, end in of_name]
        segment = SupervisionSegment(name, name, 0.0, 1.0, alignment={"phone": items} if items else None)
        cuts.append(MonoCut(name, 0.0, 1.0, 0, supervisions=[segment]))
    CutSet.from_cuts(cuts).to_file(path)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    rng = np.random.default_rng(0)
    sizes = {"u": 40, "u_sp0.5": 80, "v": 2, "w": 30}
    utterances = [(name, rng.normal(size=(size, 3))) for name, size in sizes.items()]
    texts = ["SIL A SIL", "SIL A SIL", "SIL A SIL", "SIL A"]
    return write_store(tmp_path / "store", utterances, texts=texts, speeds=[1.0, 0.5, 1.0, 1.0])


def test_altered_copies_have_altered_times_and_misfits_are_named(store: FrameStore, tmp_path: Path) -> None:
    three = [("SIL", 0.0, 0.1), ("A", 0.1, 0.25), ("SIL", 0.25, 0.4)]
    put_cuts(tmp_path / "cuts.jsonl.gz", {"u": three, "v": three, "w": three})
    starts = read_starts(tmp_path / "cuts.jsonl.gz", store, FRAME_SHIFT)
    assert {u: found.tolist() for u, found in starts.items()} == {
        0: [0, 10, 25, 40], 1: [0, 20, 50, 80], 3: [0, 10, 25, 30],
    }  # fmt: skip
    graphs, failed = TranscribedFrames.of_store(store, LANG, starts=starts).graphs(range(4))
    assert list(graphs) == [0, 1] and graphs[0].starts is not graphs[1].starts
    assert "fewer frames than phones" in failed[2] and "2 phones, but there are times of 3" in failed[3]


def test_times_fall_on_the_frames_of_the_sampling_rate(tmp_path: Path) -> None:
    """At 22,050 Hz frames are 220 samples apart, and 30 s are 3,007 of them."""
    utterances = [(name, np.random.default_rng(0).normal(size=(size, 3))) for name, size in (("u", 3007), ("v", 6014))]
    store = write_store(tmp_path / "store", [utterances[0], ("u_sp0.5", utterances[1][1])], speeds=[1.0, 0.5])
    put_cuts(tmp_path / "cuts.jsonl.gz", {"u": [("SIL", 0.0, 25.0), ("A", 25.0, 25.1), ("SIL", 25.1, 30.0)]})
    starts = read_starts(tmp_path / "cuts.jsonl.gz", store, frame_seconds(22050))
    for utterance, slower in ((0, 1), (1, 2)):
        begin, end = (round(slower * seconds * 22050 / 220) for seconds in (25.0, 25.1))
        assert starts[utterance].tolist() == [0, begin, end, slower * 3007]


def test_cuts_without_times_are_an_error(store: FrameStore, tmp_path: Path) -> None:
    put_cuts(tmp_path / "cuts.jsonl.gz", {"u": []})
    with pytest.raises(UserError, match=r"u has no times of phones, which alignment.labels: manual needs"):
        read_starts(tmp_path / "cuts.jsonl.gz", store, FRAME_SHIFT)
