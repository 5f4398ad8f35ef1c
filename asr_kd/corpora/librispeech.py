"""LibriSpeech in its makers' layout: <part>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac and .trans.txt.

A set is one or more parts. Where a sample has no part for dev, some of the training speakers are taken for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.held_out import moved, shuffled
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance, read_table
from asr_kd.corpora.settings import LibriSpeechConfig
from asr_kd.errors import UserError, some_of

_ID = re.compile(r"[0-9]+-[0-9]+-[0-9]+")
# Panayotov et al. (2015), table 1; the mini parts from their archives' sizes, at the same bytes an hour
PART_HOURS = {
    "train-clean-100": 100.6, "train-clean-360": 363.6, "train-other-500": 496.7,
    "dev-clean": 5.4, "dev-other": 5.3, "test-clean": 5.4, "test-other": 5.1,
    "train-clean-5": 5.2, "dev-clean-2": 2.0,
}  # fmt: skip
_FETCH = "fetch the part again (stage 0)"


def read(request: ReadRequest[LibriSpeechConfig]) -> CorpusManifest:
    """Lists the utterances of each set's parts, in the order of their ids within each part.

    The corpus's folder is the folder of the parts, or the one that holds it as LibriSpeech/.

    Raises:
      UserError: a part is missing or empty, a chapter has no transcripts or malformed ones, an utterance is in two
        parts, or there are too few speakers to take dev's from.
    """
    inner = request.root / "LibriSpeech"
    root = inner if inner.is_dir() else request.root
    listing = CorpusManifest([], [])
    where: dict[str, str] = {}
    _check_parts(root, [part for parts in request.parts.values() for part in parts])
    for name, parts in request.parts.items():
        for part in parts:
            _read_part(root / part, name, listing, where, transcribed=name not in request.untranscribed)
    if request.settings.dev_speakers and "dev" in request.parts:
        return _take_dev_speakers(listing, request.settings.dev_speakers, request.seed, root)
    return listing


def _check_parts(root: Path, parts: Sequence[str]) -> None:
    missing = [part for part in dict.fromkeys(parts) if not (root / part).is_dir() or Path(part).name != part]
    if not missing:
        return
    present = sorted(path.name for path in root.iterdir() if path.is_dir())
    part, them = ("part", "it") if len(missing) == 1 else ("parts", "them")
    raise UserError(
        f"{root} has no {part} {', '.join(map(repr, missing))}, only {some_of(present, 10) or 'nothing'}; fetch {them} "
        "(stage 0), or name other parts under sets: (corpus.dev_speakers takes dev from the training speakers)."
    )


def _read_part(part: Path, name: str, listing: CorpusManifest, where: dict[str, str], *, transcribed: bool) -> None:
    chapters = sorted(path for path in part.glob("*/*") if path.is_dir())
    if not chapters:
        raise UserError(f"{part}: there is no <speaker>/<chapter> folder in it; {_FETCH}.")
    for chapter in chapters:
        speaker = chapter.parent.name
        transcripts = chapter / f"{speaker}-{chapter.name}.trans.txt"
        audio = {path.stem: path for path in chapter.iterdir() if path.suffix == ".flac"}
        texts = dict.fromkeys(audio, "")
        if transcribed:
            texts = read_table(transcripts, _FETCH, "'speaker-chapter-number WORDS'", _transcript)
            listing.transcripts.append(transcripts)
        for utterance in sorted({*texts, *audio}):
            if utterance in where:
                raise UserError(
                    f"{chapter}: utterance {utterance} is in {where[utterance]} too; leave one of the parts out."
                )
            where[utterance] = part.name
            if utterance not in texts:
                listing.refuse(utterance, name, f"{audio[utterance]} has no line in {transcripts}; {_FETCH}")
            elif utterance not in audio:
                reason = f"{chapter / utterance}.flac is missing, but {transcripts.name} has its text; {_FETCH}"
                listing.refuse(utterance, name, reason)
            else:
                recording = Audio(audio[utterance])
                listing.utterances.append(Utterance(utterance, recording, texts[utterance], speaker, name))


def _transcript(utterance: str, text: str) -> str | None:
    return text if _ID.fullmatch(utterance) and any(map(str.isalnum, text)) else None


def _take_dev_speakers(listing: CorpusManifest, count: int, seed: int, root: Path) -> CorpusManifest:
    """The speakers with the fewest utterances, so that training loses the least; the seed settles ties."""
    utterances = Counter(u.speaker for u in listing.utterances if u.set == "train")
    if count >= len(utterances):
        raise UserError(
            f"{root}: {count} speakers were asked for dev, but training has {len(utterances)}; lower --dev-speakers."
        )
    taken = set(sorted(shuffled(utterances, seed), key=lambda speaker: utterances[speaker])[:count])
    return moved(listing, {u.id: "dev" for u in listing.utterances if u.set == "train" and u.speaker in taken})
