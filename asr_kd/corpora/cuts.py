"""Utterances as lhotse cuts on disk, and what tells whether a corpus is still the one they were made from."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.corpora.listing import CorpusManifest, Utterance
from asr_kd.io.files import digest_of, file_digest
from asr_kd.workspace.work import Workspace

_HASHED_BYTES = 2 << 30  # of a corpus above this only sizes and times are compared, not contents
_NAMED_FILES = 20  # transcripts that a stamp tells apart


def write_cuts(path: Path, members: list[Utterance], samples: Mapping[str, int], rate: int, work: Workspace) -> None:
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    # by hand rather than CutSet.to_file: without a time in the gzip header the same cuts are the same bytes
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for u in members:
            duration = samples[u.id] / rate
            source = AudioSource("file", [0], _relative(u.audio, work.root))
            recording = Recording(u.id, [source], rate, samples[u.id], duration)
            items = [AlignmentItem(label, start, round(end - start, 6)) for label, start, end in u.phones]
            supervision = SupervisionSegment(
                u.id, u.id, 0.0, duration, channel=0, text=u.text, language="English", speaker=u.speaker,
                alignment={"phone": items} if items else None,
                custom={"reference": u.reference} if u.reference else None,
            )  # fmt: skip
            cut = MonoCut(u.id, 0.0, duration, channel=0, supervisions=[supervision], recording=recording)
            file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


def write_transcripts(path: Path, listing: CorpusManifest, work: Workspace) -> None:
    """Where the transcripts are, for `asr_kd.workspace.freshness`."""
    names = [_relative(transcripts, work.root) for transcripts in listing.transcripts]
    path.write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")


def _relative(path: Path, root: Path) -> str:
    path, root = path.resolve(), root.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def transcript_digests(listing: CorpusManifest, corpus_dir: Path) -> dict[str, str]:
    """By file; those of a large corpus together."""
    found = {_name(path, corpus_dir): file_digest(path) for path in listing.transcripts}
    return found if len(found) <= _NAMED_FILES else {"transcripts": digest_of(found)}


def _name(path: Path, corpus_dir: Path) -> str:
    return str(path.relative_to(corpus_dir)) if path.is_relative_to(corpus_dir) else path.name


def audio_digest(utterances: list[Utterance], corpus_dir: Path, work: Workspace) -> str:
    """Of all recordings' names and contents; in a large corpus, of their sizes and times of change.

    Where the corpus lies is part of it: the cuts hold the paths.
    """
    files = [(u.audio, u.audio.stat() if u.audio.exists() else None) for u in utterances]
    hashed = sum(stat.st_size for _, stat in files if stat) <= _HASHED_BYTES
    rows: list[Sequence[Any]] = []
    for path, stat in files:
        known = [] if stat is None else [stat.st_size, file_digest(path) if hashed else stat.st_mtime_ns]
        rows.append([_relative(path, work.root), *known])
    return digest_of(rows)
