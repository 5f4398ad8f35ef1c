"""Under which names a command's seconds and memory are noted."""

import pytest

from asr_kd.commands import _key


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("train", {"systems": (), "teachers": False, "nj": 2}, "train"),
        ("train", {"systems": (), "teachers": True}, "train --teachers"),
        ("train", {"systems": ("direct", "distilled"), "teachers": False}, "train direct distilled"),
        ("decode", {"systems": ["direct"], "rescore_lm": ()}, "decode"),
        ("decode", {"systems": None, "rescore_lm": ("big=lm.arpa",)}, "decode --rescore-lm"),
    ],
)
def test_parts_of_a_stage_that_run_apart_are_noted_apart(name, options, key):
    assert _key(name, options) == key
