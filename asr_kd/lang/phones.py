"""ARPAbet's phones and TIMIT's: their broad classes, and stops as phoneticians write them.

A stop is a closure, in which nothing is heard, and the release that ends it. Human annotators end a word whose last
stop is not released with its closure, begin a word after a pause with the release, and time the glottal stop that
vowels often begin words with. With cmudict's phones an aligner cannot say any of that. The names are TIMIT's: PCL P,
TCL CH, Q.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

OTHER = "other"  # no phone of ours: letters, other languages
_MEMBERS = {
    "vowel": "AA AE AH AO AW AX AX-H AXR AY EH ER EY IH IX IY OW OY UH UW UX",
    # an affricate begins as a stop does
    "stop": "B D G P T K DX Q JH CH",
    "closure": "BCL DCL GCL PCL TCL KCL VCL CL",
    "fricative": "S SH Z ZH F TH V DH HH HV",
    "nasal": "M N NG EM EN ENG NX",
    "glide": "L R W Y EL WH",  # and liquids
    "silence": "SIL SP SPN PAU EPI H#",
}
_CLASSES = {phone: name for name, phones in _MEMBERS.items() for phone in phones.split()} | {"": "silence"}
CLASSES = (*_MEMBERS, OTHER)
INSIDE, BETWEEN = "-", "#"  # a word, and words, in the kind of a boundary
CLOSURE_OF = {
    "P": "PCL", "T": "TCL", "K": "KCL", "B": "BCL", "D": "DCL", "G": "GCL", "CH": "TCL", "JH": "DCL",
}  # fmt: skip
GLOTTAL_STOP = "Q"
SYMBOLS = (*sorted(set(CLOSURE_OF.values())), GLOTTAL_STOP)
_AFFRICATES = ("CH", "JH")  # the fricative in them is always heard
_MOST = 32  # pronunciations that one becomes


def phone_class(phone: str) -> str:
    """One of CLASSES; case and stress marks do not count, and no label is silence."""
    return _CLASSES.get(phone.upper().rstrip("012"), OTHER)


def boundary_kind(left: str, right: str, *, between_words: bool = False) -> str:
    """What a boundary lies between: "stop-vowel" for T and IY, "stop#vowel" where a word ends or begins."""
    return f"{phone_class(left)}{BETWEEN if between_words else INSIDE}{phone_class(right)}"


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
