"""The recordings of a set and what is said in them, from the cuts that `asr-kd prepare` wrote."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.corpora.audio import AudioFormat, BadAudio, read_clips
from asr_kd.corpora.cuts import cut_audio, read_cuts


@dataclass(frozen=True)
class Utterance:
    """One of them; samples are (n,) float32."""

    samples: np.ndarray
    words: tuple[str, ...]


def speakers_of(cuts: Path, every: int, rate: int) -> list[list[Utterance]]:
    """Every so many of the cuts in data/cuts_SET.jsonl.gz of a work folder, at a sampling rate, speaker by speaker."""
    chosen = list(read_cuts(cuts, "prepare again"))[::every]
    root = cuts.resolve().parent.parent
    form = AudioFormat(rate, resample=True, silent=True)
    speakers: dict[str, list[Utterance]] = {}
    for number, clip in read_clips([cut_audio(cut, root) for cut in chosen], form):
        if isinstance(clip, BadAudio):
            raise clip
        (supervision,) = chosen[number]["supervisions"]
        utterance = Utterance(clip.resampled(), tuple(supervision["text"].split()))
        speakers.setdefault(supervision.get("speaker") or str(number), []).append(utterance)
    return list(speakers.values())


def parser(description: str | None) -> argparse.ArgumentParser:
    """Of a benchmark's options: which set, which of its cuts, and recognisers to be measured on them."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cuts", type=Path, required=True, help="of a set, in the folder data of a work folder")
    options.add_argument("--every", type=int, default=1, help="take one of so many cuts")
    options.add_argument("models", nargs="*", type=Path, help="folders of recognisers")
    return options
