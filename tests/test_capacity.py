"""Sizes in words, and a disk that is too small."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from asr_kd.capacity import check_disk, human_bytes
from asr_kd.errors import UserError


def test_human_bytes() -> None:
    assert [human_bytes(n) for n in (0, 999, 1500, 36e6, 2.9e9, 5e15)] == [
        "0 bytes", "999 bytes", "1.5 kB", "36.0 MB", "2.9 GB", "5000.0 TB",
    ]  # fmt: skip


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr_kd.capacity.shutil.disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    check_disk(tmp_path / "not" / "there" / "yet", 5e6)
    with pytest.raises(UserError, match=r"yet needs 6.0 MB of disk, but 5.0 MB are free; make room"):
        check_disk(tmp_path / "not" / "there" / "yet", 6e6)
    assert list(tmp_path.iterdir()) == []
    partial = tmp_path / ".yet.partial"
    partial.mkdir()
    (partial / "begun").write_bytes(bytes(1_000_000))
    check_disk(tmp_path / "yet", 6e6)  # a killed run has written the first million bytes
