"""What a killed run had finished is there again, to the byte; what it had not is gone."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, truncate
from asr_kd.errors import FullDiskError, UserError
from asr_kd.frames.store import FrameStore, FrameStoreWriter, StoredUtterance
from asr_kd.io import append_log
from asr_kd.io.append_log import AppendLog
from asr_kd.io.folders import discard_partial, resuming_folder
from asr_kd.io.stamp import Stamp, read_stamp

STAMP = Stamp("grown", {"a": 1}, {})


class Killed(BaseException):
    """What no code catches by mistake."""


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9), st.booleans()), max_size=12))
def test_files_are_cut_back_to_their_last_commit(tmp_path_factory, writes) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("grow")
    marked = {"a": b"", "b": b""}
    written = dict(marked)
    files = AppendLog(folder, ["a", "b"])
    assert files.note is None
    for count, (a, b, mark) in enumerate(writes):
        files.files["a"].write(a)
        files.files["b"].write(b)
        written = {"a": written["a"] + a, "b": written["b"] + b}
        if mark:
            files.commit({"count": count})
            marked = written
    files.close()
    again = AppendLog(folder, ["a", "b"])
    marks = [count for count, (_, _, mark) in enumerate(writes) if mark]
    assert again.note == ({"count": marks[-1]} if marks else None)
    again.finish()
    assert {name: (folder / name).read_bytes() for name in "ab"} == marked
    assert not (folder / "growing.json").exists()


@pytest.mark.parametrize("damage", ["gone", "short", "other files", "note"])
def test_files_that_are_not_as_at_their_last_commit_start_empty(tmp_path: Path, damage: str) -> None:
    files = AppendLog(tmp_path, ["a", "b"])
    files.files["a"].write(b"12345")
    files.commit({"n": 1})
    files.close()
    if damage == "gone":
        (tmp_path / "a").unlink()
    elif damage == "short":
        (tmp_path / "a").write_bytes(b"123")
    elif damage == "note":
        (tmp_path / "growing.json").write_bytes(b'{"sizes": ')
    again = AppendLog(tmp_path, ["a", "b", "c"] if damage == "other files" else ["a", "b"])
    assert again.note is None and again.files["a"].tell() == 0
    again.close()


def test_a_full_disk_loses_nothing_and_a_finished_run_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with pytest.raises(FullDiskError), resuming_folder(path, STAMP) as folder:
        (folder / "half").write_text("done")
        raise OSError(errno.ENOSPC, "No space left on device")
    partial = path.with_name(".made.partial")
    assert (partial / "half").read_text() == "done"
    discard_partial(path)
    assert not partial.exists()


def test_a_partial_folder_is_resumed_only_under_its_own_stamp(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with pytest.raises(Killed), resuming_folder(path, STAMP) as folder:
        (folder / "half").write_text("done")
        raise Killed
    assert not path.exists()
    with pytest.raises(Killed), resuming_folder(path, STAMP) as folder:
        assert (folder / "half").read_text() == "done"
        raise Killed
    other = Stamp("grown", {"a": 2}, {})
    with resuming_folder(path, other, {"n": 3}) as folder:
        assert not (folder / "half").exists()
    stamp = read_stamp(path)
    assert stamp is not None and stamp["digest"] == other.digest and stamp["metadata"] == {"n": 3}
    assert sorted(file.name for file in path.iterdir()) == ["stamp.json"]
    with pytest.raises(UserError), resuming_folder(path, STAMP):
        raise UserError("fix the input")
    assert [file.name for file in tmp_path.iterdir()] == ["made"] and read_stamp(path) == stamp


def _features(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=(rng.integers(2, 9), 4)) for _ in range(20)]


def _write(folder: Path, features: list[np.ndarray], first: int, mark_at: int, end: int) -> FrameStoreWriter:
    writer = FrameStoreWriter(folder, 4)
    for number in range(first, end):
        if number == mark_at:
            writer.commit({"next": number})
        array = features[number]
        writer.append(StoredUtterance(f"u{number}", f"g{number % 3}", "ÄÖ", 0.01 * len(array)), array)
    return writer


def test_a_store_that_was_killed_ends_as_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_log, "COMMIT_SECONDS", -1.0)
    features = _features(np.random.default_rng(1))
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    with _write(tmp_path / "whole", features, 0, -1, 20):
        pass
    _write(tmp_path / "killed", features, 0, 7, 12)._log.close()  # five utterances beyond the mark are lost
    assert FrameStoreWriter(tmp_path / "killed", 4).note == {"next": 7}
    _write(tmp_path / "killed", features, 7, 13, 13)._log.close()  # killed again before another mark
    with _write(tmp_path / "killed", features, 7, -1, 20):
        pass
    assert sorted(file.name for file in (tmp_path / "killed").iterdir()) == [
        "cmvn.npz", "features.npy", "utterances.jsonl",
    ]  # fmt: skip
    for name in ("features.npy", "utterances.jsonl", "cmvn.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    STAMP.write(tmp_path / "killed" / "stamp.json")
    assert FrameStore.open(tmp_path / "killed").ids == [f"u{k}" for k in range(20)]


def test_soft_targets_that_were_killed_end_as_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_log, "COMMIT_SECONDS", -1.0)

    log_probabilities = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    retained = [truncate(part, keep_mass=0.8, max_entries=5) for part in log_probabilities.split(10)]
    background = np.full(9, 1 / 9, np.float32)

    def write(name: str, parts: list, mark_after: int, close: bool) -> None:
        writer = SoftTargetWriter(tmp_path / name, 9, background, exact=False)
        for number, part in enumerate(parts):
            writer.append(part)
            if number == mark_after:
                writer.commit({"parts": number + 1})
        if close:
            writer.close()
        else:
            writer._log.close()

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    write("whole", retained, -1, True)
    write("killed", retained[:4], 1, False)
    assert json.loads((tmp_path / "killed" / "growing.json").read_text())["note"]["note"] == {"parts": 2}
    write("killed", retained[2:], -1, True)
    assert sorted(f.name for f in (tmp_path / "killed").iterdir()) == sorted(
        f.name for f in (tmp_path / "whole").iterdir()
    )
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "killed" / file.name).read_bytes(), file.name
    assert SoftTargetStore(tmp_path / "killed", temperature=2.0, num_frames=50).num_frames == 50
