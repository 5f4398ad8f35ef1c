"""Recordings that are in two sets: what is scored must not have been learnt from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from asr_kd.corpora.listing import Utterance
from asr_kd.corpora.sources import TarMember
from asr_kd.errors import UserError, printable


def check_disjoint(utterances: Iterable[Utterance], is_scored_only: Callable[[str], bool]) -> None:
    """Checks that no recording, or segment of one, is in two sets, whatever its names and links are.

    Args:
      is_scored_only: whether nothing is learnt from a set, and nothing chosen on it; two such sets may share speech.

    Raises:
      UserError: a set that is learnt from, or dev, shares speech with another set.
    """
    real = cache(os.path.realpath)
    first: dict[tuple[str, float, float | None, int | None], Utterance] = {}
    for utterance in utterances:
        audio = utterance.audio
        place = audio.source
        if isinstance(place, Path):
            name = real(place)
        elif isinstance(place, TarMember):
            name = f"{real(place.tar)}:{place.place}"
        else:
            continue  # commands and what lhotse reads: whether two give the same sound is not known
        other = first.setdefault((name, audio.start, audio.duration, audio.channel), utterance)
        if other.set == utterance.set or (is_scored_only(other.set) and is_scored_only(utterance.set)):
            continue
        raise UserError(
            f"{printable(str(audio))} is in {other.set} ({printable(other.id)}) and in {utterance.set} "
            f"({printable(utterance.id)}): what is scored must not be learnt from, nor scales chosen on it; leave it "
            "out of one of them, or name other parts under sets:."
        )
