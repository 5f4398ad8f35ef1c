"""YAML files: doubled keys and bad bases are errors that name the file."""

import math
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from asr_kd.errors import UserError
from asr_kd.io.yaml_files import dump_yaml, load_with_bases, load_yaml, merged


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def error(function, path):
    with pytest.raises(UserError) as caught:
        function(path)
    assert str(caught.value).startswith(str(path.parent))
    return str(caught.value)[len(str(path.parent)) + 1 :]


def test_a_doubled_key_is_an_error_with_both_lines(tmp_path):
    write(tmp_path, top="a: 1\nb: 2\na: 3\n", inner="a:\n  - {b: 1,\n     b: 2}\n")
    assert (
        error(load_yaml, tmp_path / "top.yaml")
        == "top.yaml: 'a' in line 3 stands in line 1 already; delete one of them."
    )
    assert "'b' in line 3 stands in line 2 already" in error(load_yaml, tmp_path / "inner.yaml")


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "- !python/object:os.system {}", "a\tb: \0"])
def test_what_is_no_yaml_is_an_error(tmp_path, text):
    write(tmp_path, bad=text)
    assert error(load_yaml, tmp_path / "bad.yaml").startswith("bad.yaml: this is not YAML: ")


@pytest.mark.parametrize("text", ["[" * 1000, "{a: " * 1000 + "}" * 1000])
def test_what_is_nested_too_deeply_is_an_error(tmp_path, text):
    write(tmp_path, deep=text)
    assert error(load_yaml, tmp_path / "deep.yaml").startswith("deep.yaml: lists or mappings are nested too deeply")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    assert "no.yaml: the config cannot be read (No such file" in error(load_yaml, tmp_path / "no.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\xfe")
    assert "bytes.yaml: this is not YAML" in error(load_yaml, tmp_path / "bytes.yaml")
    write(tmp_path, empty="# nothing\n")
    assert load_yaml(tmp_path / "empty.yaml") == {}


def test_bases_are_read_along_the_chain_and_later_keys_win(tmp_path):
    (tmp_path / "far").mkdir()
    write(tmp_path, top="base: far/middle.yaml\na: {z: 3}\n")
    write(tmp_path / "far", middle="base: bottom.yaml\na: {y: 2}\nlist: [2]\ngone: null\n")
    write(tmp_path / "far", bottom="a: {x: 1, y: 1, z: 1}\nlist: [1, 1]\ngone: 1\nkept: 1\n")
    assert load_with_bases(tmp_path / "top.yaml") == {"a": {"x": 1, "y": 2, "z": 3}, "list": [2], "kept": 1}


def test_a_base_that_makes_no_sense_is_an_error(tmp_path):
    write(tmp_path, a="base: b.yaml", b="base: c.yaml", c="base: b.yaml", none="base: no.yaml", list="base: [a.yaml]")
    write(tmp_path, text="just text", of_text="base: text.yaml")
    assert "c.yaml: base: " in error(load_with_bases, tmp_path / "a.yaml")
    assert (
        error(load_with_bases, tmp_path / "none.yaml") == f"none.yaml: base: there is no file {tmp_path / 'no.yaml'}."
    )
    assert "list.yaml: base must be the name of a config file" in error(load_with_bases, tmp_path / "list.yaml")
    assert "text.yaml: expected a mapping of settings" in error(load_with_bases, tmp_path / "of_text.yaml")


def test_merging_leaves_both_sides_as_they_are():
    below, above = {"a": {"x": 1}}, {"a": {"y": 2}}
    assert merged(below, above) == {"a": {"x": 1, "y": 2}}
    assert below == {"a": {"x": 1}} and above == {"a": {"y": 2}}


@pytest.mark.parametrize(
    ("written", "value"),
    [("8", 8), ("-3", -3), ("+3", 3), ("0", 0), ("1_000", 1000), ("0.5", 0.5), (".5", 0.5), ("1.", 1.0), ("1e-3", 1e-3),
     ("5.0e-3", 5e-3), ("2E4", 2e4), (".inf", math.inf), ("-.inf", -math.inf), ("true", True), ("False", False),
     ("~", None), ("null", None), ("", None), ("no", "no"), ("on", "on"), ("yes", "yes"), ("010", "010"),
     ("0100", "0100"), ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("0b11", "0b11"), ("0x1F", "0x1F"), ("-010", "-010"),
     ("2026-11-28", "2026-11-28"), ("1_0.5", 10.5), ("1e", "1e"), ("true.", "true."), ("'8'", "8")],
)  # fmt: skip
def test_a_scalar_is_what_it_looks_like(tmp_path, written, value):
    """YAML 1.1 would take 010 for 8, 1:30 for 90, no for false and 1e-3 for a word."""
    write(tmp_path, config=f"key: {written}\n")
    read = load_yaml(tmp_path / "config.yaml")["key"]
    assert read == value and type(read) is type(value)


def test_anchors_and_merge_keys_work(tmp_path):
    write(tmp_path, config="small: &small {width: 8, layers: 1}\nlarge: {<<: *small, width: 64}\n")
    assert load_yaml(tmp_path / "config.yaml")["large"] == {"width": 64, "layers": 1}


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.text()))
@example("\x85")
@example("a\u2028b c")
def test_what_is_written_is_read(value):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump_yaml({"key": value}, allow_unicode=True), encoding="utf-8")
        read = load_yaml(file)["key"]
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["key"] == value  # YAML 1.1
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "word", ["1e5", "010", "no", "1:30", "0x1F", "1_000", "2026-11-28", ".5", "null", "~", "<<", "="]
)
def test_a_word_that_looks_like_something_else_is_written_in_quotes(tmp_path, word):
    (tmp_path / "config.yaml").write_text(dump_yaml({"sets": [word]}))
    assert load_yaml(tmp_path / "config.yaml") == {"sets": [word]} == yaml.safe_load(dump_yaml({"sets": [word]}))
