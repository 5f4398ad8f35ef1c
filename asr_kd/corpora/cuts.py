"""Utterances as lhotse cuts on disk, and digests that tell whether recordings are still those the cuts describe."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.corpora.listing import Utterance
from asr_kd.errors import UserError
from asr_kd.io.files import digest_of, open_text
from asr_kd.io.fingerprint import Fingerprint, fingerprint

_HASHED_BYTES = 2 << 30  # of a larger corpus only sizes and times are compared, not contents


def write_cuts(
    path: Path, members: list[Utterance], samples: Mapping[str, int], rate: int, root: Path, language: str
) -> None:
    """Writes a gzipped JSON line per utterance.

    Args:
      samples: utterance -> length of its recording.
      root: recordings below it are named relative to it.
      language: of the transcripts, a BCP 47 tag.
    """
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    # not by CutSet.to_file: without a time in the gzip header the same cuts are the same bytes
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for u in members:
            duration = samples[u.id] / rate
            source = AudioSource("file", [0], relative_name(u.audio, root))
            recording = Recording(u.id, [source], rate, samples[u.id], duration)
            items = [AlignmentItem(label, start, round(end - start, 6)) for label, start, end in u.phones]
            supervision = SupervisionSegment(
                u.id, u.id, 0.0, duration, channel=0, text=u.text, language=language, speaker=u.speaker,
                alignment={"phone": items} if items else None,
                custom={"reference": u.reference} if u.reference else None,
            )  # fmt: skip
            cut = MonoCut(u.id, 0.0, duration, channel=0, supervisions=[supervision], recording=recording)
            file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


def read_cuts(path: Path, fix: str) -> Iterator[dict[str, Any]]:
    """The cuts of a file as plain data, without loading lhotse.

    Raises:
      UserError: a line is no cut with a recording and one supervision; `fix` ends the sentence.
    """
    with open_text(path, "the list of cuts", fix) as lines:
        for number, line in enumerate(lines, 1):
            try:
                cut: dict[str, Any] = json.loads(line)
                complete = cut["recording"]["sources"] and cut["supervisions"]
            except (ValueError, KeyError, TypeError):
                complete = False
            if not complete:
                raise UserError(f"{path}:{number}: this is no cut with a recording; {fix}.")
            yield cut


def relative_name(path: Path, root: Path) -> str:
    """Relative to `root` where the file is below it, else absolute."""
    path, root = path.resolve(), root.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def audio_fingerprints(utterances: Sequence[Utterance], root: Path) -> dict[str, Fingerprint | None]:
    """Of each recording, by the name that cuts have for it; of a large corpus without digests. None: it is missing."""
    ordered = sorted(utterances, key=lambda u: u.id)
    files = {relative_name(u.audio, root): u.audio if u.audio.exists() else None for u in ordered}
    hashed = sum(path.stat().st_size for path in files.values() if path is not None) <= _HASHED_BYTES
    return {name: None if path is None else fingerprint(path, hashed=hashed) for name, path in files.items()}


def audio_digest(files: Mapping[str, Fingerprint | None]) -> str:
    """Of the recordings' names and contents; in a large corpus, of their sizes and times."""
    return digest_of([[name, *((file.size, file.digest or file.time) if file else ())] for name, file in files.items()])
