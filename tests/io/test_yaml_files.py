"""YAML files: doubled keys and bad bases are errors that name the file."""

import pytest

from asr_kd.errors import UserError
from asr_kd.io.yaml_files import load_with_bases, load_yaml, merged


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


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "a: 2026-13-45", "- !python/object:os.system {}", "a\tb: \0"])
def test_what_is_no_yaml_is_an_error(tmp_path, text):
    write(tmp_path, bad=text)
    assert error(load_yaml, tmp_path / "bad.yaml").startswith("bad.yaml: this is not YAML: ")


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
