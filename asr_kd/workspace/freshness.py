"""Whether a corpus is still the one that stage 1 read: by the modification times of its files, for it may be large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asr_kd.corpora.cuts import read_cuts
from asr_kd.errors import UserError
from asr_kd.io.files import read_json
from asr_kd.io.stamp import STAMP
from asr_kd.workspace.work import Workspace

TRANSCRIPTS = "transcripts.json"  # in data/: the files that the config's sets were read from
_FIX = "run asr-kd prepare again"


def transcripts_file(work: Workspace, added_set: str) -> Path:
    """The list of files that a set which was added later was read from."""
    return work.data / f"transcripts_{added_set}.json"


def check_inputs_unmodified(work: Workspace, names: Iterable[str]) -> None:
    """Checks the modification times of the sets' transcripts and recordings; missing files are ignored.

    Raises:
      UserError: a file is newer than the stamp of stage 1, or the list of cuts is damaged.
    """
    _refuse(work, _newer(work.data / STAMP, _listed(work, work.data / TRANSCRIPTS)), "prepare")
    for name in names:
        stamp, transcripts = work.cuts_stamp(name), transcripts_file(work, name)
        modified = _newer(stamp, _listed(work, transcripts)) + _newer(stamp, _recordings(work, work.cuts(name)))
        _refuse(work, modified, f"prepare --add-set {name}=PARTS" if transcripts.exists() else "prepare")


def _refuse(work: Workspace, modified: Sequence[Path], command: str) -> None:
    if modified:
        more = f" and {len(modified) - 1} more" if len(modified) > 1 else ""
        raise UserError(
            f"{modified[0]}{more} changed after {work.data} was made; read the corpus again: {work.command(command)}"
        )


def _newer(stamp: Path, files: Iterator[Path]) -> list[Path]:
    if not stamp.exists():
        return []
    prepared = stamp.stat().st_mtime_ns
    return [path for path in files if path.exists() and path.stat().st_mtime_ns > prepared]


def _listed(work: Workspace, file: Path) -> Iterator[Path]:
    if file.exists():
        yield from (work.root / name for name in read_json(file, list, f"{_FIX}."))


def _recordings(work: Workspace, cuts: Path) -> Iterator[Path]:
    if cuts.exists():
        for cut in read_cuts(cuts, _FIX):
            yield from (work.root / source["source"] for source in cut["recording"]["sources"])
