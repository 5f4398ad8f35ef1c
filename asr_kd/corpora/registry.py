"""The corpora that `corpus.name` can name. A new one is a file with a reader, and a line here."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asr_kd.corpora import cutset, folder, kaldi, librispeech, prompts, table, timit
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import (
    CorpusConfig,
    CutsConfig,
    FolderConfig,
    KaldiConfig,
    LibriSpeechConfig,
    PromptsConfig,
    TableConfig,
    TimitConfig,
)


@dataclass(frozen=True)
class Corpus:
    """A corpus.

    Attributes:
      settings: the class of its settings, a `CorpusConfig`, or where it is: "module:name".
      reader: the function that lists the utterances of its parts, or where it is.
      known_speakers: whether all speakers are known, so that a test speaker who is in training is worth a warning.
      names_sets: whether sets may be named among its settings: {name: cuts, train: FILE}.
      part_hours: hours of speech of the parts of the released corpus, for planning before it is there.
    """

    settings: type[CorpusConfig] | str
    reader: Callable[[ReadRequest[Any]], CorpusManifest] | str
    known_speakers: bool = False
    names_sets: bool = False
    part_hours: Mapping[str, float] = field(default_factory=dict)

    def read(self, request: ReadRequest[Any]) -> CorpusManifest:
        """What its reader lists."""
        reader = pkgutil.resolve_name(self.reader) if isinstance(self.reader, str) else self.reader
        manifest: CorpusManifest = reader(request)
        return manifest


CORPORA: dict[str, Corpus] = {
    "prompts": Corpus(PromptsConfig, prompts.read),
    "folder": Corpus(FolderConfig, folder.read, known_speakers=True, names_sets=True),
    "table": Corpus(TableConfig, table.read, known_speakers=True, names_sets=True),
    "librispeech": Corpus(LibriSpeechConfig, librispeech.read, known_speakers=True, part_hours=librispeech.PART_HOURS),
    "cuts": Corpus(CutsConfig, cutset.read, known_speakers=True, names_sets=True),
    "kaldi": Corpus(KaldiConfig, kaldi.read, known_speakers=True, names_sets=True),
    "timit": Corpus(TimitConfig, timit.read, known_speakers=True),
}
