"""Settings as plain data: what counts for a result, and what is chosen by name."""

import dataclasses
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.distillation.settings import TargetsConfig
from asr_kd.settings import STRICT, ChosenByName, Count, class_at, first_error, keys_of, to_mapping
from asr_kd.workspace.config import Comparison, Config, SystemConfig


@dataclass(frozen=True, config=STRICT)
class Ball:
    kind: str = "ball"
    radius: Count = 1


@dataclasses.dataclass(frozen=True)
class Shape:
    settings: type


SHAPES = {"ball": Shape(Ball)}
ADAPTER = TypeAdapter(Annotated[Ball, ChosenByName(SHAPES, key="kind", default="ball")])


def test_a_class_is_chosen_by_its_name_and_may_be_registered_at_any_time(monkeypatch):
    @dataclass(frozen=True, config=STRICT)
    class Box:
        kind: str = "box"
        edges: tuple[Count, ...] = (1, 1, 1)

    with pytest.raises(ValidationError, match="must be one of 'ball', not 'box'"):
        ADAPTER.validate_python({"kind": "box"})
    monkeypatch.setitem(SHAPES, "box", Shape(Box))
    assert ADAPTER.validate_python({"kind": "box", "edges": [1, 2]}) == Box(edges=(1, 2))
    assert ADAPTER.validate_python({"radius": 2}) == Ball(radius=2)
    assert ADAPTER.validate_python(Box()) == Box()
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python({"kind": "box", "edges": [1, 0]})
    assert first_error(caught.value, Box) == "edges[1] must be at least 1, not 0"


def test_settings_equal_to_their_defaults_do_not_count():
    assert to_mapping(AlignmentConfig(), changed_only=True) == {}
    changed = AlignmentConfig(rounds=3, max_bad_fraction=0.5, model=DnnConfig(layers=2, width=128))
    assert to_mapping(changed, changed_only=True) == {"rounds": 3, "model": {"kind": "dnn", "width": 128}}
    assert to_mapping(DnnConfig(), changed_only=True) == {"kind": "dnn"}  # what the rest is of always counts
    assert to_mapping({"training": TrainingConfig(), "speeds": (1.0,)}, changed_only=True) == {
        "training": {},
        "speeds": [1.0],
    }


def test_settings_are_written_by_the_keys_of_a_config_file():
    targets = TargetsConfig(source=("a", "b"))
    assert to_mapping(targets)["from"] == ["a", "b"] and "source" not in to_mapping(targets)
    assert "from" in keys_of(TargetsConfig) and "source" not in keys_of(TargetsConfig)


def test_the_class_at_a_place_in_a_config():
    assert class_at(Config, []) is Config
    assert class_at(Config, ["systems", "any name"]) is SystemConfig
    assert class_at(Config, ["systems", "any name", "targets"]) is TargetsConfig
    assert class_at(Config, ["compare", 3]) is Comparison
    assert class_at(Config, ["systems"]) is class_at(Config, ["seed"]) is class_at(Config, ["no", "such"]) is None
