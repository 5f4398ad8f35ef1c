"""Whether a corpus is still what stage 1 looked at: by the times of its files, for it may be large."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.stamp import STAMP
from asr_kd.io.text_files import open_text
from asr_kd.workspace.work import Workspace

TRANSCRIPTS = "transcripts.json"  # in data/: the files that the utterances were read from
_MEND = "make it again with asr-kd prepare"


def check_inputs_unmodified(work: Workspace, names: Iterable[str]) -> None:
    """Looks at the transcripts and the recordings of these sets; one that is gone is not asked for.

    Raises:
      UserError: a file was altered since stage 1 looked at it, or the list of cuts is damaged.
    """
    stamp = work.data / STAMP
    if not stamp.exists():
        return
    prepared = stamp.stat().st_mtime_ns
    altered, first = 0, ""
    for path in (*_transcripts(work), *(path for name in names for path in _recordings(work, work.cuts(name)))):
        if path.exists() and path.stat().st_mtime_ns > prepared:
            altered, first = altered + 1, first or str(path)
    if altered:
        more = f" and {altered - 1} more" if altered > 1 else ""
        raise UserError(
            f"{first}{more} changed after {work.data} was made; look at the corpus again: {work.command('prepare')}"
        )


def _transcripts(work: Workspace) -> Iterator[Path]:
    file = work.data / TRANSCRIPTS
    if file.exists():
        yield from (work.root / name for name in json.loads(file.read_text(encoding="utf-8")))


def _recordings(work: Workspace, cuts: Path) -> Iterator[Path]:
    if not cuts.exists():
        return
    with open_text(cuts, "the list of cuts", _MEND) as lines:
        for number, line in enumerate(lines, 1):
            try:
                sources = [source["source"] for source in json.loads(line)["recording"]["sources"]]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{cuts}:{number}: this is no cut with a recording; {_MEND}.") from None
            yield from (work.root / source for source in sources)
