"""A stamp changes with what the artefact depends on, and with nothing else."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.errors import UserError
from asr_kd.io.stamp import STAMP, Stamp, read_stamp, stale_reason

BASE = Stamp("align", {"alignment": AlignmentConfig(rounds=3)}, {"frames": "8f3a"}, seed=1)


@pytest.mark.parametrize(
    "other, reason",
    [
        (dataclasses.replace(BASE, settings={"alignment": AlignmentConfig(rounds=4)}),
         "the setting alignment.rounds changed"),
        (dataclasses.replace(BASE, settings={"alignment": AlignmentConfig()}), "the setting alignment.rounds changed"),
        (dataclasses.replace(BASE, settings={"alignment": AlignmentConfig(rounds=3, leaves=9)}),
         "the setting alignment.leaves changed"),
        (dataclasses.replace(BASE, inputs={"frames": "51c0"}), "its input frames changed"),
        (dataclasses.replace(BASE, inputs={}), "its input frames changed"),
        (dataclasses.replace(BASE, inputs={"frames": "8f3a", "lexicon": "1"}), "its input lexicon changed"),
        (dataclasses.replace(BASE, seed=2), "it was made with another seed"),
        (dataclasses.replace(BASE, version=2), "the way it is made changed"),
    ],
)  # fmt: skip
def test_what_an_artefact_depends_on_makes_it_stale_and_is_named(tmp_path, other, reason):
    BASE.write(tmp_path / STAMP)
    assert stale_reason(tmp_path, BASE) is None
    assert other.digest != BASE.digest
    assert stale_reason(tmp_path, other) == reason


def test_what_no_result_depends_on_leaves_the_stamp(tmp_path):
    cosmetic = dataclasses.replace(BASE, settings={"alignment": AlignmentConfig(rounds=3, max_bad_fraction=1.0)})
    assert cosmetic.digest == BASE.digest
    BASE.write(tmp_path / STAMP, {"frames": 12})
    assert stale_reason(tmp_path, cosmetic) is None
    assert read_stamp(tmp_path)["metadata"] == {"frames": 12}


def test_a_setting_that_is_added_to_a_class_leaves_old_stamps_valid():
    @dataclasses.dataclass(frozen=True)
    class Before:
        beam: float = 1.0

    @dataclasses.dataclass(frozen=True)
    class After:
        beam: float = 1.0
        retry: tuple[float, ...] = ()

    def digest(settings):
        return Stamp("decode", {"decoding": settings}, {}).digest

    assert digest(Before(2.0)) == digest(After(2.0)) != digest(After(2.0, (4.0,)))


@given(st.floats(0.1, 100), st.integers(1, 10**6))
def test_settings_objects_and_the_same_plain_data_are_one_stamp(beam, active):
    settings = DecodingConfig(search_beam=beam + 20.0, max_active=active + 3000)
    plain = {"search_beam": beam + 20.0, "max_active": active + 3000}
    assert Stamp("decode", {"d": settings}, {}).digest == Stamp("decode", {"d": plain}, {}).digest


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", json.dumps({"digest": "1"})])
def test_a_damaged_stamp_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / STAMP).write_text(text)
    for read in (read_stamp, lambda path: stale_reason(path, BASE)):
        with pytest.raises(UserError, match=f"{STAMP}: this stamp is damaged; delete"):
            read(tmp_path)


def test_a_folder_without_a_stamp_is_not_there_yet(tmp_path):
    assert read_stamp(tmp_path) is None and read_stamp(tmp_path / "no" / "such") is None
    assert stale_reason(tmp_path, BASE) == "not made yet"
