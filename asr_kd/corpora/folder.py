"""Your own recordings: a folder for each part (train/, dev/, test/) with a file `text` and WAV or FLAC files below it.

`text` has one line per utterance, "utterance-id transcript"; the recording of an utterance is the file of that name
(utterance-id.wav or .flac) anywhere below the part's folder. `utt2spk` holds "utterance-id speaker" lines; without it
each utterance counts as a speaker of its own. Names are compared in Unicode's composed form (NFC), whichever form a
file system or an editor gave them; symbolic links to folders are followed; hidden files do not count.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from asr_kd.corpora.audio import SUFFIXES, Audio
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, read_table
from asr_kd.corpora.settings import FolderConfig
from asr_kd.errors import UserError


def read(request: ReadRequest[FolderConfig]) -> CorpusManifest:
    """Lists the utterances of all sets, in the order of their ids within each part.

    Raises:
      UserError: a part or its `text` is missing, or an id appears twice or cannot name a file.
    """
    listing = CorpusManifest([], [])
    seen: dict[str, str] = {}
    for name, folder in ((name, request.root / part) for name, parts in request.parts.items() for part in parts):
        text_file, speaker_file = folder / "text", folder / "utt2spk"
        texts = _read_table(text_file, "write a line 'utterance-id words' per recording")
        speakers = {}
        listing.transcripts.append(text_file)
        if speaker_file.exists():
            speakers = _read_table(speaker_file, "write 'utterance-id speaker' lines")
            listing.transcripts.append(speaker_file)
        audio = _find_audio(folder)
        for utterance in sorted({*texts, *audio}):
            if utterance in seen:
                raise UserError(f"{folder}: utterance {utterance} is in {seen[utterance]} too; rename one of them.")
            seen[utterance] = name
            reason = ""
            if utterance not in texts:
                reason = f"{audio[utterance]} has no transcript; add a line to {text_file}"
            elif utterance not in audio:
                reason = f"{folder / utterance}.wav (or .flac) is missing; put it there, or delete its transcript"
            elif speakers and utterance not in speakers:
                reason = f"has no speaker; add a line to {speaker_file}"
            elif not texts[utterance]:
                reason = f"its transcript in {text_file} is empty; write the transcript, or delete the line"
            else:
                speaker = speakers.get(utterance, utterance)
                recording = Audio(audio[utterance])
                listing.utterances.append(Utterance(utterance, recording, texts[utterance], speaker, name))
            if reason:
                listing.refuse(utterance, name, reason)
    return listing


def _read_table(path: Path, fix: str) -> dict[str, str]:
    expected = "an utterance's id, which has no slash, and what belongs to it"
    table = read_table(path, fix, expected, lambda utterance, value: None if "/" in utterance else value)
    names: dict[str, str] = {}
    for written in table:
        if (name := unicodedata.normalize("NFC", written)) in names:
            raise UserError(f"{path}: {name} appears twice, written in two ways of Unicode; delete one of the lines.")
        names[name] = written
    return {name: table[written] for name, written in names.items()}


def _find_audio(folder: Path) -> dict[str, Path]:
    audio: dict[str, Path] = {}
    for path in _files(folder):
        if path.suffix.lower() in SUFFIXES:
            name = unicodedata.normalize("NFC", path.stem)
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
