"""Every phone that we know has its class."""

from __future__ import annotations

from pathlib import Path

from asr_kd.lang.lexicon import ARPABET, SILENCE
from asr_kd.lang.phone_classes import CLASSES, OTHER, phone_class

PHONES = Path(__file__).parents[2] / "recipes" / "timit" / "conf" / "phones.txt"


def test_no_phone_of_cmudict_or_timit_is_left_over() -> None:
    timit = [line.split()[0] for line in PHONES.read_text().splitlines() if line and not line.startswith("#")]
    assert len(timit) == 61
    result = {phone_class(phone) for phone in (*ARPABET, *timit)}
    assert result == set(CLASSES) - {OTHER}


def test_case_and_stress_do_not_count() -> None:
    assert phone_class("AA1") == phone_class("aa") == "vowel"
    assert phone_class("") == phone_class(SILENCE) == phone_class("h#") == "silence"
    assert phone_class("Q7") == OTHER
