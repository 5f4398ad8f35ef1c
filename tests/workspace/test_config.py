"""Configs survive the way to YAML and back; what makes no sense is named with its file and key."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.cli import main
from asr_kd.corpora.registry import CORPORA
from asr_kd.corpora.settings import PromptsConfig
from asr_kd.distillation.settings import LOSSES, TargetsConfig
from asr_kd.errors import UserError
from asr_kd.settings import keys_of, to_mapping
from asr_kd.workspace.config import Config, SystemConfig
from asr_kd.workspace.config_files import OLD_KEYS, from_mapping, load_config, with_settings
from asr_kd.workspace.config_reference import config_reference, config_schema

ROOT = Path(__file__).parents[2]
RAW = {
    "systems": {
        "teacher": {"members": 2},
        "direct": {"seeds": 3},
        "distilled": {"targets": {"from": "teacher"}},
    },
    "compare": [{"direct": "direct", "distilled": "distilled", "teacher": "teacher"}],
}


def changed(path, value, raw=RAW):
    """A copy of `raw` with another value at a dotted path."""
    raw = copy.deepcopy(raw)
    at = raw
    *parents, key = path.split(".")
    for parent in parents:
        at = at.setdefault(parent, {})
    at[key] = value
    return raw


def known_in(cls):
    return f"known here: {', '.join(keys_of(cls))}"


def message(raw):
    with pytest.raises(UserError) as caught:
        from_mapping(Config, raw, "my.yaml")
    return str(caught.value)


# --- to YAML and back


FRACTIONS = st.floats(0.0, 1.0)
MODELS = st.fixed_dictionaries(
    {"layers": st.integers(0, 9), "width": st.integers(1, 9999)},
    optional={"kind": st.just("dnn"), "hidden_dropout": st.floats(0, 0.99), "lda_dims": st.integers(0, 900)},
)
TARGETS = st.fixed_dictionaries(
    {"from": st.sampled_from(["teacher", ["teacher"], "./posteriors"])},
    optional={"temperature": st.floats(0.1, 50), "soft_weight": FRACTIONS, "online": st.booleans()},
).filter(lambda targets: not (targets["from"] == "./posteriors" and targets.get("online")))  # there is nobody to run
SYSTEMS = st.fixed_dictionaries(
    {"model": MODELS}, optional={"seeds": st.integers(1, 9), "targets": st.none() | TARGETS, "reuse": st.just("")}
)
CONFIGS = st.fixed_dictionaries(
    {"systems": st.dictionaries(st.sampled_from(["a", "b-2", "C.3"]), SYSTEMS).map(lambda s: {"teacher": {}} | s)},
    optional={
        "seed": st.integers(0, 2**31),
        "corpus": st.sampled_from([{"name": "timit", "phone_set": 39}, {"sampling_rate": 16000}, {"name": "folder"}]),
        "features": st.fixed_dictionaries(
            {"speeds": st.lists(st.integers(1, 3) | st.floats(0.5, 2).map(lambda speed: round(speed, 3)), max_size=3)}
        ),
    },
)


@pytest.mark.slow
@given(CONFIGS)
def test_yaml_and_back_is_the_same(raw):
    config = from_mapping(Config, raw, "test")
    back = from_mapping(Config, yaml.safe_load(yaml.safe_dump(to_mapping(config))), "test")
    assert back == config
    assert all(isinstance(speed, float) for speed in back.features.speeds)


RECIPES = sorted(path for path in (ROOT / "recipes").glob("*/conf/*.yaml") if path.parts[-3] != "mnist")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_what_show_prints_is_the_same_config(path, tmp_path):
    printed = CliRunner().invoke(main, ["config", "--show", "--config", str(path)], catch_exceptions=False).output
    (tmp_path / "shown.yaml").write_text(printed)
    assert load_config(tmp_path / "shown.yaml") == load_config(path)
    assert list(yaml.safe_load(printed)) == [field.name for field in dataclasses.fields(Config)]


# --- the schema and the reference


def properties(schema, definition, path=""):
    """(path, schema) of every value of a definition that is no mapping of settings, and of the entries of lists."""
    for key, value in definition["properties"].items():
        for option in value.get("anyOf", [value]):
            yield f"{path}.{key}", option
            if "items" in option:
                yield f"{path}.{key}[]", option["items"]


def test_every_number_has_a_range():
    schema = config_schema()
    numbers = {
        path: value
        for name, definition in {"Config": schema, **schema["$defs"]}.items()
        for path, value in properties(schema, definition, name)
        if value.get("type") in ("integer", "number") and "enum" not in value
    }
    assert len(numbers) > 40
    unbounded = [path for path, value in numbers.items() if not {"minimum", "exclusiveMinimum"} & value.keys()]
    # a penalty may have either sign
    assert unbounded == ["DecodingConfig.word_penalties[]", "DecodingConfig.phone_penalties[]"]


@pytest.mark.parametrize(
    "path, wrong, right",
    [
        ("seed", -1, 0),
        ("features.num_mel_bins", 0, 1),
        ("systems.direct.seeds", 0, 1),
        ("systems.direct.train_fraction", 0, 1e-9),
        ("systems.direct.train_fraction", 1.1, 1),
        ("systems.direct.model.hidden_dropout", -0.1, 0),
        ("systems.direct.model.hidden_dropout", 0.991, 0.99),
        ("systems.direct.training.momentum", 1, 0.999),
        ("systems.direct.training.learning_rate", 0, 1e-9),
        ("systems.distilled.targets.temperature", 0, 1e-3),
        ("systems.distilled.targets.soft_weight", 1.1, 1),
        ("alignment.model.width", 0, 1),
        ("alignment.max_bad_fraction", 2, 1),
        ("decoding.silence_probability", 1, 0.999),
    ],
)
def test_a_number_is_held_to_its_range_whose_ends_belong_to_it(path, wrong, right):
    from_mapping(Config, changed(path, right), "my.yaml")
    assert message(changed(path, wrong)).startswith(f"my.yaml: {path} must be ")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_no_number_is_infinite_or_nan(wrong):
    for path in ("systems.direct.training.learning_rate", "decoding.search_beam"):
        assert message(changed(path, wrong)) == f"my.yaml: {path} must be a finite number, not {wrong}."


def test_a_number_in_a_list_is_named_by_its_place():
    expected = "my.yaml: decoding.acoustic_scales[1] must be above 0, not 0."
    assert message({"decoding": {"acoustic_scales": [0.1, 0]}}) == expected


def test_the_schema_describes_each_key_by_its_comment():
    systems = config_schema()["$defs"]["SystemConfig"]["properties"]
    assert systems["members"]["description"].startswith("of an ensemble, whose posteriors are averaged: how")
    scale = config_schema()["$defs"]["AlignmentConfig"]["properties"]["learn_from"]["description"]
    assert scale.startswith("all: also train") and scale.endswith("a recogniser")  # a comment of two lines


def test_the_schema_allows_the_recipes_keys_alone():
    schema = config_schema()
    assert schema["additionalProperties"] is False
    known = set(schema["properties"])
    for path in RECIPES:
        assert set(yaml.safe_load(path.read_text())) <= known
    printed = CliRunner().invoke(main, ["config", "--schema"], catch_exceptions=False).output
    assert json.loads(printed) == schema


def test_the_reference_in_the_docs_is_that_of_the_code():
    written = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == config_reference(), "docs/config.md is out of date: make docs"


# --- what makes no sense


@pytest.mark.parametrize(
    "path, value, expected",
    [
        ("sede", 3, f"unknown key 'sede'; {known_in(Config)}"),
        ("systems.direct.layers", 3, f"systems.direct: unknown key 'layers'; {known_in(SystemConfig)}"),
        ("systems.direct.training.epoch", 3, "systems.direct.training: unknown key 'epoch'; "
         + known_in(TrainingConfig)),
        ("systems.distilled.targets.source", "teacher", "systems.distilled.targets: unknown key 'source'; "
         + known_in(TargetsConfig)),
        ("systems.direct.model.widht", 3, f"systems.direct.model: unknown key 'widht'; {known_in(DnnConfig)}"),
        ("corpus.phone_set", 39, f"corpus: unknown key 'phone_set'; {known_in(PromptsConfig)}"),
        ("compare", [{"student": "direct"}], "compare[0].direct is missing"),
        ("features", 3, "features: expected a mapping of settings, not 3"),
        ("systems.direct", [1], "systems.direct: expected a mapping of settings, not [1]"),
        ("systems.direct.model", "big", "systems.direct.model: expected a mapping of settings, not 'big'"),
        ("features.speeds", 3, "features.speeds must be a list, not 3"),
        ("features.speeds", [1.0, 0.9, 0.9000001],
         "features: speeds: two of 1.0, 0.9, 0.9000001 are alike in six digits; leave one out"),
        ("systems", {"seconds.json": {}}, "systems: 'seconds.json' cannot be a name: it may have 100 characters, "
         "and not end in .json or .yaml"),
        ("seed", True, "seed must be a whole number, not True"),
        ("seed", 1.0, "seed must be a whole number, not 1.0"),
        ("lang.closures", 1, "lang.closures must be true or false, not 1"),
        ("lang.lexicon", 1, "lang.lexicon must be text, not 1"),
        ("lang.units", "letters", "lang.units must be one of 'phones', 'characters', 'bpe', 'words', not 'letters'"),
        ("systems.direct.training.learning_rate", "01e-3", "systems.direct.training.learning_rate must be a number, "
         "not '01e-3' (quotes, leading zeros and colons make it text)"),
        ("seed", "010", "seed must be a whole number, not '010' (quotes, leading zeros and colons make it text)"),
        ("seed", "1:30", "seed must be a whole number, not '1:30' (quotes, leading zeros and colons make it text)"),
        ("seed", 10**15 + 1, "seed must be at most 1e+15, not 1000000000000001"),
        ("systems.teacher.training", {"schedule": "exponential", "final_learning_rate": 0},
         "systems.teacher.training: schedule: exponential never comes to final_learning_rate: 0; give a fraction "
         "above 0"),
        ("seed", 10**30, "seed must be at most 1e+15, not 1000000000000000000000000000000"),
        ("systems.direct.training.epochs", 0, "systems.direct.training.epochs must be at least 1, not 0"),
        ("corpus.name", "mine", f"corpus.name must be one of {', '.join(map(repr, CORPORA))}, not 'mine'"),
        ("corpus", {"name": "timit", "phone_set": 40}, "corpus.phone_set must be one of 61, 48, 39, not 40"),
        ("sets", {"train": ["a"]}, "sets must have train and dev; dev is missing"),
        ("sets", {"train": ["a"], "dev": ["b"], "../c": ["c"]}, "sets: '../c' cannot name a set: use letters, "
         "digits, '.', '_' and '-'"),
        ("sets", {"train": ["a"], "dev": ["b"], "model": ["c"]}, "sets: 'model' cannot name a set: exp/align/model is "
         "the aligner"),
        ("systems.direct.members", 2, "systems.direct: members and seeds exclude each other: an ensemble has members, "
         "a single model seeds"),
        ("systems.direct.members", 0, "systems.direct.members must be a whole number, at least 1, or a list of "
         "systems, not 0"),
        ("systems.direct.members", [], "systems.direct.members must be a whole number, at least 1, or a list of "
         "systems, not []"),
        ("systems.joined", {"members": ["teacher", "t"]}, "systems.joined.members: there is no system 't'"),
        ("systems.joined", {"members": ["teacher", "teacher"]}, "systems.joined: members: teacher, teacher names a "
         "system twice"),
        ("systems.joined", {"members": ["distilled"]}, "systems.joined.members: distilled is a single model, no "
         "ensemble"),
        ("systems.joined", {"members": ["teacher", "joined"]}, "systems.joined.members: joined is itself an ensemble "
         "of systems: name its own members in its place"),
        ("systems.joined", {"members": ["teacher"], "model": {"width": 8}, "seeds": 2}, "systems.joined: members names "
         "systems, which have settings of their own: leave out model and seeds, or give members a number"),
        ("systems.joined", {"members": ["teacher"], "targets": {"from": "direct"}}, "systems.joined: members names "
         "systems, which have settings of their own: leave out targets, or give members a number"),
        ("systems.joined", {"members": ["teacher"], "tree": "monophone"}, "systems.joined: it has tree: monophone, but "
         "teacher has tree: tied"),
        ("systems", {"a": {"members": 2}, "b": {"reuse": "a"}, "c": {"members": ["a", "b"]}}, "systems.c.members: a "
         "and b have the same models; leave out one of them"),
        ("systems", {"a": {"members": ["b"]}, "b": {"seeds": 2, "targets": {"from": "a"}}}, "systems: a -> b -> a "
         "learn from each other"),
        ("systems", {"a": {"members": ["b"]}, "b": {"members": 2}, "c": {"reuse": "a"}}, "systems.c.reuse: a is an "
         "ensemble of systems: reuse one of these"),
        ("systems.teacher", {"members": 4, "folds": 2, "train_fraction": 0.5},
         "systems.teacher: folds are of all utterances: leave out folds or train_fraction"),
        ("systems.teacher.folds", 3, "systems.teacher: folds must be 0, or at least 2 and at most members (2), not 3"),
        ("systems.distilled.reuse", "teacher", "systems.distilled: reuse is for models that learn from hard labels: "
         "leave out reuse or targets"),
        ("systems.direct", {"reuse": "teacher", "members": 2, "folds": 2}, "systems.direct: folds is for models "
         "that are trained on hard labels: leave out folds, or reuse and targets"),
        ("systems.distilled", {"members": 2, "folds": 2, "targets": {"from": "teacher"}},
         "systems.distilled: folds is for models that are trained on hard labels: leave out folds, or reuse and "
         "targets"),
        ("systems.imported", {"targets": {"from": "./teacher"}}, "systems.imported.targets: other soft targets than "
         "those of distilled would have the same folder, exp/targets/teacher,T2; rename the folder or the teacher "
         "that they come from"),
        ("systems.direct.reuse", "teacher", "systems.direct.reuse: teacher must have no folds and at least 3 members"),
        ("systems.direct", {"reuse": "teacher", "model": {"width": 8}}, "systems.direct.reuse: teacher is not trained "
         "alike: model and training must be the same"),
        ("systems.distilled.targets.from", [], "systems.distilled.targets.from must not be empty"),
        ("systems.distilled.targets.from", "Teacher", "systems.distilled.targets.from: there is no system 'Teacher'; a "
         "folder of imported targets is written with a slash (./Teacher)"),
        ("systems.distilled.targets.from", ["teacher", "teacher"], "systems.distilled.targets: from: teacher, teacher "
         "names a teacher twice"),
        ("systems.distilled.targets.loss", "mse", "systems.distilled.targets.loss must be one of "
         f"{', '.join(map(repr, LOSSES))}, not 'mse'"),
        ("systems.distilled.tree", "monophone", "systems.distilled: it has tree: monophone, but teacher has tree: "
         "tied"),
        ("systems.teacher.targets", {"from": "distilled"}, "systems: teacher -> distilled -> teacher learn from each "
         "other"),
        ("compare", [{"direct": "direct", "distilled": "distilled", "teacher": "t"}], "compare[0].teacher: there is no "
         "system 't'"),
        ("compare", [{"direct": "distilled", "distilled": "distilled", "teacher": "teacher"}], "compare[0]: distilled "
         "cannot be both direct and distilled"),
        ("alignment.model.lda_dims", 40, "alignment: model.lda_dims must be 0: the flat start has no labels to find "
         "discriminants of"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named_with_file_and_key(path, value, expected):
    assert message(changed(path, value)) == f"my.yaml: {expected}."


def test_sets_of_cuts_may_be_named_in_the_corpus():
    inside = {"corpus": {"name": "cuts", "channel": 1, "train": "a.jsonl", "dev": "b.jsonl", "test-x": ["c", "d"]}}
    outside = {"corpus": {"name": "cuts", "channel": 1}, "sets": {"train": ["a.jsonl"], "dev": ["b.jsonl"],
                                                                  "test-x": ["c", "d"]}}  # fmt: skip
    assert from_mapping(Config, inside, "my.yaml") == from_mapping(Config, outside, "my.yaml")
    both = inside | {"sets": outside["sets"]}
    assert message(both) == (
        "my.yaml: corpus: names train, dev, test-x, and there is sets: too; name all sets in one of them."
    )
    assert "corpus: unknown key 'chanel'" in message({"corpus": {"name": "cuts", "chanel": 1}})
    for name in ("folder", "table", "kaldi"):
        config = from_mapping(Config, {"corpus": {"name": name, "train": "a", "dev": {"speakers": 3}}}, "my.yaml")
        assert config.sets == {"train": ("a",), "dev": ()} and config.corpus.dev.speakers == 3
    assert "corpus: unknown key 'train'" in message({"corpus": {"name": "prompts", "train": "a"}})
    assert "corpus: unknown key 'txt'" in message({"corpus": {"name": "cuts", "txt": "text"}})


@pytest.mark.parametrize("name", ["decode", "targets", "tree", "a/b", "", "-x"])
def test_a_system_is_not_named_like_another_folder_of_exp(name):
    assert f"systems.{name}: this cannot name a system" in message({"systems": {name: {}}})


@pytest.mark.parametrize("path", OLD_KEYS)
def test_an_old_key_gets_the_sentence_that_says_the_new_way(path):
    keys, _, value = path.partition("=")
    text = message(changed(keys, value or {}))
    assert text.startswith(f"my.yaml: {keys}{f': {value}' if value else ''} is an old setting: ")
    assert text.endswith(f"{OLD_KEYS[path]}.")


def test_what_is_no_plain_data_and_what_contains_itself_is_named():
    dated = yaml.safe_load("corpus: {name: folder}\nsets: {train: [2026-01-01], dev: [a]}")
    assert message(dated) == (
        "my.yaml: sets.train[0]: expected text, a number, true, false, a list or a mapping, "
        "not datetime.date(2026, 1, 1)."
    )
    assert message(yaml.safe_load("features: &f {speeds: *f}")).startswith("my.yaml: features.speeds: this contains")


# --- what the systems say


def test_systems_are_trained_after_those_that_they_learn_from():
    systems = {
        "distilled": {"targets": {"from": "assistant"}},
        "assistant": {"targets": {"from": ["big", "wide"]}},
        "direct": {"reuse": "wide"},
        "wide": {"members": 2},
        "big": {},
        "imported": {"targets": {"from": "./posteriors"}},
    }
    config = from_mapping(Config, {"systems": systems}, "my.yaml")
    assert config.in_training_order() == ["big", "wide", "assistant", "distilled", "direct", "imported"]
    assert config.teachers() == ["big", "wide"]
    assert config.system("assistant").teachers == ("big", "wide") and config.system("imported").teachers == ()
    assert config.trees == ("tied",)
    with pytest.raises(UserError, match="there is no system 'x' in the config; it has: distilled, assistant"):
        config.system("x")


def test_an_ensemble_of_systems_has_all_their_models():
    systems = {
        "all": {"members": ["wide", "seeds", "tdnn"]},
        "students": {"members": ["taught", "distilled"]},
        "distilled": {"targets": {"from": "all"}},
        "taught": {"targets": {"from": "students_of_none"}},
        "students_of_none": {"members": ["wide", "direct"]},
        "wide": {"members": 3},
        "seeds": {"seeds": 2},
        "tdnn": {"model": {"kind": "tdnn"}},
        "direct": {},
        "last": {"targets": {"from": "students"}},
    }
    config = from_mapping(Config, {"systems": systems}, "my.yaml")
    assert config.answering("all") == {"wide": 3, "seeds": 2, "tdnn": 1}
    assert config.answering("wide") == {"wide": 3} and config.answering("seeds") == {"seeds": 1}
    order = config.in_training_order()
    for name, system in config.systems.items():
        assert all(order.index(teacher) < order.index(name) for teacher in system.teachers)
    # neither the distilled systems, nor an ensemble of them, nor what nobody learns from
    assert set(config.teachers()) == {"wide", "seeds", "tdnn", "direct", "all", "students_of_none"}
    assert from_mapping(Config, to_mapping(config), "again") == config


def test_targets_are_named_by_their_teachers_and_by_what_differs_from_the_defaults():
    def name(targets):
        raw = changed("systems.distilled.targets", targets)
        return from_mapping(Config, raw, "my.yaml").system("distilled").targets.name

    assert name({"from": "teacher"}) == name({"from": ["teacher"], "soft_weight": 0.1, "loss": "kl"}) == "teacher,T2"
    assert name({"from": ["teacher", "direct"], "temperature": 1, "max_entries": 300}) == (
        "teacher+direct,T1,max_entries=300"
    )
    assert name({"from": "../far/posteriors/"}) == "far_posteriors,T2"


# --- files and the command line


def test_a_config_extends_another_key_by_key(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "base.yaml").write_text("seed: 7\nsystems: {a: {seeds: 2, model: {width: 8}}, b: {}}\n")
    (tmp_path / "conf" / "mine.yaml").write_text("base: ../base.yaml\nsystems: {a: {model: {layers: 1}}, b: null}\n")
    config = load_config(tmp_path / "conf" / "mine.yaml")
    assert config.seed == 7 and list(config.systems) == ["a"]
    system = config.system("a")
    assert (system.seeds, system.model.width, system.model.layers) == (2, 8, 1)


def test_a_setting_is_changed_by_its_dotted_key():
    config = from_mapping(Config, RAW, "my.yaml")
    assert with_settings(config, {"systems.direct.seeds": 1, "seed": None}).system("direct").seeds == 1
    for key, value, expected in (
        ("systems.direct.seeds", 0, "command line: systems.direct.seeds must be at least 1, not 0."),
        ("systems.other.seeds", 1, "command line: there is no setting 'systems.other.seeds'."),
        ("systems.direct.sedes", 1, "command line: systems.direct: unknown key 'sedes'; known here: folds, "),
        ("systems.direct.targets.temperature", 1, "command line: there is no setting 'systems.direct.targets."
         "temperature': what is above it is not set in the config."),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            with_settings(config, {key: value})
        assert str(caught.value).startswith(expected)


def test_the_command_shows_a_config_only_where_one_is_named():
    result = CliRunner().invoke(main, ["config", "--show"])
    assert result.exit_code == 2 and "name a config with --config FILE" in result.output


def test_the_config_in_the_readme_is_one():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    config = from_mapping(Config, yaml.safe_load(text), "README.md")
    assert config.in_training_order() == ["teacher", "direct", "distilled"] and len(config.compare) == 1
