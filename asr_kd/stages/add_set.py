"""A further test set for a finished run: cuts, lexicon and stamp of its own; nothing that is there changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.corpora.cuts import read_cuts
from asr_kd.corpora.registry import CORPORA
from asr_kd.errors import UserError
from asr_kd.io.files import file_digest
from asr_kd.io.stamp import read_stamp
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.ngram import read_arpa
from asr_kd.lang.units import PhonesAsWords
from asr_kd.settings import to_mapping
from asr_kd.stages.check_utterances import Requirements, check_utterances, refuse
from asr_kd.stages.language import LanguageFiles, language_files, pronunciation_model, read_sentences
from asr_kd.stages.prepare import check_references, describe_set, read_manifest, write_transcripts
from asr_kd.stages.set_cuts import Language, SetWriter, cuts_stamp, stale_set
from asr_kd.workspace.config import DEV, TRAIN, Config, with_settings
from asr_kd.workspace.freshness import transcripts_file
from asr_kd.workspace.sets import add_set as note_set
from asr_kd.workspace.work import Workspace, require

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AddSetResult:
    """The set that was added; `metadata` of its stamp."""

    ran: bool
    name: str
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [describe_set(self.name, self.metadata)]
        if count := self.metadata["without_pronunciation"]:
            lines.append(f"{count} utterances have a word without pronunciation: they cannot be aligned")
        if count := self.metadata["sentences_in_lm_text"]:
            lines.append(
                f"warning: {count} of its sentences are in the text of the language model, which knows them too well"
            )
        if count := self.metadata["training_utterances"]:
            lines.append(f"warning: {count} of its utterances are training utterances")
        if shared := self.metadata["shared_speakers"]:
            lines.append(f"warning: {len(shared)} of its speakers also speak in training or dev: {', '.join(shared)}")
        lines += [f"left out {bad['utterance']}: {bad['reason']}" for bad in self.metadata["left_out"]]
        return "\n".join(lines)


def add_set(
    config: Config, work: Workspace, name: str, parts: Sequence[str], *, corpus_dir: Path, nj: int = 1
) -> AddSetResult:
    """Writes cuts_<name>.jsonl.gz, lexicon_<name>.txt and their stamp, and notes the set for the later stages.

    Words outside the vocabulary are counted: they cannot be recognised.

    Args:
      parts: of the corpus in `corpus_dir`, which is of the same kind as the config's.
      nj: processes that check recordings.

    Raises:
      UserError: stage 1 has not run, the config has a set of this name, or an utterance cannot be used.
    """
    if name in config.sets:
        raise UserError(f"{work.config_path} has a set {name} already; give the new one another name.")
    with_settings(config, {"sets": to_mapping({**config.sets, name: parts})}, "--add-set")  # checks the name
    prepared = require(work.data, work, "prepare")
    learnt, files = prepared["digest"], language_files(config.lang, work.config_path.parent)
    _check_files(work, files, prepared["inputs"])
    manifest = read_manifest(config, work, {name: parts}, corpus_dir)
    stamp, skip = cuts_stamp(config, work, manifest.utterances), config.corpus.on_bad_utterance == "skip"
    reason = stale_set(work, name, stamp, skip=skip)
    old = read_stamp(work.cuts_stamp(name))
    if reason is None and old is not None and old["metadata"]["measured_by"] == learnt:
        work.cuts_stamp(name).touch()
        note_set(work, name, tuple(parts))
        return AddSetResult(False, name, old["metadata"])
    logger.info("adding %s to %s: %s", name, work.data, reason or "the lexicon or language model changed")

    train = _Transcripts.read(work, TRAIN)
    model = pronunciation_model(config.lang, files.lexicon, train.texts)
    phones_recognised = check_references(config, work, manifest.utterances)
    pronunciations = model({word for utterance in manifest.utterances for word in utterance.text.split()})
    requirements = Requirements(
        config.corpus.sampling_rate, pronunciations, files.lexicon, any_word=not phones_recognised
    )
    usable = check_utterances(manifest.utterances, requirements, manifest.problems, nj)
    if not skip:
        refuse(usable.problems, corpus_dir)
    if not usable.sets.get(name):
        raise UserError(f"{corpus_dir}: the parts {', '.join(parts)} have no usable utterance; name others.")

    lang = read_lang(work.lang)
    language = Language(
        read_arpa(work.lm / "G.arpa"),
        lang.phones[1:],
        pronunciations,
        model.guessed,
        PhonesAsWords(pronunciations) if phones_recognised else None,
    )
    known = CORPORA[config.corpus.name].known_speakers
    speakers = train.speakers | _Transcripts.read(work, DEV).speakers if known else set()
    texts = usable.texts(name)
    lm_text = _lm_text(config, work, files, train)
    more = {
        "measured_by": learnt,
        "sentences_in_lm_text": sum(text in lm_text for text in texts),
        "training_utterances": sum(utterance.id in train.ids for utterance in usable.sets[name]),
        "without_pronunciation": sum(not pronunciations.keys() >= set(text.split()) for text in texts),
    }
    write_transcripts(transcripts_file(work, name), manifest, work)
    SetWriter(config, work, usable, language, speakers).write(name, stamp, more)
    note_set(work, name, tuple(parts))
    return AddSetResult(True, name, (read_stamp(work.cuts_stamp(name)) or {})["metadata"])


def _check_files(work: Workspace, files: LanguageFiles, prepared: Mapping[str, str]) -> None:
    """Raises UserError where the lexicon or a language model's file is another one than stage 1 had."""
    present = {name: file_digest(path) for name, path in files.present.items()}
    for name, option in (("lexicon", "--lexicon"), ("lm", "--lm"), ("lm_text", "--lm-text")):
        if present.get(name) != prepared.get(name):
            raise UserError(
                f"{work.data} was prepared with another {option[2:]} file, or with none; give the same {option} as "
                "then, or prepare again first."
            )


def _lm_text(config: Config, work: Workspace, files: LanguageFiles, train: _Transcripts) -> set[str]:
    """The sentences that the language model was estimated from, as far as that is known."""
    if files.lm is not None:
        return set()
    if files.lm_text is None:
        return set(train.texts)
    left_out = (_Transcripts.read(work, name).texts for name in config.scored_sets)
    return set(read_sentences(files.lm_text)).difference(*left_out)


@dataclass(frozen=True)
class _Transcripts:
    """Those of a set that is prepared."""

    ids: frozenset[str]
    texts: list[str]
    speakers: set[str]

    @classmethod
    def read(cls, work: Workspace, name: str) -> _Transcripts:
        cuts = list(read_cuts(work.cuts(name), f"run {work.command('prepare')} again"))
        supervisions = [cut["supervisions"][0] for cut in cuts]
        return cls(
            frozenset(cut["id"] for cut in cuts),
            [supervision["text"] for supervision in supervisions],
            {supervision["speaker"] for supervision in supervisions},
        )
