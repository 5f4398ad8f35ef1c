"""When each word and phone of an utterance is said, in seconds, as other tools' files have it."""

from __future__ import annotations

from dataclasses import dataclass


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
