"""Kaldi's tables: what kaldi-native-io writes is read; what is cut short, damaged or a command is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import kaldi_native_io
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.errors import UserError
from asr_kd.io.kaldi_tables import read_int_vectors

ids = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=5)
vectors = st.dictionaries(ids, st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5), min_size=1, max_size=4)


def write(folder: Path, content: dict[str, list[int]], form: str = "ark") -> None:
    with kaldi_native_io.Int32VectorWriter(f"{form},scp:{folder}/a.ark,{folder}/a.scp") as writer:
        for name, numbers in content.items():
            writer.write(name, numbers)


def read(file: Path) -> dict[str, list[int]]:
    return {name: vector.tolist() for name, vector in read_int_vectors(file)}


@settings(max_examples=30)
@given(vectors, st.sampled_from(["ark", "ark,t"]))
def test_what_kaldi_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, list[int]], form: str
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    write(folder, content, form)
    assert read(folder / "a.ark") == read(folder / "a.scp") == content
    (folder / "b.gz").write_bytes(gzip.compress((folder / "a.ark").read_bytes()))
    assert read(folder / "b.gz") == content
    (folder / "moved").mkdir()
    (folder / "a.ark").rename(folder / "moved" / "a.ark")
    (folder / "moved" / "b.scp").write_text((folder / "a.scp").read_text(encoding="utf-8").replace(f"{folder}/", ""))
    assert read(folder / "moved" / "b.scp") == content  # names relative to the .scp


def test_an_archive_that_is_cut_anywhere_is_refused_or_ends_after_a_vector(tmp_path: Path) -> None:
    content = {"u1": [1, 1, 2], "u2": [7], "u3": []}
    write(tmp_path, content)
    whole = (tmp_path / "a.ark").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "a.ark").write_bytes(whole[:length])
        try:
            assert list(read(tmp_path / "a.ark").items()) == list(content.items())[: whole[:length].count(b"\0B")]
        except UserError as error:
            assert "is cut short or no vector of integers" in str(error)
        else:
            assert whole[length:].startswith((b"u1 ", b"u2 ", b"u3 "))


@pytest.mark.parametrize("content", [b"u 1 2 x\n", b"u 1.5\n", b"u \0BFM ", b"u \0B\x04\xff\xff\xff\xff", b"u\nv 1\n"])
def test_what_is_no_vector_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ark").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.ark: what it has of 'u.* is cut short or no vector of integers; write it"):
        read(tmp_path / "a.ark")


def test_matrices_and_damaged_gzip_are_refused(tmp_path: Path) -> None:
    with kaldi_native_io.FloatMatrixWriter(f"ark:{tmp_path}/m.ark") as writer:
        writer.write("u", np.zeros((3, 2), np.float32))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"u 1 2\n" * 999)[:-20])
    for name in ("m.ark", "cut.gz"):
        with pytest.raises(UserError, match=f"{name}: what it has of"):
            read(tmp_path / name)


@pytest.mark.parametrize("where", ["copy-int-vector ark:a ark:- |", "|cat"])
def test_commands_are_never_run(tmp_path: Path, where: str) -> None:
    (tmp_path / "a.scp").write_text(f"u {where}\n")
    with pytest.raises(UserError, match=r"a\.scp:1: this names a command, not a file"):
        read(tmp_path / "a.scp")


def test_a_file_that_an_scp_names_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.scp").write_text("u gone.ark:3\n")
    with pytest.raises(UserError, match=r"gone\.ark: cannot be read \(No such file or directory\)"):
        read(tmp_path / "a.scp")
