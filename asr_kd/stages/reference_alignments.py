"""Times of words and phones that others made: TextGrids of any aligner, or the hand-made ones of TIMIT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asr_kd.alignment.textgrid import read_textgrid
from asr_kd.alignment.times import Interval, Times
from asr_kd.corpora.timit_times import Span, mapped, read_phone_map, read_phones, read_words
from asr_kd.errors import UserError
from asr_kd.lang.lexicon import SILENCE
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


@dataclass(frozen=True)
class Reference:
    """One utterance's, not yet read."""

    paths: tuple[Path, ...]
    read: Callable[[], Times]


def find_references(config: Config, work: Workspace, form: str, directory: Path) -> dict[str, Reference]:
    """Utterance -> its reference, for all files of that form below a folder.

    Args:
      form: of FORMS.

    Raises:
      UserError: there is none. Reading one raises it where the file is malformed.
    """
    found = FORMS[form](config, work, directory)
    if not found:
        raise UserError(f"{directory}: there is no {_SUFFIXES[form]} file in it; name the folder that holds them.")
    return dict(sorted(found.items()))


def _textgrids(config: Config, work: Workspace, directory: Path) -> dict[str, Reference]:
    return {
        path.stem: Reference((path,), lambda path=path: read_textgrid(path))  # type: ignore[misc]
        for path in directory.rglob("*.TextGrid")
    }


def _timit(config: Config, work: Workspace, directory: Path) -> dict[str, Reference]:
    table = read_phone_map(work.config_path.parent, config.corpus.phone_set)
    found = {}
    for phones in directory.rglob("*"):
        if phones.suffix.upper() != ".PHN":
            continue
        words = next((p for p in phones.parent.glob(f"{phones.stem}.*") if p.suffix.upper() == ".WRD"), None)
        name = f"{phones.parent.name}-{phones.stem}".upper()

        def read(phones: Path = phones, words: Path | None = words, name: str = name) -> Times:
            of_phones = _intervals(mapped(read_phones(phones, table, None), table), config)
            of_words = _intervals(read_words(words, None), config) if words is not None else []
            # where what was aligned is a transcript of phones, they are our words too
            by_phones = config.corpus.transcripts == "phones" and config.alignment.labels != "words"
            both = of_phones if by_phones else of_words
            return Times(name, of_phones[-1].end, both, of_phones)

        found[name] = Reference((phones,) if words is None else (phones, words), read)
    return found


def _intervals(spans: list[Span], config: Config) -> list[Interval]:
    rate = config.corpus.sampling_rate
    return [
        Interval(span.first / rate, span.end / rate, "" if span.label == SILENCE else span.label.upper())
        for span in spans
    ]


FORMS: dict[str, Callable[[Config, Workspace, Path], dict[str, Reference]]] = {"textgrid": _textgrids, "timit": _timit}
_SUFFIXES = {"textgrid": ".TextGrid", "timit": ".PHN"}
