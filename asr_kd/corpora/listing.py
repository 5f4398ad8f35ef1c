"""What a corpus's reader is asked, and what it answers: its utterances, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from asr_kd.corpora.settings import CorpusConfig
from asr_kd.errors import UserError

Settings = TypeVar("Settings", bound=CorpusConfig)


@dataclass(frozen=True)
class ReadRequest(Generic[Settings]):
    """What is to be read of a corpus.

    Attributes:
      root: the corpus's folder.
      conf_dir: the config's folder, for tables that a recipe keeps beside it.
      parts: set -> the corpus's parts that make it up.
      seed: of sets that are drawn at random.
      words_for_phones: where transcripts are phones, the words are the text and the phones the reference.
    """

    root: Path
    conf_dir: Path
    settings: Settings
    parts: Mapping[str, Sequence[str]]
    seed: int = 1
    words_for_phones: bool = False


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it."""

    id: str  # no white space, no slash: it becomes a word of a table and the name of a file
    audio: Path
    text: str  # as `lang.normalise` gives it, never empty
    speaker: str
    set: str
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
