"""Your own recordings: a folder for each part (train/, dev/, test/) with a file `text` and WAV or FLAC files below it.

`text` has one line per utterance, "utterance-id transcript"; the recording of an utterance is the file of that name
(utterance-id.wav or .flac) anywhere below the part's folder. `utt2spk` holds "utterance-id speaker" lines; without it
each utterance counts as a speaker of its own.
"""

from __future__ import annotations

from pathlib import Path

from asr_kd.corpora.audio import SUFFIXES
from asr_kd.corpora.listing import CorpusManifest, InvalidUtterance, ReadRequest, Utterance, read_lines
from asr_kd.corpora.settings import FolderConfig
from asr_kd.errors import UserError
from asr_kd.lang.normalise import normalise


def read(request: ReadRequest[FolderConfig]) -> CorpusManifest:
    """Lists the utterances of all sets, in the order of their ids within each part.

    Raises:
      UserError: a part or its `text` is missing, or an id appears twice or cannot name a file.
    """
    listing = CorpusManifest([], [])
    seen: dict[str, str] = {}
    for name, folder in ((name, request.root / part) for name, parts in request.parts.items() for part in parts):
        texts = _read_table(folder / "text", "write a line 'utterance-id words' per recording")
        speakers = {}
        listing.transcripts.append(folder / "text")
        if (folder / "utt2spk").exists():
            speakers = _read_table(folder / "utt2spk", "write 'utterance-id speaker' lines")
            listing.transcripts.append(folder / "utt2spk")
        audio = _find_audio(folder)
        for utterance in sorted({*texts, *audio}):
            if utterance in seen:
                raise UserError(f"{folder}: utterance {utterance} is in {seen[utterance]} too; rename one of them.")
            seen[utterance] = name
            if utterance not in texts:
                reason = f"{audio[utterance]} has no transcript; add a line to {folder / 'text'}"
                listing.problems.append(InvalidUtterance(utterance, reason, name))
            elif utterance not in audio:
                reason = f"{folder / utterance}.wav (or .flac) is missing; put it there, or delete its transcript"
                listing.problems.append(InvalidUtterance(utterance, reason, name))
            elif speakers and utterance not in speakers:
                reason = f"has no speaker; add a line to {folder / 'utt2spk'}"
                listing.problems.append(InvalidUtterance(utterance, reason, name))
            elif not texts[utterance]:
                reason = f"its transcript in {folder / 'text'} is empty; write the transcript, or delete the line"
                listing.problems.append(InvalidUtterance(utterance, reason, name))
            elif not (words := normalise(texts[utterance])):
                listing.not_speech.append(utterance)  # nothing but [noise]
            else:
                speaker = speakers.get(utterance, utterance)
                listing.utterances.append(Utterance(utterance, audio[utterance], words, speaker, name))
    return listing


def _read_table(path: Path, fix: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for number, line in read_lines(path, fix):
        key, *rest = line.split(maxsplit=1)
        if key in table:
            raise UserError(f"{path}:{number}: {key} appears twice; delete one of the lines.")
        if "/" in key:
            raise UserError(f"{path}:{number}: {key} has a slash; an utterance's id must be able to name a file.")
        table[key] = rest[0].strip() if rest else ""
    return table


def _find_audio(folder: Path) -> dict[str, Path]:
    audio: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            if path.stem in audio:
                raise UserError(f"{path}: there is {audio[path.stem]} too; an utterance has one recording, rename one.")
            audio[path.stem] = path
    return audio
