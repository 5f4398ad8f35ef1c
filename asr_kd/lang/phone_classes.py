"""Which sounds are made alike: the broad classes of ARPAbet's phones and of TIMIT's."""

from __future__ import annotations

SILENCE = "silence"
OTHER = "other"  # no phone of ours: letters, other languages
_MEMBERS = {
    "vowel": "AA AE AH AO AW AX AX-H AXR AY EH ER EY IH IX IY OW OY UH UW UX",
    # an affricate begins as a stop does
    "stop": "B D G P T K DX Q JH CH",
    "closure": "BCL DCL GCL PCL TCL KCL VCL CL",
    "fricative": "S SH Z ZH F TH V DH HH HV",
    "nasal": "M N NG EM EN ENG NX",
    "glide": "L R W Y EL WH",  # and liquids
    SILENCE: "SIL SP SPN PAU EPI H#",
}
_CLASSES = {phone: name for name, phones in _MEMBERS.items() for phone in phones.split()} | {"": SILENCE}
CLASSES = (*_MEMBERS, OTHER)


def phone_class(phone: str) -> str:
    """One of CLASSES; case and stress marks do not count, and no label is silence."""
    return _CLASSES.get(phone.upper().rstrip("012"), OTHER)


INSIDE, BETWEEN = "-", "#"  # a word, and words


def boundary_kind(left: str, right: str, *, between_words: bool = False) -> str:
    """What a boundary lies between: "stop-vowel" for T and IY, "stop#vowel" where a word ends or begins."""
    return f"{phone_class(left)}{BETWEEN if between_words else INSIDE}{phone_class(right)}"
