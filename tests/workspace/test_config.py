"""Settings survive the way to YAML and back; what makes no sense is named with its key."""

import dataclasses
import math
import typing

import pytest
import yaml

from asr_kd.errors import UserError
from asr_kd.workspace.config import Config, Range, from_mapping, load_config, to_mapping


def numbers(config, path=()):
    """(path, annotation) of every number in the config."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            yield from numbers(value, (*path, field.name))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield (*path, field.name), hint


NUMBERS = dict(numbers(Config()))


def nested(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


def test_yaml_and_back_is_the_same(tmp_path):
    config = from_mapping(Config, {"small": {"seeds": 2}, "features": {"speeds": [1, 0.9]}}, "test")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(to_mapping(config)))
    assert load_config(file) == config
    assert isinstance(config.features.speeds[0], float)


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
def test_every_number_has_a_range_and_is_held_to_it(path):
    hint = NUMBERS[path]
    if typing.get_origin(hint) is typing.Literal:
        with pytest.raises(UserError, match=f"{path[-1]} must be one of"):
            from_mapping(Config, nested(path, max(typing.get_args(hint)) + 1), "my.yaml")
        return
    assert typing.get_origin(hint) is typing.Annotated, "a number without a range"
    kind, allowed = typing.get_args(hint)
    for wrong in (-1, -(10**9), *([] if allowed.most == math.inf else [allowed.most + 1])):
        with pytest.raises(UserError, match=f"{path[-1]} must be .*{allowed.least:g}") as caught:
            from_mapping(Config, nested(path, wrong), "my.yaml")
        assert str(caught.value).startswith("my.yaml: ")
    with pytest.raises(UserError, match=f"{path[-1]} must be"):
        from_mapping(Config, nested(path, math.nan if kind is float else "many"), "my.yaml")


def test_an_open_range_leaves_out_its_end():
    assert 0 not in Range(0, open=True) and 1e-9 in Range(0, open=True)
    assert 0 in Range(0, 1) and 1 in Range(0, 1) and 1.1 not in Range(0, 1)
    assert str(Range(0, 1)) == "0 or more and at most 1"


def test_numbers_in_lists_are_checked_too():
    with pytest.raises(UserError, match=r"my.yaml: decoding: acoustic_scales\[1\] must be above 0, not 0"):
        from_mapping(Config, {"decoding": {"acoustic_scales": [0.1, 0]}}, "my.yaml")
    with pytest.raises(UserError, match=r"hidden_dropout must be 0 or more"):
        from_mapping(Config, {"student": {"distilled": {"hidden_dropout": -0.1}}}, "my.yaml")


def test_what_is_set_for_distilling_takes_the_place_of_the_models():
    model = {"width": 8, "hidden_dropout": 0.1, "lda_dims": 5}
    for own, dropout, dims in (({}, 0.1, 5), ({"lda_dims": 0}, 0.1, 0), ({"hidden_dropout": 0.0}, 0.0, 5)):
        student = from_mapping(Config, {"student": {"model": model, "distilled": own}}, "my.yaml").student
        assert student.distilled_model == dataclasses.replace(student.model, hidden_dropout=dropout, lda_dims=dims)
