"""Stops as phoneticians write them: a closure, in which nothing is heard, and the release that ends it.

Human annotators end a word whose last stop is not released with its closure, begin a word after a pause with the
release, and time the glottal stop that vowels often begin words with. With cmudict's phones an aligner cannot say any
of that. The names are TIMIT's: PCL P, TCL CH, Q.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from asr_kd.lang.phone_classes import phone_class

CLOSURE_OF = {
    "P": "PCL", "T": "TCL", "K": "KCL", "B": "BCL", "D": "DCL", "G": "GCL", "CH": "TCL", "JH": "DCL",
}  # fmt: skip
GLOTTAL_STOP = "Q"
SYMBOLS = (*sorted(set(CLOSURE_OF.values())), GLOTTAL_STOP)
_AFFRICATES = ("CH", "JH")  # the fricative in them is always heard
_MOST = 32  # pronunciations that one becomes


def with_closures(pronunciations: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Pronunciations of ARPAbet's phones -> what each may become, the one with every release and no Q first.

    Each pronunciation becomes at most 32; those without Q come first.
    A stop may stay unreleased at the end of a word and before another stop. Whether a word may also begin without its
    closure depends on the phone before it: the graph of the utterance decides that (`alignment.topology`).
    """
    variants: dict[tuple[str, ...], None] = {}
    for phones in pronunciations:
        choices = [_choices(phones, place) for place in range(len(phones))]
        for chosen in itertools.islice(itertools.product(*choices), _MOST):
            variants[tuple(itertools.chain.from_iterable(chosen))] = None
    return list(variants)


def _choices(phones: Sequence[str], place: int) -> list[tuple[str, ...]]:
    phone, following = phones[place], phones[place + 1 : place + 2]
    if phone in CLOSURE_OF:
        closure = CLOSURE_OF[phone]
        unreleased = phone not in _AFFRICATES and (not following or following[0] in CLOSURE_OF)
        return [(closure, phone), (closure,)] if unreleased else [(closure, phone)]
    if place == 0 and phone_class(phone) == "vowel":
        return [(phone,), (GLOTTAL_STOP, phone)]
    return [(phone,)]
