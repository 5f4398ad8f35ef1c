"""What a corpus reader gets and returns: the parts to read; the utterances, and what is wrong with the rest."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.settings import CorpusConfig
from asr_kd.errors import UserError, printable
from asr_kd.io.files import read_lines
from asr_kd.lang.normalise import Kind, Losses, Normaliser

Settings = TypeVar("Settings", bound=CorpusConfig)

_NOT_UTF8 = "the name of its recording is not UTF-8; rename it"


@dataclass(frozen=True)
class ReadRequest(Generic[Settings]):
    """What is to be read of a corpus.

    Attributes:
      root: the corpus's folder.
      conf_dir: the config's folder, for tables that a recipe keeps beside it.
      parts: set -> the corpus's parts that make it up.
      untranscribed: sets of `parts` whose utterances need no transcript; what they may have is not used.
      seed: of sets that are drawn at random.
      words_for_phones: where transcripts are phones, take the words as the text and the phones as the reference.
      normalise: written text -> words, for readers that compare transcripts.
      allow_pipes: the audio may be the output of commands that the corpus names.
    """

    root: Path
    conf_dir: Path
    settings: Settings
    parts: Mapping[str, Sequence[str]]
    seed: int = 1
    words_for_phones: bool = False
    normalise: Normaliser = field(default_factory=Normaliser)
    allow_pipes: bool = False
    untranscribed: frozenset[str] = frozenset()

    @property
    def set_of(self) -> dict[str, str]:
        """Part -> the set that it belongs to, for corpora whose parts are known by utterance or speaker."""
        return {part: name for name, parts in self.parts.items() for part in parts}


@dataclass(frozen=True)
class Utterance:
    """A recording, or a segment of one, and its transcript."""

    id: str  # no white space, no slash: it becomes a word of a table and the name of a file
    audio: Audio
    # the transcript: as written, until `corpora.transcripts` turns it into words; empty only in untranscribed sets
    text: str
    speaker: str
    set: str
    # manual phone times: label, start and end in seconds; () where there are none
    phones: tuple[tuple[str, float, float], ...] = ()
    reference: str = ""  # what recognition is compared with, where that is not the text
    verbatim: bool = False  # the text is units already, such as phones: it stays as it is


@dataclass(frozen=True)
class InvalidUtterance:
    """Why an utterance cannot be used, and what to do; worded to follow "<utterance>: "."""

    utterance: str
    reason: str
    set: str


@dataclass
class DroppedText:
    """What the transcripts of a set lost on becoming words."""

    losses: Losses = field(default_factory=Losses)
    examples: dict[tuple[Kind, str], str] = field(default_factory=dict)  # what was dropped -> an utterance with it

    def add(self, utterance: str, losses: Losses) -> None:
        self.losses += losses
        for piece in losses.dropped:
            self.examples.setdefault(piece, utterance)


@dataclass(frozen=True)
class CorpusManifest:
    """A whole corpus."""

    utterances: list[Utterance]
    transcripts: list[Path]  # every file that the utterances were read from, audio apart
    problems: list[InvalidUtterance] = field(default_factory=list)
    not_speech: list[str] = field(default_factory=list)  # recordings without speech: beeps, silence
    known_missing: list[str] = field(default_factory=list)  # utterances released without recording or transcript
    dropped: dict[str, DroppedText] = field(default_factory=dict)  # set -> what its transcripts lost on becoming words
    notes: list[str] = field(default_factory=list)  # on the corpus as a whole, such as which speakers dev was drawn of

    def refuse(self, utterance: str, set_name: str, reason: str) -> None:
        """Notes why an utterance cannot be used; see `InvalidUtterance`."""
        self.problems.append(InvalidUtterance(utterance, reason, set_name))

    def only_utf8(self) -> CorpusManifest:
        """Returns the corpus without utterances whose name or file has bytes that are not UTF-8.

        Such utterances could not be named in the files that are written. They are among the problems; so is one whose
        name was no UTF-8 already, with its bytes escaped.
        """
        problems = [
            InvalidUtterance(
                printable(problem.utterance),
                _NOT_UTF8 if printable(problem.utterance) != problem.utterance else printable(problem.reason),
                problem.set,
            )
            for problem in self.problems
        ]
        utterances = []
        for utterance in self.utterances:
            if printable(name := f"{utterance.id} {utterance.audio}") == name:
                utterances.append(utterance)
            else:
                reason = f"{utterance.audio}: {_NOT_UTF8}"
                problems.append(InvalidUtterance(printable(utterance.id), printable(reason), utterance.set))
        return replace(self, utterances=utterances, problems=problems)

    def without_transcripts(self, sets: Collection[str]) -> CorpusManifest:
        """Returns the corpus without the texts, phone times and references of some sets."""

        def hidden(utterance: Utterance) -> Utterance:
            return replace(utterance, text="", phones=(), reference="", verbatim=True)

        return replace(self, utterances=[hidden(u) if u.set in sets else u for u in self.utterances])

    def of_set(self, name: str) -> list[Utterance]:
        return [utterance for utterance in self.utterances if utterance.set == name]


def find_file(name: str, root: Path) -> Path:
    """A file that a corpus names: below `root` or, where nothing is there, relative to the current folder."""
    path = root / name
    return Path(name).absolute() if not path.exists() and Path(name).exists() else path


def utterance_id(path: Path) -> str:
    """The id of an utterance that only its recording's name tells: in NFC, without suffix, white space and slashes.

    >>> utterance_id(Path("anna/take 1.mp3"))
    'anna-take_1'
    """
    parts = [part for part in path.parent.parts if part not in (path.anchor, "..")]
    return "_".join(unicodedata.normalize("NFC", "-".join([*parts, path.stem])).split())


def read_table(
    path: Path,
    fix: str,
    expected: str,
    parse: Callable[[str, str], str | None],
    *,
    separator: str | None = None,
    comment: str = "",
    skip: Container[str] = (),
) -> dict[str, str]:
    """Key -> value, of a file with a line "key value" for each.

    Args:
      fix: what to do about a file that cannot be read.
      expected: what a line holds, for messages.
      parse: key, value as written ("" where there is none) -> the value; None where the line is wrong.
      separator: between key and value; None: white space.
      comment: what lines begin with that do not count; "": all count.
      skip: keys whose lines do not count.

    Raises:
      UserError: the file cannot be read, a line is wrong, or a key is there twice.
    """
    table: dict[str, str] = {}
    for number, line in read_lines(path, fix):
        if comment and line.lstrip().startswith(comment):
            continue
        key, *rest = (part.strip() for part in line.strip().split(separator, maxsplit=1))
        value = parse(key, rest[0] if rest else "") if rest or separator is None else None
        if value is None:
            raise UserError(f"{path}:{number}: expected {expected}, found {line.strip()[:60]!r}; correct the line.")
        if key in skip:
            continue
        if key in table:
            raise UserError(f"{path}:{number}: {key} appears twice; delete one of the lines.")
        table[key] = value
    return table
