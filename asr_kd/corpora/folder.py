"""Your own recordings: a folder for each part (train/, dev/, test/), with recordings anywhere below it.

Transcripts are in a file `text` of the part, "utterance-id transcript" lines; without it, in a .txt beside each
recording. In sets without transcripts each recording is an utterance, and neither is read. An utterance has its
recording's name without the suffix. Where recordings of a part share a name, the utterances are called by their folders
too (anna/001.mp3: anna-001). `utt2spk` holds "utterance-id speaker" lines; without it a speaker is a folder, where
`corpus.folder_is_speaker` says so, or else each utterance counts as a speaker of its own. Where recordings are long,
`segments` holds "utterance-id recording start end" lines in seconds, as Kaldi has it; a recording's name is as an
utterance's would be.

Recordings in a format that cannot be read (M4A, WMA, ...) are refused where they have a transcript, unless a converted
one lies beside them.

Names are compared in Unicode's composed form (NFC), whichever form a file system or an editor gave them; symbolic links
to folders are followed; hidden files do not count.
"""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from asr_kd.corpora.audio import SUFFIXES, UNREADABLE, Audio
from asr_kd.corpora.held_out import TRAIN, draw, drawn_sets, parts_to_read
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, read_table, utterance_id
from asr_kd.corpora.segments import Segment, read_segments
from asr_kd.corpora.settings import FolderConfig
from asr_kd.errors import UserError, some_of
from asr_kd.io.files import read_lines

T = TypeVar("T")

_BESIDE = ".txt"


@dataclass(frozen=True)
class _Part:
    """A part's files, by utterance.

    Attributes:
      texts: transcripts as written; a UserError where a file of one cannot be read.
      recordings: the file of each.
      segments: None where an utterance is a whole recording.
      speakers: None where they are not known.
      ids_given: by the file `text` or `segments`, so that two utterances of one id are an error.
      transcribed: every utterance must have a transcript.
    """

    folder: Path
    texts: Mapping[str, str | UserError]
    recordings: Mapping[str, Path]
    segments: Mapping[str, Segment] | None
    speakers: Mapping[str, str] | None
    ids_given: bool
    transcribed: bool = True

    @property
    def utterances(self) -> list[str]:
        """Every name that has a transcript, a recording or a segment, sorted."""
        return sorted({*self.texts, *self.recordings, *(self.segments or ())})

    def audio(self, utterance: str) -> Audio:
        if self.segments is None:
            return Audio(self.recordings[utterance])
        segment = self.segments[utterance]
        return Audio(self.recordings[utterance], segment.start, segment.duration, segment.channel, segment.recording)

    def problem(self, utterance: str) -> str:
        """Why an utterance cannot be used; "": it can."""
        if not utterance.strip():
            return f"{self.folder}: the recording '{utterance}' has a name of spaces alone; rename it"
        if utterance not in self.recordings:
            return self._what_is_missing(utterance)
        if _is_unreadable(path := self.recordings[utterance]):
            converted = path.with_suffix(".wav").name
            convert = shlex.join(["ffmpeg", "-i", path.name, converted])
            return f"{path}: this format cannot be read; convert it, for example with {convert}"
        if self.transcribed and (reason := self._problem_of_text(utterance)):
            return reason
        if self.speakers is not None and utterance not in self.speakers:
            return f"has no speaker; add a line to {self.folder / 'utt2spk'}, or put it into a speaker's folder"
        return ""

    def _problem_of_text(self, utterance: str) -> str:
        text_file = self.folder / "text"
        if (text := self.texts.get(utterance)) is None:
            add = f"add a line to {text_file}" if self.ids_given else f"write it in a {_BESIDE} beside it"
            return f"{self.audio(utterance)} has no transcript; {add}"
        if isinstance(text, UserError):
            return str(text).rstrip(".")
        if not text and self.ids_given:
            return f"its transcript in {text_file} is empty; write the transcript, or delete the line"
        if not text:
            where = self.recordings[utterance].with_suffix(_BESIDE)
            return f"its transcript in {where} is empty; write the transcript, or delete the recording"
        return ""

    def _what_is_missing(self, utterance: str) -> str:
        if self.segments is not None and utterance not in self.segments:
            return f"has no line in {self.folder / 'segments'}; add one, or delete its transcript"
        name, lines = utterance, "transcript"
        if self.segments is not None:
            name = self.segments[utterance].recording
            lines = "transcript and segment" if self.transcribed else "segment"
        return f"{self.folder / name}.wav (or .flac, .mp3, ...) is missing; put it there, or delete its {lines}"


def read(request: ReadRequest[FolderConfig]) -> CorpusManifest:
    """Lists the utterances of all sets, in the order of their ids within each part, then draws sets from training.

    Raises:
      UserError: a part or its transcripts are missing, or an id appears twice or cannot name a file.
    """
    drawn = drawn_sets(request)
    listing = CorpusManifest([], [])
    seen: dict[str, str] = {}
    for name, part in parts_to_read(request, drawn):
        transcribed = name not in request.untranscribed
        _add(listing, _read_part(request, part, listing, transcribed), name, seen)
    if drawn and (count := len(_folders_without_speakers(listing))) > 1:
        listing.notes.append(
            f"warning: training recordings are in {count} folders, and utterances of {' and '.join(drawn)} are drawn "
            "from all of them; if each is a speaker's, set corpus.folder_is_speaker: true, else the same voices are in "
            "training and in what is scored"
        )
    return draw(listing, drawn, request.seed, request.root)


def _folders_without_speakers(listing: CorpusManifest) -> set[Path]:
    """Returns the folders with training recordings of which each counts as a speaker of its own."""
    train = [utterance for utterance in listing.utterances if utterance.set == TRAIN]
    return {Path(str(utterance.audio.source)).parent for utterance in train if utterance.speaker == utterance.id}


def _add(listing: CorpusManifest, part: _Part, name: str, seen: dict[str, str]) -> None:
    """Adds a part's utterances to a set; `seen` is utterance -> its set."""
    for written in part.utterances:
        # where the ids are ours, two parts may number their recordings alike
        utterance = f"{part.folder.name}-{written}" if written in seen and not part.ids_given else written
        if utterance in seen:
            raise UserError(f"{part.folder}: utterance {utterance} is in {seen[utterance]} too; rename one of them.")
        seen[utterance] = name
        if reason := part.problem(written):
            listing.refuse(utterance, name, reason)
        else:
            speaker = utterance if part.speakers is None else part.speakers[written]
            text = str(part.texts[written]) if part.transcribed else ""
            listing.utterances.append(Utterance(utterance, part.audio(written), text, speaker, name))


def _read_part(request: ReadRequest[FolderConfig], part: str, listing: CorpusManifest, transcribed: bool) -> _Part:
    """Notes in the listing which files were read, and which belong to no utterance."""
    folder = request.root / part
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; put recordings there, or change sets: (train: [.] is the corpus's "
            "folder itself, a test set need not be there; corpus.dev and corpus.test draw sets from training)."
        )
    files = _files(folder)
    segments: dict[str, Segment] | None = None
    texts: dict[str, str | UserError] = {}
    speakers: dict[str, str] | None = None
    if (path := folder / "segments").exists():
        segments = _in_nfc(path, read_segments(path, "check the file's rights"))
        listing.transcripts.append(path)
        places = {u: unicodedata.normalize("NFC", segment.recording) for u, segment in segments.items()}
        recordings = _recordings(folder, files, set(places.values()))
        _note(listing, f"{folder}: recordings without a segment", recordings.keys() - set(places.values()))
        recordings = {u: recordings[place] for u, place in places.items() if place in recordings}
    elif not transcribed:
        recordings = _recordings(folder, files, {utterance_id(path.relative_to(folder)) for path in files})
    elif not (folder / "text").exists():
        recordings = _recordings(folder, files, None)
        texts = _read_texts(request.root, files, recordings, listing)
    ids_given = not texts if transcribed else segments is not None
    if transcribed and ids_given:
        path = folder / "text"
        texts = {**_read_table(path, f"write a line 'utterance-id words' per recording, or a {_BESIDE} beside it")}
        listing.transcripts.append(path)
        if segments is None:
            recordings = _recordings(folder, files, texts.keys())
    if (path := folder / "utt2spk").exists():
        speakers = _read_table(path, "write 'utterance-id speaker' lines")
        listing.transcripts.append(path)
    elif request.settings.folder_is_speaker:
        folders = {utterance: path.relative_to(folder).parts[:-1] for utterance, path in recordings.items()}
        speakers = {utterance: place[0] for utterance, place in folders.items() if place}
    return _Part(folder, texts, recordings, segments, speakers, ids_given, transcribed)


def _read_texts(
    root: Path, files: list[Path], recordings: Mapping[str, Path], listing: CorpusManifest
) -> dict[str, str | UserError]:
    """Utterance -> the transcript beside its recording, as written; `root` is the corpus's folder."""
    utterances = {path.with_suffix(""): utterance for utterance, path in recordings.items()}
    texts: dict[str, str | UserError] = {}
    alone = []
    for path in files:
        if path.suffix.lower() != _BESIDE:
            continue
        if (utterance := utterances.get(path.with_suffix(""))) is None:
            alone.append(os.path.relpath(path, root))
        else:
            texts[utterance] = _read_text(path)
            listing.transcripts.append(path)
    if texts:
        _note(listing, f"{root}: {_BESIDE} files without a recording beside them", alone)
    return texts


def _note(listing: CorpusManifest, what: str, names: Iterable[str]) -> None:
    if ordered := sorted(names):
        listing.notes.append(f"{what}: {len(ordered)} ({some_of(ordered)})")


def _read_text(path: Path) -> str | UserError:
    """A whole file in one line."""
    try:
        return " ".join(line.strip() for _, line in read_lines(path, "check the file's rights"))
    except UserError as error:
        return error


def _read_table(path: Path, fix: str) -> dict[str, str]:
    expected = "an utterance's id, which has no slash, and what belongs to it"
    return _in_nfc(path, read_table(path, fix, expected, lambda name, value: None if "/" in name else value))


def _in_nfc(path: Path, table: Mapping[str, T]) -> dict[str, T]:
    """The table of a file, its keys in composed form."""
    names: dict[str, T] = {}
    for written, value in table.items():
        if (name := unicodedata.normalize("NFC", written)) in names:
            raise UserError(f"{path}: {name} appears twice, written in two ways of Unicode; delete one of the lines.")
        names[name] = value
    return names


def _is_unreadable(path: Path) -> bool:
    return path.suffix.lower() in UNREADABLE


def _recordings(folder: Path, files: list[Path], named: Collection[str] | None) -> dict[str, Path]:
    """Utterance -> its recording.

    Args:
      named: the names that have a transcript or a segment: a recording that cannot be read counts under one of them
        alone; None: it counts where a transcript is beside it.
    """
    readable = [path for path in files if path.suffix.lower() in SUFFIXES]
    converted = {path.with_suffix("") for path in readable}
    others = [path for path in files if _is_unreadable(path) and path.with_suffix("") not in converted]
    if named is None:
        beside = {path.with_suffix("") for path in files if path.suffix.lower() == _BESIDE}
        others = [path for path in others if path.with_suffix("") in beside]
    else:
        free = set(named) - {utterance_id(Path(path.name)) for path in readable}
        others = [
            p for p in others if utterance_id(Path(p.name)) in free or utterance_id(p.relative_to(folder)) in named
        ]
    paths = sorted([*readable, *others])
    names = [utterance_id(Path(path.name)) for path in paths]
    if len(set(names)) < len(names):
        names = [utterance_id(path.relative_to(folder)) for path in paths]
    audio: dict[str, Path] = {}
    for name, path in zip(names, paths):
        if name in audio:
            raise UserError(f"{path}: there is {audio[name]} too; an utterance has one recording, rename one.")
        audio[name] = path
    return audio


def _files(folder: Path) -> list[Path]:
    """All below a folder but hidden ones, like the ._name that macOS leaves beside a file; each folder once."""
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        files += [Path(place, name) for name in names if name[0] != "."]
    return sorted(path for path in files if path.is_file())
