"""What a corpus's reader hands to `prepare`: which utterances there are, and what is wrong with the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from asr_kd.errors import UserError

SETS = ("train", "dev", "test")


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it."""

    id: str  # no white space, no slash: it becomes a word of a table and the name of a file
    audio: Path
    text: str  # as `lang.normalise` gives it, never empty
    speaker: str
    set: str  # one of SETS
    phones: tuple[
        tuple[str, float, float], ...
    ] = ()  # hand-made: label, start and end in seconds; () where there are none
    reference: str = ""  # what recognition is held against, where that is not the text


@dataclass(frozen=True)
class InvalidUtterance:
    """Why an utterance cannot be used, and the mend; worded to follow "<utterance>: "."""

    utterance: str
    reason: str


@dataclass(frozen=True)
class CorpusManifest:
    """A whole corpus."""

    utterances: list[Utterance]
    transcripts: list[Path]  # every file, audio apart, from which the utterances were read
    problems: list[InvalidUtterance] = field(default_factory=list)
    not_speech: list[str] = field(default_factory=list)  # recordings that nobody speaks in: beeps, silence
    known_missing: list[str] = field(default_factory=list)  # transcripts that the corpus's makers ship no audio for


def read_lines(path: Path, mend: str) -> list[tuple[int, str]]:
    """The lines of a text file with their numbers, blank ones left out.

    Raises:
      UserError: it cannot be read; `mend` ends the sentence.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is not UTF-8 text; save it as UTF-8.") from None
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
