"""When each word and phone of an utterance is said: the alignment as a reader of other tools' files thinks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asr_kd.alignment.segments import read_alignment, starts_file
from asr_kd.artifacts import Work
from asr_kd.frames.store import FRAME_SHIFT, FrameStore
from asr_kd.lang.lexicon import read_lang

SETS = ("train", "dev", "test")


@dataclass(frozen=True)
class Interval:
    start: float  # seconds
    end: float
    label: str  # "" is silence


@dataclass(frozen=True)
class Times:
    """One utterance; both tiers cover it from 0 to `duration` without gaps."""

    utterance: str
    duration: float
    words: list[Interval]
    phones: list[Interval]


def read_times(work: Work, name: str) -> Iterator[Times]:
    """The aligned, unaltered utterances of a set."""
    store, lang = FrameStore.open(work.frames(name)), read_lang(work.lang)
    segments = read_alignment(work.exp("align"), name).segments
    finer = starts_file(work.exp("align"), name)
    starts = np.load(finer, mmap_mode="r", allow_pickle=False) if finer.exists() else segments[:, 3] * FRAME_SHIFT
    bounds = np.searchsorted(segments[:, 0], np.arange(len(store.ids) + 1))
    for utterance, identity in enumerate(store.ids):
        rows = segments[bounds[utterance] : bounds[utterance + 1]]
        if len(rows) == 0 or store.speeds[utterance] != 1.0:
            continue
        duration = float(store.durations[utterance])
        words = store.texts[utterance].split()
        phones: list[Interval] = []
        spans: list[tuple[Interval, int]] = []
        # the last frame may reach a little past the audio or end before it
        times = [*starts[bounds[utterance] : bounds[utterance + 1]].tolist(), duration]
        for (_, phone, word, _, _), begin, stop in zip(rows.tolist(), times[:-1], times[1:], strict=True):
            phones.append(Interval(begin, stop, "" if word < 0 else lang.phones[phone]))
            if spans and word >= 0 and spans[-1][1] == word:
                spans[-1] = (Interval(spans[-1][0].start, stop, words[word]), word)
            else:
                spans.append((Interval(begin, stop, "" if word < 0 else words[word]), word))
        yield Times(identity, duration, [span for span, _ in spans], phones)
