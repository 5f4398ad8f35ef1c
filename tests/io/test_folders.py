"""Artefact folders are replaced all at once, through links too."""

from __future__ import annotations

from pathlib import Path

from asr_kd.io.folders import replacing_folder, resuming_folder
from asr_kd.io.stamp import Stamp, read_stamp


def test_a_folder_that_is_a_link_stays_one(tmp_path: Path) -> None:
    """As where one has moved features to another disk."""
    elsewhere = tmp_path / "disk" / "train"
    elsewhere.mkdir(parents=True)
    (elsewhere / "old").touch()
    link = tmp_path / "train"
    link.symlink_to(elsewhere)
    for number, writing in enumerate((replacing_folder, resuming_folder, replacing_folder)):
        stamp = Stamp("features", {"number": number}, {})
        with writing(link, stamp) as temporary:
            assert temporary.parent == elsewhere.parent
            (temporary / f"new{number}").touch()
        assert link.is_symlink() and (read_stamp(link) or {})["digest"] == stamp.digest
        assert sorted(path.name for path in link.iterdir()) == [f"new{number}", "stamp.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "train"]
    assert [path.name for path in elsewhere.parent.iterdir()] == ["train"]
