"""The times of the finished alignment: its segments, finer than a frame and moved by kind where that was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from asr_kd.alignment.boundary_offsets import SHIFTS_FILE, read_shifts, shift_times
from asr_kd.alignment.segments import read_alignment, read_finer_starts
from asr_kd.alignment.times import Interval, Times
from asr_kd.alignment.topology import SIL
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.frames.store import FrameStore
from asr_kd.lang.lexicon import read_lang
from asr_kd.workspace.work import Workspace

SETS = ("train", "dev", "test")


def read_times(work: Workspace, name: str) -> Iterator[Times]:
    """The aligned, unaltered utterances of a set."""
    store, lang = FrameStore.open(work.frames(name)), read_lang(work.lang)
    segments = read_alignment(work.exp("align"), name).segments
    shifts_file = work.exp("align") / SHIFTS_FILE
    shifts = read_shifts(shifts_file) if shifts_file.exists() else {}
    finer = read_finer_starts(work.exp("align"), name)
    starts = segments[:, 3] * FRAME_SHIFT if finer is None else finer
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
            phones.append(Interval(begin, stop, "" if word < 0 and phone == SIL else lang.phones[phone]))
            if spans and word >= 0 and spans[-1][1] == word:
                spans[-1] = (Interval(spans[-1][0].start, stop, words[word]), word)
            else:
                spans.append((Interval(begin, stop, "" if word < 0 else words[word]), word))
        found = Times(identity, duration, [span for span, _ in spans], phones)
        yield shift_times(found, shifts) if shifts else found
