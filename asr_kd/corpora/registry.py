"""The corpora that `corpus.name` can name. A new one is a file with a reader, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asr_kd.corpora import folder, librispeech, prompts, timit
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import CorpusConfig, FolderConfig, LibriSpeechConfig, PromptsConfig, TimitConfig


@dataclass(frozen=True)
class Corpus:
    """A corpus's settings, and the function that lists its utterances."""

    settings: type[CorpusConfig]
    read: Callable[[ReadRequest[Any]], CorpusManifest]


CORPORA: dict[str, Corpus] = {
    "prompts": Corpus(PromptsConfig, prompts.read),
    "folder": Corpus(FolderConfig, folder.read),
    "librispeech": Corpus(LibriSpeechConfig, librispeech.read),
    "timit": Corpus(TimitConfig, timit.read),
}
