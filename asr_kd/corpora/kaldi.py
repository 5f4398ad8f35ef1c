"""Kaldi's data folders: a part is a folder with wav.scp and text, and segments and utt2spk where there are such.

wav.scp has lines "recording-id file", "recording-id archive:offset" or "recording-id command |". Names of files are
relative to the corpus's folder or, where nothing is there, to the current one. Without segments each recording is an
utterance, without utt2spk each utterance a speaker of its own. Sets without transcripts need no text. spk2utt and other
files are not read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.held_out import draw, drawn_sets, parts_to_read
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, find_file, read_table
from asr_kd.corpora.segments import Segment, read_segments
from asr_kd.corpora.settings import KaldiConfig
from asr_kd.corpora.sources import Encoded, TarMember, allowed_pipe
from asr_kd.errors import UserError

_ARCHIVE = re.compile(r"(.+):([0-9]+)")


def read(request: ReadRequest[KaldiConfig]) -> CorpusManifest:
    """Lists the utterances of all sets, in the order of their ids within each part, then draws sets from training.

    Raises:
      UserError: a file is missing or malformed, an id is in two parts, or a recording is a command and commands are not
        allowed.
    """
    drawn = drawn_sets(request)
    listing = CorpusManifest([], [])
    seen: dict[str, Path] = {}
    for name, part in parts_to_read(request, drawn):
        folder = request.root / part
        data = _DataFolder.read(folder, request, transcribed=name not in request.untranscribed)
        listing.transcripts.extend(data.files)
        for utterance in sorted({*(data.texts or ()), *data.segments}):
            if utterance in seen:
                raise UserError(f"{folder}: utterance {utterance} is in {seen[utterance]} too; leave one of them out.")
            seen[utterance] = folder
            if reason := data.problem(utterance):
                listing.refuse(utterance, name, reason)
            else:
                listing.utterances.append(data.utterance(utterance, name))
    return draw(listing, drawn, request.seed, request.root)


@dataclass(frozen=True)
class _DataFolder:
    """The files of one part, by utterance but for the recordings.

    texts: None where utterances need none.
    """

    folder: Path
    recordings: Mapping[str, Encoded]
    segments: Mapping[str, Segment]
    texts: Mapping[str, str] | None
    speakers: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path, request: ReadRequest[KaldiConfig], *, transcribed: bool) -> _DataFolder:
        key = "sets" if transcribed else "untranscribed"
        fix = f"name folders of Kaldi's form under {key}:, relative to --corpus-dir"
        texts = None
        if transcribed:
            texts = read_table(folder / "text", fix, "'utterance-id words'", lambda _, words: words)
        written = read_table(
            folder / "wav.scp", fix, "'recording-id file' or 'recording-id command |'", lambda _, entry: entry or None
        )
        recordings = {name: _recording(folder / "wav.scp", name, entry, request) for name, entry in written.items()}
        segments = {name: Segment(name, 0.0, None) for name in recordings}
        if (folder / "segments").exists():
            segments = read_segments(folder / "segments", fix)
        speakers = {}
        if (folder / "utt2spk").exists():
            one_word = "'utterance-id speaker-id'"
            speakers = read_table(
                folder / "utt2spk", fix, one_word, lambda _, speaker: speaker if len(speaker.split()) == 1 else None
            )
        return cls(folder, recordings, segments, texts, speakers)

    @property
    def files(self) -> list[Path]:
        names = ("wav.scp", "segments", "utt2spk") if self.texts is None else ("text", "wav.scp", "segments", "utt2spk")
        return [path for name in names if (path := self.folder / name).exists()]

    def problem(self, utterance: str) -> str:
        """Why an utterance cannot be used; "": nothing is known yet."""
        text, segments = self.folder / "text", self.folder / "segments"
        if "/" in utterance:
            return "its id has a slash, which no file's name can have; rename it in all files"
        if self.texts is not None and utterance not in self.texts:
            return f"has no transcript; add a line to {text}"
        if self.texts is not None and not self.texts[utterance]:
            return f"its transcript in {text} is empty; write the transcript, or delete the line"
        if utterance not in self.segments:
            where = segments if segments.exists() else self.folder / "wav.scp"
            return f"is not in {where}; add a line, or delete its transcript"
        if (recording := self.segments[utterance].recording) not in self.recordings:
            return f"its recording {recording} is not in {self.folder / 'wav.scp'}; add a line, or delete its segment"
        if self.speakers and utterance not in self.speakers:
            return f"has no speaker; add a line to {self.folder / 'utt2spk'}"
        return ""

    def utterance(self, utterance: str, name: str) -> Utterance:
        segment = self.segments[utterance]
        source = self.recordings[segment.recording]
        whole = Audio(source, recording="" if segment.recording == utterance else segment.recording)
        audio = Audio(source, segment.start, segment.duration, segment.channel, whole.recording)
        text = "" if self.texts is None else self.texts[utterance]
        return Utterance(utterance, audio, text, self.speakers.get(utterance, utterance), name)


def _recording(wav_scp: Path, name: str, entry: str, request: ReadRequest[KaldiConfig]) -> Encoded:
    """What an entry of wav.scp names."""
    if entry.endswith("|"):
        command = entry.removesuffix("|").strip()
        return allowed_pipe(command, request.allow_pipes, f"{wav_scp}: recording {name}")
    path = find_file(entry, request.root)
    if (archive := _ARCHIVE.fullmatch(entry)) is None or path.exists():
        return path
    archive_path, offset = find_file(archive[1], request.root), int(archive[2])
    if not archive_path.exists():
        return archive_path
    with archive_path.open("rb") as file:
        file.seek(offset)
        head = file.read(8)
    if head[:4] != b"RIFF":
        raise UserError(f"{wav_scp}: recording {name}: no WAV is at byte {offset} of {archive_path}; correct the line.")
    return TarMember(archive_path, offset, 8 + int(struct.unpack("<I", head[4:])[0]))
