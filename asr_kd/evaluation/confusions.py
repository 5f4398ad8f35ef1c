"""Phone confusions: counted from alignments, in an order in which similar sounds are neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from asr_kd.evaluation.wer import Pair

# (true, recognised, times); None: inserted, or deleted
Count = tuple[str | None, str | None, int]

_SIMILAR_SOUNDS = (
    "IY IX IH EY EH AE AX AH UH UW OW AO AA AW AY OY ER "  # vowels, from the front of the mouth to the back; diphthongs
    "L EL R W Y M N EN NG DX "  # liquids, glides, nasals, flap
    "B D G P T K JH CH V DH Z ZH F TH S SH HH VCL CL EPI SIL"  # stops, affricates, fricatives; silence
)


def confusions(alignments: Iterable[Iterable[Iterable[Pair]]]) -> list[Count]:
    """How often each pair occurs, the most frequent first.

    Args:
      alignments: [seed][utterance].
    """
    counts = Counter(pair for of_seed in alignments for pairs in of_seed for pair in pairs)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return [(true, recognised, times) for (true, recognised), times in ranked]


def matrix(counts: Sequence[Count]) -> tuple[list[str], np.ndarray]:
    """The phones, similar ones side by side, and (P + 1, P + 1) int64 counts: [true, recognised].

    The last row counts insertions, the last column deletions.
    """
    phones_seen = {phone for true, recognised, _ in counts for phone in (true, recognised) if phone is not None}
    known = [phone for phone in _SIMILAR_SOUNDS.split() if phone in phones_seen]
    phones = known + sorted(phones_seen - set(known))
    index: dict[str | None, int] = {phone: k for k, phone in enumerate(phones)} | {None: len(phones)}
    table = np.zeros((len(phones) + 1, len(phones) + 1), np.int64)
    for true, recognised, times in counts:
        table[index[true], index[recognised]] += times
    return phones, table


def most_confused(counts: Sequence[Count], most: int) -> list[Count]:
    """The most frequent pairs of two different phones."""
    return [count for count in counts if count[0] != count[1] and None not in count[:2]][:most]
