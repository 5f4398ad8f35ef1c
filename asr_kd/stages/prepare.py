"""Stage 1: reads and checks a corpus, then writes cuts, lexicon and language model: all of them or none.

Everything is checked before anything is written. Stamps are deleted first and written last, so that a killed run is
done again. The lexicon and the language model depend on train and dev alone (and on the test transcripts as far as
those are left out of a text); each set's cuts have a stamp of their own. So a further test set can be added to a
finished run: with cuts, lexicon and stamp of its own, and nothing that is there changes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.corpora.cuts import audio_fingerprints, read_cuts, relative_name
from asr_kd.corpora.listing import CorpusManifest
from asr_kd.corpora.registry import CORPORA
from asr_kd.corpora.transcripts import describe_dropped
from asr_kd.errors import UserError, some_of
from asr_kd.io.files import digest_of, file_digest, replacing_file
from asr_kd.io.fingerprint import Fingerprint, fingerprint
from asr_kd.io.folders import replacing_folder
from asr_kd.io.formatting import plural
from asr_kd.io.stamp import STAMP, Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import LANG_FILES, MANY_UNKNOWN, make_lang, read_lang, write_lang
from asr_kd.lang.ngram import Arpa, read_arpa, write_arpa
from asr_kd.lang.units import Pronunciations, normaliser, pronunciation_model
from asr_kd.settings import to_mapping
from asr_kd.stages.check_utterances import CorpusSource, UsableUtterances
from asr_kd.stages.current import lang_settings
from asr_kd.stages.language import LanguageFiles, check_vocabulary, language_model, read_sentences
from asr_kd.stages.set_cuts import (
    SetWriter,
    cuts_stamp,
    describe_guesses,
    describe_redrawn,
    guesses,
    stale_set,
    write_guesses,
)
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.config_files import with_settings
from asr_kd.workspace.freshness import note_files
from asr_kd.workspace.sets import add_set as note_set
from asr_kd.workspace.sets import forget_added_sets, prepared
from asr_kd.workspace.work import Workspace, require

_RESAMPLED = "{name}: {} converted from another sampling rate"
_VERSION = 3  # raise it when the same files give other words or pronunciations

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareResult:
    """What is in data/; `metadata` as `asr_kd.workspace.sets.prepared` gives it."""

    ran: bool
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        lines = list(self.metadata.get("notes", ()))
        lines += [line for name, entries in self.metadata["sets"].items() for line in _describe_set(name, entries)]
        lm = self.metadata["lm"]
        lines.append(
            f"language model: order {lm['order']}, {plural(lm['words'], 'word')}, {plural(lm['ngrams'], 'n-gram')}; "
            f"perplexity {lm['perplexity']['dev']:.1f} on dev"
        )
        if left_out := lm["sentences_left_out"]:
            lines.append(f"its text was read without {plural(left_out, 'sentence')} that scored sets have too")
        if self.metadata["guessed_pronunciations"]:
            lines.append(describe_guesses(self.metadata))
        if not_speech := self.metadata["not_speech"]:
            lines.append(f"no speech in {plural(len(not_speech), 'recording')}, left out: {some_of(not_speech)}")
        if incomplete := self.metadata["known_missing"]:
            lines.append(f"left out {plural(len(incomplete), 'utterance')} released without recording or transcript")
        lines += [
            f"warning: {name} was added with another lexicon or language model; add it again: asr-kd prepare --add-set"
            for name in self.metadata["outdated_sets"]
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class AddSetResult:
    """The set that was added; `metadata` of its stamp."""

    ran: bool
    name: str
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        return "\n".join(_describe_set(self.name, self.metadata))


def _describe_set(name: str, entries: Mapping[str, Any]) -> list[str]:
    """Lines on a set, from its stamp's metadata."""
    utterances, minutes = plural(entries["utterances"], "utterance"), f"{entries['minutes']:.1f} minutes"
    if entries.get("untranscribed"):
        lines = [f"{name}: {utterances} without transcripts, {minutes}"]
        if entries.get("resampled"):
            lines.append(_RESAMPLED.format(plural(entries["resampled"], "utterance"), name=name))
        if shared := entries["shared_speakers"]:
            lines.append(
                f"warning: {plural(len(shared), 'speaker')} of {name} can be heard in a test set too: "
                f"{', '.join(shared)}"
            )
        return lines + [f"left out {bad['utterance']}: {bad['reason']}" for bad in entries["left_out"]]
    lines = [f"{name}: {utterances}, {plural(entries['words'], 'word')}, {minutes}, {_describe_oov(entries)}"]
    unknown = entries["oov_words"] / max(1, entries["words"])
    if unknown >= MANY_UNKNOWN and name != TRAIN:
        lines.append(
            f"warning: {unknown:.0%} of the words of {name} are outside the vocabulary, and cannot be recognised; more "
            "text adds words: lang.lm_text, with lang.lm_transcripts: true"
        )
    notes = {
        "without_pronunciation": ("utterance", "{name}: {} cannot be aligned, as a word has no pronunciation"),
        "sentences_in_lm_text": ("sentence", "warning: the language model was estimated from {} of {name}, which it "
                                 "knows too well"),
        "training_utterances": ("utterance", "warning: training has {} of {name} too"),
        "resampled": ("utterance", _RESAMPLED),
    }  # fmt: skip
    lines += [
        note.format(plural(entries[key], noun), name=name) for key, (noun, note) in notes.items() if entries.get(key)
    ]
    lines += [f"{name}: {line}" for line in describe_dropped(entries.get("dropped", {}), entries.get("language", "en"))]
    if shared := entries["shared_speakers"]:
        lines.append(
            f"warning: {plural(len(shared), 'speaker')} of {name} can be heard in training or dev too: "
            f"{', '.join(shared)}"
        )
    lines += entries.get("notes", ())
    return lines + [f"left out {bad['utterance']}: {bad['reason']}" for bad in entries["left_out"]]


def _describe_oov(entries: Mapping[str, Any]) -> str:
    """Returns how many of a set's words are outside the vocabulary, with some of them."""
    count, frequent = entries["oov_words"], entries["most_frequent_oov"]
    different = entries.get("different_oov", len(frequent))  # stamps of earlier versions do not have it
    ones = f" ({plural(different, 'different one')})" if different < count else ""
    some = f" ({some_of(frequent, count=different)})" if frequent else ""
    return f"{plural(count, 'word')}{ones} outside the vocabulary{some}"


def prepare(
    config: Config, work: Workspace, *, corpus_dir: Path, nj: int = 1, allow_pipes: bool = False
) -> PrepareResult:
    """Makes data/cuts_<set>.jsonl.gz of the config's sets, data/lang and data/lm/G.arpa.

    Args:
      corpus_dir: the corpus as stage 0 left it, or one's own recordings.
      nj: processes that check recordings.
      allow_pipes: run the commands that the corpus names for audio.

    Raises:
      UserError: the corpus is malformed, an utterance cannot be used (and is not to be skipped), or a set is empty.
    """
    source = CorpusSource(config, work, corpus_dir, nj, allow_pipes)
    files = LanguageFiles.of(config.lang, work.config_path.parent)
    manifest = source.read(config.all_parts)
    forget_added_sets(config, work)
    recordings = {name: audio_fingerprints(manifest.of_set(name), work.root) for name in config.all_parts}
    files_read = _files_read(work, manifest, recordings)
    stamps = {name: cuts_stamp(config, work, manifest.of_set(name), recordings[name]) for name in config.all_parts}
    stamp = _stamp(config, files, manifest, stamps)
    relearn = _stale_language(work, stamp)
    stale = {name: why for name in stamps if (why := relearn or stale_set(config, work, name, stamps[name]))}
    if not stale:
        note_files(work, files_read)  # the contents are the same, but the times may be others
        return PrepareResult(False, _prepared(config, work))
    logger.info("preparing %s of %s: %s", ", ".join(stale), work.data, next(iter(stale.values())))

    source.require_training(manifest)
    model = pronunciation_model(config.lang, files.lexicon, [u.text for u in manifest.of_set(TRAIN)])
    usable = source.check(manifest, stale, model)
    if relearn:
        scored = (sentence for name in config.scored_sets for sentence in usable.sentences(name))
        scratch = work.root if files.lm_text else None
        arpa, lm_metadata = language_model(config.lang, files, usable.sentences(TRAIN), scored, scratch)
        pronunciations = usable.pronunciations | (usable.phones or model)(arpa.spoken_words)
        check_vocabulary(arpa.spoken_words, pronunciations, files, (usable.phones or model).lack)
    else:
        arpa = read_arpa(work.lm / "G.arpa")
    writer = SetWriter(config, work, usable, model, arpa, model.symbols, _learnt_speakers(config, manifest))
    if redrawn := describe_redrawn(config, work, usable.sets, corpus_dir):
        logger.warning("%s", redrawn)
    work.data.mkdir(parents=True, exist_ok=True)
    if relearn:
        (work.data / STAMP).unlink(missing_ok=True)
    for name in stale:
        more = {"shared_speakers": _also_tested(config, manifest, name)} if name in config.untranscribed else None
        writer.write(name, stamps[name], more)
    note_files(work, files_read)
    if relearn:
        _write_language(work, usable, arpa, pronunciations, model.symbols)
        metadata = {
            "lm": lm_metadata,
            "guessed_pronunciations": guesses(model, arpa.spoken_words),
            "not_speech": manifest.not_speech,
            "known_missing": manifest.known_missing,
            "notes": manifest.notes,
        }
        with replacing_file(work.data / STAMP) as path:
            stamp.write(path, metadata)
    return PrepareResult(True, _prepared(config, work))


def _prepared(config: Config, work: Workspace) -> dict[str, Any]:
    """Returns what `prepared` does, and lists the pronunciations that were guessed."""
    metadata = prepared(config, work)
    write_guesses(work, metadata["guessed_pronunciations"])
    return metadata


def _learnt_speakers(config: Config, manifest: CorpusManifest) -> set[str]:
    """The speakers of training and dev; none where a corpus's speakers are not known."""
    if not CORPORA[config.corpus.name].known_speakers:
        return set()
    return {utterance.speaker for utterance in manifest.utterances if utterance.set in (TRAIN, DEV)}


def _also_tested(config: Config, manifest: CorpusManifest, name: str) -> list[str]:
    """The speakers of a set without transcripts who speak in a test set too; none where speakers are not known."""
    if not CORPORA[config.corpus.name].known_speakers:
        return []
    tested = {u.speaker for u in manifest.utterances if u.set in config.scored_sets and u.set != DEV}
    return sorted(tested & {utterance.speaker for utterance in manifest.of_set(name)})


def _files_read(
    work: Workspace, manifest: CorpusManifest, recordings: Mapping[str, Mapping[str, Fingerprint | None]]
) -> dict[str, Fingerprint]:
    """All files of the corpus, for `asr_kd.workspace.freshness`."""
    files = {relative_name(file, work.root): fingerprint(file) for file in manifest.transcripts}
    return files | {name: file for of_set in recordings.values() for name, file in of_set.items() if file is not None}


def _stamp(config: Config, files: LanguageFiles, manifest: CorpusManifest, sets: Mapping[str, Stamp]) -> Stamp:
    """Returns the stamp of the lexicon and the language model."""
    inputs = {name: sets[name].digest for name in (TRAIN, DEV)}
    inputs |= {name: file_digest(path) for name, path in files.present.items()}
    if files.lm is None and files.lm_text is not None:
        scored = {utterance.text for utterance in manifest.utterances if utterance.set in config.scored_sets}
        inputs["scored transcripts"] = digest_of(sorted(scored))
    return Stamp("prepare", {"lang": lang_settings(config)}, inputs, version=_VERSION)


def _stale_language(work: Workspace, stamp: Stamp) -> str | None:
    if (reason := stale_reason(work.data, stamp)) is not None:
        return reason
    files = [*(work.lang / name for name in (STAMP, *LANG_FILES)), work.lm / "G.arpa"]
    missing = [path for path in files if not path.exists()]
    return f"{missing[0]} is gone" if missing else None


def _write_language(
    work: Workspace, usable: UsableUtterances, arpa: Arpa, pronunciations: Pronunciations, symbols: Sequence[str]
) -> None:
    """data/lang and data/lm: nothing of the test sets is in them, so that models do not depend on those."""
    vocabulary = arpa.spoken_words
    learnt = {word for name in (TRAIN, DEV) for text in usable.texts(name) for word in text.split()}
    lang = make_lang(vocabulary, {word: pronunciations[word] for word in vocabulary | learnt}, symbols)
    contents = {"words": digest_of(lang.words), "lexicon": digest_of(sorted(lang.pronunciations.items()))}
    with replacing_folder(work.lang, Stamp("lang", {}, contents)) as path:
        write_lang(path, lang)
    with replacing_folder(work.lm, Stamp("lm", {}, {})) as path:
        write_arpa(path / "G.arpa", arpa)


def add_set(
    config: Config,
    work: Workspace,
    name: str,
    parts: Sequence[str],
    *,
    corpus_dir: Path,
    nj: int = 1,
    allow_pipes: bool = False,
) -> AddSetResult:
    """Writes cuts_<name>.jsonl.gz, lexicon_<name>.txt and their stamp, and notes the set for the later stages.

    Words outside the vocabulary are counted: they cannot be recognised.

    Args:
      parts: of the corpus in `corpus_dir`, which is of the same kind as the config's.
      nj: processes that check recordings.
      allow_pipes: run the commands that the corpus names for audio.

    Raises:
      UserError: stage 1 has not run, the config has a set of this name, or an utterance cannot be used.
    """
    if name in config.all_parts:
        raise UserError(f"{work.config_path} has a set {name} already; give the new one another name.")
    with_settings(config, {"sets": to_mapping({**config.sets, name: parts})}, "--add-set")  # checks the name
    stage_one, files = require(work.data, work, "prepare"), LanguageFiles.of(config.lang, work.config_path.parent)
    _check_files(work, files, stage_one["inputs"])
    source = CorpusSource(config, work, corpus_dir, nj, allow_pipes)
    manifest = source.read({name: parts})
    recordings = audio_fingerprints(manifest.utterances, work.root)
    files_read = _files_read(work, manifest, {name: recordings})
    stamp = cuts_stamp(config, work, manifest.utterances, recordings)
    reason = stale_set(config, work, name, stamp)
    old = read_stamp(work.cuts_stamp(name))
    if reason is None and old is not None and old["metadata"]["measured_by"] == stage_one["digest"]:
        note_files(work, files_read, name)
        note_set(work, name, tuple(parts))
        return AddSetResult(False, name, old["metadata"])
    logger.info("adding %s to %s: %s", name, work.data, reason or "the lexicon or language model changed")

    train = _transcripts(work, TRAIN)
    train_texts = [utterance["text"] for utterance in train]
    model = pronunciation_model(config.lang, files.lexicon, train_texts)
    usable = source.check(manifest, [name], model, any_word=True)
    learnt_from = [*train, *_transcripts(work, DEV)] if CORPORA[config.corpus.name].known_speakers else []
    speakers, train_ids = {utterance["speaker"] for utterance in learnt_from}, {utterance["id"] for utterance in train}
    for untranscribed in config.untranscribed:
        if work.cuts(untranscribed).exists():
            train_ids |= {utterance["id"] for utterance in _transcripts(work, untranscribed)}
    texts = usable.texts(name)
    lm_text = _in_lm_text(config, work, files, train_texts, set(texts))
    more = {
        "measured_by": stage_one["digest"],
        "notes": manifest.notes,
        "sentences_in_lm_text": sum(text in lm_text for text in texts),
        "training_utterances": sum(utterance.id in train_ids for utterance in usable.sets[name]),
        "without_pronunciation": sum(not usable.pronunciations.keys() >= set(text.split()) for text in texts),
    }
    arpa, symbols = read_arpa(work.lm / "G.arpa"), read_lang(work.lang).phones[1:]
    metadata = SetWriter(config, work, usable, model, arpa, symbols, speakers).write(name, stamp, more)
    note_files(work, files_read, name)
    note_set(work, name, tuple(parts))
    _prepared(config, work)
    return AddSetResult(True, name, metadata)


def _check_files(work: Workspace, files: LanguageFiles, prepared: Mapping[str, str]) -> None:
    """Raises UserError where the lexicon or a language model's file is another one than stage 1 had."""
    present = {name: file_digest(path) for name, path in files.present.items()}
    for name, option in (("lexicon", "--lexicon"), ("lm", "--lm"), ("lm_text", "--lm-text")):
        if present.get(name) != prepared.get(name):
            raise UserError(
                f"{work.data} was prepared with another {option[2:]} file, or with none; give the same {option} as "
                "then, or prepare again first."
            )


def _in_lm_text(
    config: Config, work: Workspace, files: LanguageFiles, train_texts: Sequence[str], texts: set[str]
) -> set[str]:
    """Returns those of `texts` that the language model was estimated from, as far as that is known."""
    if files.lm is not None:
        return set()
    if files.lm_text is None:
        return texts.intersection(train_texts)
    left_out = {utterance["text"] for name in config.scored_sets for utterance in _transcripts(work, name)}
    return texts.intersection(read_sentences(files.lm_text, normaliser(config.lang))) - left_out


def _transcripts(work: Workspace, name: str) -> list[dict[str, Any]]:
    """The supervisions of a set that is prepared."""
    fix = f"delete it, then run {work.command('prepare')}"
    return [cut["supervisions"][0] for cut in read_cuts(work.cuts(name), fix)]
