"""Text of any kind is read, and what is damaged is one sentence that names the file."""

import errno
import gzip
import os
import zlib
from pathlib import Path

import pytest

from asr_kd.errors import FullDiskError, UserError
from asr_kd.io.files import full_disk_is_an_error, open_text, read_json, read_lines, write_json
from asr_kd.lang.ngram import read_arpa

WORDS = "A LINE\nUND NÖCH EINE\n" * 200


def _read(path: Path) -> str:
    with open_text(path, "the text", "give another") as file:
        return file.read()


def test_plain_and_gzipped_text_is_the_same(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.txt", tmp_path / "a.txt.gz"
    plain.write_text(WORDS, encoding="utf-8")
    packed.write_bytes(gzip.compress(WORDS.encode()))
    assert _read(plain) == _read(packed) == WORDS


@pytest.mark.parametrize("damage", ["cut", "header", "flipped", "latin", "missing", "folder"])
def test_what_is_no_text_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.txt.gz"
    packed = bytearray(gzip.compress(WORDS.encode()))
    if damage == "cut":
        path.write_bytes(packed[:-20])
    elif damage == "header":
        path.write_bytes(b"no gzip" + packed)
    elif damage == "flipped":
        packed[12:20] = bytes(255 - byte for byte in packed[12:20])  # zlib.error, where a checksum would be BadGzipFile
        path.write_bytes(packed)
    elif damage == "latin":
        path.write_bytes(gzip.compress(WORDS.encode("latin-1")))
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"bad.txt.gz: the text cannot be read: .*; give another\."):
        _read(path)


def test_every_way_to_cut_a_gzipped_language_model_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    packed = gzip.compress(b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n")
    for length in range(len(packed)):
        if b"\\end\\" in zlib.decompressobj(31).decompress(packed[:length]):
            continue  # all of the text is there, and what is cut is of no use to it
        path.write_bytes(packed[:length])
        with pytest.raises(UserError, match=r"lm.arpa.gz"):
            read_arpa(path)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_only_newlines_end_a_line(tmp_path: Path, newline: str) -> None:
    """To str.splitlines a line separator inside a sentence, a form feed or a next-line character is an end too."""
    lines = ["a one\u2028two", "b \x0bthree\x0cfour", "c \x85five\u2029six\x1c", "d last"]
    path = tmp_path / "text"
    path.write_bytes(newline.join([*lines, ""]).encode())
    assert read_lines(path, "give another") == list(enumerate(lines, 1))
    with open_text(path, "the text", "give another") as file:
        assert [line.rstrip("\n") for line in file] == lines


@pytest.mark.parametrize("name", ["text", "text.gz"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    marked = "\ufeffa one\n".encode()
    path.write_bytes(gzip.compress(marked) if name.endswith(".gz") else marked)
    assert _read(path) == "a one\n"
    if name == "text":
        assert read_lines(path, "give another") == [(1, "a one")]


@pytest.mark.parametrize(
    ("content", "says"), [(None, "missing"), (b'{"a": ', "damaged"), (b"[1]", "damaged"), (b"\xff", "damaged")]
)
def test_a_small_file_that_is_missing_or_damaged_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "notes.json"
    write_json(path, {"a": 1})
    assert read_json(path, dict, "delete it.") == {"a": 1}
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"notes\.json is {says}; delete it\.$"):
        read_json(path, dict, "delete it.")


def test_of_the_places_that_are_written_the_full_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the work folder where /tmp or /dev/shm is full."""
    work, shared = tmp_path / "work" / "exp", tmp_path / "shm"
    shared.mkdir()
    real, full = os.statvfs, [str(shared)]

    def statvfs(path: Path) -> os.statvfs_result:
        fields = list(real(path))
        fields[4] = 0 if str(path) in full else 1000  # f_bavail
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", statvfs)
    for named in (shared, work):  # work is not there yet
        says = f"^{named}: the disk is full; free some space"
        with pytest.raises(FullDiskError, match=says), full_disk_is_an_error(work, shared):
            raise OSError(errno.ENOSPC, "No space left on device")
        full.clear()


def test_utf16_without_a_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("a one\n".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"text:1: the line has a NUL character, so this is no UTF-8 text"):
        read_lines(path, "give another")
