"""The times of the finished alignment, with subframe phases and boundary offsets; for other tools, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr_kd.alignment.boundaries import OFFSETS_FILE, apply_offsets, read_offsets
from asr_kd.alignment.set_alignment import SEGMENTS, STARTS, read_array
from asr_kd.alignment.times import Interval, Times, ctm_lines, write_textgrid
from asr_kd.alignment.topology import SIL
from asr_kd.errors import UserError
from asr_kd.frames.features import frame_seconds
from asr_kd.io.files import replacing_file
from asr_kd.io.stamp import read_stamp
from asr_kd.lang.lexicon import Lang, read_lang
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import all_sets, open_frames
from asr_kd.workspace.work import Workspace, require


def export(config: Config, work: Workspace, form: str, directory: Path) -> int:
    """Writes one TextGrid per utterance, or words.ctm and phones.ctm for all; returns how many utterances.

    Altered copies of the training set are left out.
    """
    require(work.exp("align"), work, "align")
    directory.mkdir(parents=True, exist_ok=True)
    utterances = [times for name in all_sets(config, work) for times in read_times(config, work, name)]
    if form == "textgrid":
        for times in utterances:
            with replacing_file(directory / f"{times.utterance}.TextGrid") as temporary:
                write_textgrid(times, temporary)
    else:
        for tier in ("words", "phones"):
            with replacing_file(directory / f"{tier}.ctm") as temporary:
                temporary.write_text("".join(ctm_lines(utterances, tier)), encoding="utf-8")
    return len(utterances)


def read_times(config: Config, work: Workspace, name: str) -> Iterator[Times]:
    """The aligned, unaltered utterances of a set."""
    folder = work.exp("align") / name
    if not (folder / SEGMENTS).exists():  # of a set that was added after the others were aligned
        raise UserError(f"{folder} is not there yet; make it first: {work.command('align')}")
    store, lang = open_frames(work, name), read_lang(work.lang)
    segments = read_array(folder / SEGMENTS)
    offsets_file = work.exp("align") / OFFSETS_FILE
    offsets = read_offsets(offsets_file) if offsets_file.exists() else {}
    starts = segments[:, 3] * frame_seconds(config.corpus.sampling_rate)
    if read_stamp(times_folder(work, name)) is not None:
        starts = read_array(times_folder(work, name) / STARTS)
    bounds = np.searchsorted(segments[:, 0], np.arange(len(store.ids) + 1))
    for utterance, utterance_id in enumerate(store.ids):
        rows = slice(int(bounds[utterance]), int(bounds[utterance + 1]))
        if rows.start == rows.stop or not store.unaltered[utterance]:
            continue
        # the last frame may reach a little past the audio or end before it
        duration = float(store.durations[utterance])
        words, phones = _tiers(segments[rows], [*starts[rows].tolist(), duration], store.texts[utterance].split(), lang)
        times = Times(utterance_id, duration, words, phones)
        yield apply_offsets(times, offsets) if offsets else times


def times_folder(work: Workspace, name: str) -> Path:
    """Holds the times of a set that are finer than a frame."""
    return work.exp("align") / name / "times"


def _tiers(
    segments: np.ndarray, bounds: list[float], words: list[str], lang: Lang
) -> tuple[list[Interval], list[Interval]]:
    """Words and phones of an utterance; `bounds` are the starts of its segments and its end."""
    phones: list[Interval] = []
    spans: list[tuple[Interval, int]] = []
    for (_, phone, word, _, _), begin, end in zip(segments.tolist(), bounds[:-1], bounds[1:], strict=True):
        phones.append(Interval(begin, end, "" if word < 0 and phone == SIL else lang.phones[phone]))
        if spans and word >= 0 and spans[-1][1] == word:
            spans[-1] = (Interval(spans[-1][0].start, end, words[word]), word)
        else:
            spans.append((Interval(begin, end, "" if word < 0 else words[word]), word))
    return [span for span, _ in spans], phones
