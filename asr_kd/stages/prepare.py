"""Stage 1: reads and checks a corpus, then writes cuts, lexicon and language model: all of them or none.

Everything is checked before anything is written. Stamps are deleted first and written last, so that a killed run is
done again. The lexicon and the language model depend on train and dev alone (and on the test
transcripts as far as those are left out of a text); each set's cuts have a stamp of their own.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.corpora.cuts import relative_name
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance
from asr_kd.corpora.registry import CORPORA
from asr_kd.errors import UserError, some_of
from asr_kd.io.files import digest_of, file_digest, replacing_file
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import STAMP, Stamp, stale_reason
from asr_kd.lang.lexicon import make_lang, write_lang
from asr_kd.lang.ngram import read_arpa, write_arpa
from asr_kd.lang.settings import LangConfig
from asr_kd.lang.units import PhonesAsWords
from asr_kd.stages.check_utterances import Requirements, UsableUtterances, check_utterances, refuse
from asr_kd.stages.language import (
    LanguageFiles,
    LanguageModel,
    check_vocabulary,
    language_files,
    language_model,
    pronunciation_model,
)
from asr_kd.stages.set_cuts import Language, SetWriter, cuts_stamp, stale_set
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.freshness import TRANSCRIPTS
from asr_kd.workspace.sets import prepared
from asr_kd.workspace.work import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareResult:
    """What is in data/; `metadata` as `asr_kd.workspace.sets.prepared` gives it."""

    ran: bool
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [describe_set(name, entries) for name, entries in self.metadata["sets"].items()]
        lm = self.metadata["lm"]
        lines.append(
            f"language model: order {lm['order']}, {lm['words']} words, {lm['ngrams']} n-grams; "
            f"perplexity {lm['perplexity']['dev']:.1f} on dev"
        )
        if left_out := lm["sentences_left_out"]:
            lines.append(f"{left_out} sentences of its text are transcripts of scored sets and were left out")
        if guessed := self.metadata["guessed_pronunciations"]:
            lines.append(
                f"{len(guessed)} words are in no lexicon: letter-to-sound rules gave their pronunciations (listed in "
                "the stamps of data/)"
            )
        if shared := self.metadata["shared_speakers"]:
            lines.append(
                f"warning: {len(shared)} speakers of test sets also speak in training or dev: {', '.join(shared)}"
            )
        if self.metadata["not_speech"]:
            lines.append(f"no speech in {len(self.metadata['not_speech'])} recordings, left out")
        lines += [
            f"warning: {name} was added with another lexicon or language model; add it again: asr-kd prepare --add-set"
            for name in self.metadata["outdated_sets"]
        ]
        lines += [f"left out {bad['utterance']}: {bad['reason']}" for bad in self.metadata["left_out"]]
        return "\n".join(lines)


def describe_set(name: str, entries: Mapping[str, Any]) -> str:
    """A line on a set, from its stamp's metadata."""
    some = f" ({some_of(entries['most_frequent_oov'])})" if entries["most_frequent_oov"] else ""
    return (
        f"{name}: {entries['utterances']} utterances, {entries['words']} words, {entries['minutes']:.1f} minutes, "
        f"{entries['oov_words']} words outside the vocabulary{some}"
    )


def prepare(config: Config, work: Workspace, *, corpus_dir: Path, nj: int = 1) -> PrepareResult:
    """Makes data/cuts_<set>.jsonl.gz of the config's sets, data/lang and data/lm/G.arpa.

    Args:
      corpus_dir: the corpus as stage 0 left it, or one's own recordings.
      nj: processes that check recordings.

    Raises:
      UserError: the corpus is malformed, an utterance cannot be used (and is not to be skipped), or a set is empty.
    """
    manifest = read_manifest(config, work, config.sets, corpus_dir)
    files = language_files(config.lang, work.config_path.parent)
    stamps = {name: cuts_stamp(config, work, manifest.of_set(name)) for name in config.sets}
    stamp = _stamp(config, files, manifest, stamps)
    skip = config.corpus.on_bad_utterance == "skip"
    relearn = _stale_language(work, stamp)
    stale = {name: why for name in stamps if (why := relearn or stale_set(work, name, stamps[name], skip=skip))}
    if not stale:
        for path in (work.data / STAMP, *map(work.cuts_stamp, stamps)):
            path.touch()  # the files of the corpus are still the same, whatever their times
        return PrepareResult(False, prepared(config, work))
    logger.info("preparing %s of %s: %s", ", ".join(stale), work.data, next(iter(stale.values())))

    model = pronunciation_model(config.lang, files.lexicon, [u.text for u in manifest.of_set(TRAIN)])
    utterances = [utterance for utterance in manifest.utterances if utterance.set in stale]
    phones_recognised = check_references(config, work, utterances)
    pronunciations = model({word for utterance in utterances for word in utterance.text.split()})
    requirements = Requirements(config.corpus.sampling_rate, pronunciations, files.lexicon)
    usable = check_utterances(utterances, requirements, [p for p in manifest.problems if p.set in stale], nj)
    if not skip:
        refuse(usable.problems, corpus_dir)
    for problem in usable.problems:
        logger.warning("left out: %s: %s", problem.utterance, problem.reason)
    for name in stale:
        if not usable.sets.get(name):
            raise UserError(f"{work.config_path}: the {name} set has no usable utterance; give it some.")

    phones = PhonesAsWords(pronunciations) if phones_recognised else None
    if relearn:
        lm = _language_model(config, files, usable, phones)
        pronunciations = pronunciations | (phones or model)(lm.words)
        check_vocabulary(lm.words, pronunciations, files, oov_g2p=config.lang.guess_pronunciations)
    else:
        lm = LanguageModel(read_arpa(work.lm / "G.arpa"))
    language = Language(lm.arpa, model.symbols, pronunciations, model.guessed, phones)
    writer = SetWriter(config, work, usable, language, learnt_speakers(config, manifest))
    work.data.mkdir(parents=True, exist_ok=True)
    if relearn:
        (work.data / STAMP).unlink(missing_ok=True)
    for name in stale:
        writer.write(name, stamps[name])
    write_transcripts(work.data / TRANSCRIPTS, manifest, work)
    if relearn:
        _write_language(writer, lm)
        with replacing_file(work.data / STAMP) as path:
            stamp.write(path, _metadata(writer, lm, manifest))
    return PrepareResult(True, prepared(config, work))


def read_manifest(
    config: Config, work: Workspace, parts: Mapping[str, Sequence[str]], corpus_dir: Path
) -> CorpusManifest:
    """Lists the utterances of some sets.

    Args:
      parts: set -> the corpus's parts.

    Raises:
      UserError: there is no such folder, or the corpus is malformed.
    """
    if not corpus_dir.is_dir():
        raise UserError(f"{corpus_dir}: there is no such folder; fetch the corpus first (stage 0).")
    request = ReadRequest(
        corpus_dir,
        work.config_path.parent,
        config.corpus,
        parts,
        config.seed,
        words_for_phones=config.alignment.labels == "words",
    )
    return CORPORA[config.corpus.name].read(request)


def check_references(config: Config, work: Workspace, utterances: Sequence[Utterance]) -> bool:
    """Whether phones are recognised where the transcripts are words.

    Raises:
      UserError: that needs a lexicon of phones, and the config has other units.
    """
    referenced = any(utterance.reference for utterance in utterances)
    if referenced and config.lang.units != "phones":
        raise UserError(
            f"{work.config_path}: alignment.labels: words needs a lexicon of phones (lang.units: phones), "
            f"not {config.lang.units}."
        )
    return referenced


def learnt_speakers(config: Config, manifest: CorpusManifest) -> set[str]:
    """The speakers of training and dev; none where a corpus's speakers are not known."""
    if not CORPORA[config.corpus.name].known_speakers:
        return set()
    return {utterance.speaker for utterance in manifest.utterances if utterance.set in (TRAIN, DEV)}


def write_transcripts(path: Path, manifest: CorpusManifest, work: Workspace) -> None:
    """The names of the transcripts' files, for `asr_kd.workspace.freshness`."""
    names = [relative_name(transcripts, work.root) for transcripts in manifest.transcripts]
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")


def _stamp(config: Config, files: LanguageFiles, manifest: CorpusManifest, sets: Mapping[str, Stamp]) -> Stamp:
    """Of the lexicon and the language model."""
    lang = dataclasses.replace(config.lang, lexicon=LangConfig.lexicon, lm="", lm_text="")  # files count by content
    inputs = {name: sets[name].digest for name in (TRAIN, DEV)}
    inputs |= {name: file_digest(path) for name, path in files.present.items()}
    if files.lm is None and files.lm_text is not None:
        inputs["scored transcripts"] = digest_of(sorted({u.text for u in manifest.utterances if u.set != TRAIN}))
    return Stamp("prepare", {"lang": lang}, inputs)


def _stale_language(work: Workspace, stamp: Stamp) -> str | None:
    if (reason := stale_reason(work.data, stamp)) is not None:
        return reason
    missing = [path for path in (work.lang / STAMP, work.lm / "G.arpa") if not path.exists()]
    return f"{missing[0]} is gone" if missing else None


def _language_model(
    config: Config, files: LanguageFiles, usable: UsableUtterances, phones: PhonesAsWords | None
) -> LanguageModel:
    texts = {
        name: [text if phones is None else phones.sentence(text) for text in usable.texts(name)] for name in usable.sets
    }
    scored = (text for name in texts if name != TRAIN for text in texts[name])
    return language_model(config.lang, files, texts[TRAIN], scored)


def _write_language(writer: SetWriter, lm: LanguageModel) -> None:
    """data/lang and data/lm: nothing of the test sets is in them, so that models do not depend on those."""
    work, language = writer.work, writer.language
    learnt = {word for name in (TRAIN, DEV) for text in writer.usable.texts(name) for word in text.split()}
    words = {word: language.pronunciations[word] for word in lm.words | learnt}
    lang = make_lang(lm.words, words, language.symbols)
    contents = {"words": digest_of(lang.words), "lexicon": digest_of(sorted(lang.pronunciations.items()))}
    with replacing_folder(work.lang, Stamp("lang", {}, contents)) as path:
        write_lang(path, lang)
    with replacing_folder(work.lm, Stamp("lm", {}, {})) as path:
        write_arpa(path / "G.arpa", lm.arpa)


def _metadata(writer: SetWriter, lm: LanguageModel, manifest: CorpusManifest) -> dict[str, Any]:
    return {
        "lm": {
            "order": lm.arpa.order,
            "words": len(lm.words),
            "ngrams": sum(map(len, lm.arpa.probabilities)),
            "ngrams_before_pruning": lm.full_ngrams,
            "sentences_left_out": lm.left_out,
        },
        "guessed_pronunciations": writer.language.guesses(lm.words),
        "not_speech": manifest.not_speech,
        "known_missing": manifest.known_missing,
    }
