"""Reference times of words and phones: TextGrids of any aligner, or the manual ones of TIMIT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asr_kd.alignment.textgrid import read_textgrid
from asr_kd.alignment.times import Interval, Times
from asr_kd.corpora.settings import TimitConfig
from asr_kd.corpora.timit_times import Span, mapped, read_phone_map, read_phones, read_words
from asr_kd.errors import UserError
from asr_kd.lang.lexicon import SILENCE
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


@dataclass(frozen=True)
class Reference:
    """The reference times of one utterance, not read yet."""

    paths: tuple[Path, ...]
    read: Callable[[], Times]


def find_references(config: Config, work: Workspace, form: str, directory: Path) -> dict[str, Reference]:
    """Utterance -> its reference, for all files of that form below a folder.

    Args:
      form: of FORMS.

    Raises:
      UserError: there is no such file. Reading a reference raises it where the file is malformed.
    """
    references = FORMS[form](config, work, directory)
    if not references:
        raise UserError(f"{directory}: there is no {_SUFFIXES[form]} file in it; name the folder that holds them.")
    return dict(sorted(references.items()))


def _textgrids(config: Config, work: Workspace, directory: Path) -> dict[str, Reference]:
    return {
        path.stem: Reference((path,), lambda path=path: read_textgrid(path))  # type: ignore[misc]
        for path in directory.rglob("*.TextGrid")
    }


def _timit(config: Config, work: Workspace, directory: Path) -> dict[str, Reference]:
    corpus = config.corpus
    if not isinstance(corpus, TimitConfig):
        raise UserError(f"{work.config_path}: --compare timit needs corpus.name: timit, not {corpus.name}.")
    table = read_phone_map(work.config_path.parent, corpus.phone_set)
    # where the aligned transcripts are of phones, these are the words of our alignment, too
    by_phones = corpus.transcripts == "phones" and config.alignment.labels != "words"
    references = {}
    for phones in directory.rglob("*"):
        if phones.suffix.upper() != ".PHN":
            continue
        words = next((p for p in phones.parent.glob(f"{phones.stem}.*") if p.suffix.upper() == ".WRD"), None)
        name = f"{phones.parent.name}-{phones.stem}".upper()

        def read(phones: Path = phones, words: Path | None = words, name: str = name) -> Times:
            of_phones = _intervals(mapped(read_phones(phones, table, None), table), corpus.sampling_rate)
            of_words = _intervals(read_words(words, None), corpus.sampling_rate) if words is not None else []
            return Times(name, of_phones[-1].end, of_phones if by_phones else of_words, of_phones)

        references[name] = Reference((phones,) if words is None else (phones, words), read)
    return references


def _intervals(spans: list[Span], rate: int) -> list[Interval]:
    return [
        Interval(span.first / rate, span.end / rate, "" if span.label == SILENCE else span.label.upper())
        for span in spans
    ]


FORMS: dict[str, Callable[[Config, Workspace, Path], dict[str, Reference]]] = {"textgrid": _textgrids, "timit": _timit}
_SUFFIXES = {"textgrid": ".TextGrid", "timit": ".PHN"}
