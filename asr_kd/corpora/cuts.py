"""Utterances as lhotse cuts on disk, and digests that tell whether recordings are still those the cuts describe."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.corpora.audio import Audio, BadAudio, Extent
from asr_kd.corpora.listing import Utterance
from asr_kd.corpora.sources import LhotseRecording, Pipe, TarMember, files_of
from asr_kd.errors import UserError
from asr_kd.io.files import digest_of, open_text
from asr_kd.io.fingerprint import Fingerprint, fingerprint

_HASHED_BYTES = 2 << 30  # of a larger corpus only sizes and times are compared, not contents


def write_cuts(path: Path, members: list[Utterance], extents: Mapping[str, Extent], root: Path, language: str) -> None:
    """Writes a gzipped JSON line per utterance.

    Args:
      extents: utterance -> what it takes of its recording.
      root: recordings below it are named relative to it.
      language: of the transcripts, a BCP 47 tag.
    """
    from lhotse import MonoCut, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    # not by CutSet.to_file: without a time in the gzip header the same cuts are the same bytes
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for u in members:
            extent = extents[u.id]
            recording = _recording(u, extent, root)
            is_whole = u.audio.start == 0 and u.audio.duration is None
            # the time of a segment is exact at the rate of its recording
            duration = recording.duration if is_whole else extent.samples / extent.recording.rate
            channel = (recording.channel_ids or [0])[extent.channel]
            items = [AlignmentItem(label, start, round(end - start, 6)) for label, start, end in u.phones]
            supervision = SupervisionSegment(
                u.id, recording.id, 0.0, duration, channel=channel,
                text=u.text or None, language=language, speaker=u.speaker,
                alignment={"phone": items} if items else None,
                custom={"reference": u.reference} if u.reference else None,
            )  # fmt: skip
            cut = MonoCut(
                u.id, u.audio.start, duration, channel=channel, supervisions=[supervision], recording=recording
            )
            file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


def _recording(utterance: Utterance, extent: Extent, root: Path) -> Any:
    """The lhotse.Recording that an utterance is part of; lhotse converts it to the rate asked for as we do."""
    from lhotse import AudioSource, Recording

    source, recorded = utterance.audio.source, extent.recording
    if isinstance(source, LhotseRecording):
        data = source.data
        for entry in data["sources"]:
            if entry["type"] == "file":
                entry["source"] = relative_name(Path(entry["source"]), root)
        recording = Recording.from_dict(data)
    else:
        if isinstance(source, Pipe):
            kind, name = "command", source.command
        elif isinstance(source, TarMember):
            # for lhotse a place that it fills when it reads the archive; the name says what with
            kind, name = "shar", f"{relative_name(source.tar, root)}:{source.offset}:{source.size}"
        else:
            kind, name = "file", relative_name(source, root)
        sources = [AudioSource(kind, list(range(recorded.channels)), name)]
        name = utterance.audio.recording or utterance.id
        recording = Recording(name, sources, recorded.rate, recorded.samples, recorded.samples / recorded.rate)
    return recording.resample(extent.rate)


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


def cut_audio(cut: Mapping[str, Any], root: Path, channel: int | None = None) -> Audio:
    """Returns the place of a cut's samples in its recording.

    Args:
      root: what names of files are relative to.
      channel: of cuts with several.

    Raises:
      BadAudio: see `recording_audio`.
    """
    recording = cut["recording"]
    is_whole = cut["start"] == 0 and cut["duration"] == recording["duration"]
    duration = None if is_whole else cut["duration"]
    return recording_audio(recording, cut["channel"], lambda name: root / name, channel, (cut["start"], duration))


def recording_audio(
    recording: Mapping[str, Any],
    channels: int | Sequence[int],
    locate: Callable[[str], Path],
    channel: int | None = None,
    segment: tuple[float, float | None] = (0.0, None),
) -> Audio:
    """Returns the place of the samples of a lhotse recording, or of a segment of it.

    Args:
      recording: as plain data.
      channels: those that are of interest, by lhotse's numbers.
      locate: name of a file -> its path.
      channel: the one to take where several are of interest.
      segment: start and duration in seconds; None: to the end.

    Raises:
      BadAudio: a channel is to be chosen, or lhotse has no way to read the recording.
    """
    name, start, duration = str(recording["id"]), *segment
    ids = [channels] if isinstance(channels, int) else list(channels)
    if len(ids) > 1 and channel in ids:
        ids = [channel]
    sources = [source for source in recording["sources"] if set(ids) & set(source["channels"])]
    if not recording["sources"]:
        raise BadAudio(f"recording {name} names no audio; write its manifest again with lhotse")
    if len(sources) != 1:
        have = ", ".join(str(k) for source in recording["sources"] for k in source["channels"])
        raise BadAudio(f"recording {name} has the channels {have}; choose one by corpus.channel")
    (source,) = sources
    place = list(source["channels"]).index(ids[0]) if len(ids) == 1 else None
    transforms = recording.get("transforms") or []
    if source["type"] == "url" or any(transform.get("name") != "Resample" for transform in transforms):
        return Audio(_lhotse_recording(recording, locate), start, duration, place, name)
    rate = recording["sampling_rate"] if transforms else None
    if source["type"] == "file":
        return Audio(locate(source["source"]), start, duration, place, name, rate)
    if source["type"] == "command":
        return Audio(Pipe(source["source"]), start, duration, place, name, rate)
    tar, *bytes_of_it = source["source"].rsplit(":", 2)
    if source["type"] != "shar" or len(bytes_of_it) != 2:
        raise BadAudio(f"recording {name} has no audio (its type is {source['type']}); write it to files with lhotse")
    return Audio(TarMember(locate(tar), *map(int, bytes_of_it)), start, duration, place, name, rate)


def _lhotse_recording(recording: Mapping[str, Any], locate: Callable[[str], Path]) -> LhotseRecording:
    """Raises BadAudio where lhotse would give a command to a shell."""
    sources = []
    for source in recording["sources"]:
        if source["type"] not in ("file", "url"):
            raise BadAudio(
                f"recording {recording['id']} is changed by lhotse while it is read, and no file (its type is "
                f"{source['type']}); write it to files with lhotse"
            )
        sources.append(source | ({"source": str(locate(source["source"]))} if source["type"] == "file" else {}))
    return LhotseRecording(json.dumps({**recording, "sources": sources}, sort_keys=True))


def relative_name(path: Path, root: Path) -> str:
    """Returns a name relative to `root` where the file is below it, else absolute."""
    path, root = path.resolve(), root.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def audio_fingerprints(utterances: Sequence[Utterance], root: Path) -> dict[str, Fingerprint | None]:
    """Returns the fingerprint of each recording's file, by the name that cuts have for it; None: the file is missing.

    In a large corpus the fingerprints have no digests.
    """
    ordered = (file for u in sorted(utterances, key=lambda u: u.id) for file in files_of(u.audio.source))
    files = {relative_name(file, root): file if file.is_file() else None for file in dict.fromkeys(ordered)}
    hashed = sum(path.stat().st_size for path in files.values() if path is not None) <= _HASHED_BYTES
    return {name: None if path is None else fingerprint(path, hashed=hashed) for name, path in files.items()}


def audio_digest(files: Mapping[str, Fingerprint | None]) -> str:
    """Returns a digest of the recordings' names and contents; in a large corpus, of their names, sizes and times."""
    return digest_of([[name, *((file.size, file.digest or file.time) if file else ())] for name, file in files.items()])


def audio_place(audio: Audio, root: Path) -> list[Any]:
    """Returns the place of an utterance's samples as plain data; an empty list where it has a file of its own."""
    if isinstance(audio.source, Path) and audio == Audio(audio.source):
        return []
    files = [relative_name(file, root) for file in files_of(audio.source)]
    place = "" if isinstance(audio.source, Path) else audio.source.place
    return [files, place, audio.start, audio.duration, audio.channel, audio.recording, audio.rate]
