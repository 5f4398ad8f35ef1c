"""Stage 1: reads and checks a corpus, then writes cuts, lexicon and language model: all of them or none.

Everything is checked before anything is written. The stamp goes first and comes back last, so that a run killed
between two of the files is done again.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.corpora import folder, librispeech, prompts, timit
from asr_kd.corpora.audio import BadAudio, check_audio
from asr_kd.corpora.cuts import audio_digest, transcript_digests, write_cuts, write_transcripts
from asr_kd.corpora.listing import SETS, CorpusManifest, InvalidUtterance, Utterance
from asr_kd.errors import UserError
from asr_kd.io.files import digest_of, file_digest, replacing_file
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import STAMP, Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import make_lang, write_lang
from asr_kd.lang.ngram import perplexity, write_arpa
from asr_kd.lang.units import Pronunciations
from asr_kd.stages.language import (
    LanguageModel,
    PhonesAsWords,
    Sources,
    check_vocabulary,
    language_model,
    sources,
    speller,
)
from asr_kd.workspace.config import Config, to_mapping
from asr_kd.workspace.executor import parallel_map
from asr_kd.workspace.freshness import TRANSCRIPTS
from asr_kd.workspace.work import Workspace

Reader = Callable[[Path, Path, Config], CorpusManifest]  # of the corpus's folder and the config's
READERS: Mapping[str, Reader] = {
    "prompts": lambda corpus, conf, config: prompts.read(corpus, conf),
    "folder": lambda corpus, conf, config: folder.read(corpus, conf),
    "librispeech": librispeech.read,
    "timit": timit.read,
}

FRAMES_PER_PHONE = 3  # one per HMM state
FRAME_SHIFT = 0.01  # seconds
_PIECE = 200  # files that one process checks at a time
_NAMED = 5  # bad utterances that an error names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareResult:
    """What is in data/; `metadata` are its stamp's."""

    made: bool
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [
            f"{name}: {f['utterances']} utterances, {f['words']} words, {f['minutes']:.1f} minutes, "
            f"{f['oov_words']} words outside the vocabulary"
            for name, f in self.metadata["sets"].items()
        ]
        lm = self.metadata["lm"]
        lines.append(
            f"language model: order {lm['order']}, {lm['words']} words, {lm['ngrams']} n-grams; "
            f"perplexity {lm['perplexity']['dev']:.1f} on dev"
        )
        if left_out := lm["sentences_left_out"]:
            lines.append(f"{left_out} sentences of its text are dev's or test's, and were left out of it")
        if guessed := self.metadata["guessed_pronunciations"]:
            lines.append(
                f"{len(guessed)} words are in no lexicon and said as their letters suggest (listed in data/{STAMP})"
            )
        if shared := self.metadata["shared_speakers"]:
            names = ", ".join(shared)
            lines.append(f"warning: {len(shared)} speakers of the test set are heard in training or dev: {names}")
        if self.metadata["not_speech"]:
            lines.append(f"no speech in {len(self.metadata['not_speech'])} recordings, left out")
        lines += [f"left out {bad['utterance']}: {bad['reason']}" for bad in self.metadata["left_out"]]
        return "\n".join(lines)


def prepare(config: Config, work: Workspace, *, corpus_dir: Path, nj: int = 1) -> PrepareResult:
    """Makes data/cuts_<set>.jsonl.gz, data/lang, data/lm/G.arpa and data/stamp.json.

    Args:
      corpus_dir: what stage 0 left, or one's own recordings.
      nj: processes that check recordings.

    Raises:
      UserError: the corpus is unknown or malformed, an utterance cannot be used (and is not to be skipped), or a set
        is empty.
    """
    listing = _read(config, work, corpus_dir)
    found = sources(config.lang, work.config_path.parent)
    stamp = _stamp(config, work, listing, found, corpus_dir)
    skip = config.corpus.on_bad_utterance == "skip"
    reason = _why(work, stamp, skip)
    if reason is None:
        if not (work.data / TRANSCRIPTS).exists():  # what an earlier version prepared
            _write_transcripts(work, listing)
        (work.data / STAMP).touch()  # the recordings are still those: who asks what changed since need not worry
        return PrepareResult(False, (read_stamp(work.data) or {})["metadata"])
    logger.info("preparing %s: %s", work.data, reason)

    by_phone = any(utterance.reference for utterance in listing.utterances)
    if by_phone and config.lang.units != "phones":
        raise UserError(
            f"{work.config_path}: alignment.labels: words needs a lexicon of phones (lang.units: phones), "
            f"not {config.lang.units}."
        )
    say = speller(config.lang, found.lexicon, [u.text for u in listing.utterances if u.set == "train"])
    pronunciations = say({word for utterance in listing.utterances for word in utterance.text.split()})
    samples, problems = _check(listing.utterances, pronunciations, config, found.lexicon, nj)
    problems = sorted([*listing.problems, *problems], key=lambda problem: problem.utterance)
    if problems and not skip:
        raise UserError(_bad_utterances(problems, corpus_dir))
    for problem in problems:
        logger.warning("left out: %s: %s", problem.utterance, problem.reason)
    sets = _usable_sets(work, listing, samples)
    recognised = {name: [u.text for u in members] for name, members in sets.items()}
    phones = PhonesAsWords(pronunciations) if by_phone else None
    if phones is not None:
        recognised = {name: [phones.sentence(text) for text in texts] for name, texts in recognised.items()}
    lm = language_model(config, found, recognised)
    pronunciations = pronunciations | (phones or say)(lm.words)
    check_vocabulary(lm.words, pronunciations, found, guess=config.lang.guess_pronunciations)
    _write(config, work, listing, sets, samples, lm, pronunciations, say.symbols)
    guessed: set[str] = getattr(say, "guessed", set())
    metadata = _metadata(config, listing, problems, sets, recognised, samples, lm, pronunciations, guessed)
    with replacing_file(work.data / STAMP) as path:
        stamp.write(path, metadata)
    return PrepareResult(True, metadata)


def _read(config: Config, work: Workspace, corpus_dir: Path) -> CorpusManifest:
    reader = READERS.get(config.corpus.name)
    if reader is None:
        raise UserError(f"{work.config_path}: there is no corpus {config.corpus.name!r}; known: {', '.join(READERS)}.")
    if not corpus_dir.is_dir():
        raise UserError(f"{corpus_dir}: there is no such folder; fetch the corpus first (stage 0).")
    return reader(corpus_dir, work.config_path.parent, config)


def _stamp(config: Config, work: Workspace, listing: CorpusManifest, found: Sources, corpus_dir: Path) -> Stamp:
    lang = {key: value for key, value in to_mapping(config.lang).items() if key not in ("lexicon", "lm", "lm_text")}
    if not lang["closures"]:
        del lang["closures"]  # what was prepared before there was this setting stays as it is
    settings = {"corpus": config.corpus.name, "sampling_rate": config.corpus.sampling_rate, **lang}
    inputs = {
        **transcript_digests(listing, corpus_dir),
        **{name: file_digest(path) for name, path in found.files.items()},
        "utterances": digest_of([[u.id, u.set, u.text, u.phones] for u in listing.utterances]),
        "audio": audio_digest(listing.utterances, corpus_dir, work),
    }
    return Stamp("prepare", settings, inputs)


def _why(work: Workspace, stamp: Stamp, skip: bool) -> str | None:
    reason = stale_reason(work.data, stamp)
    if reason is not None:
        return reason
    gone = [path for path in (*map(work.cuts, SETS), work.lang / STAMP, work.lm / "G.arpa") if not path.exists()]
    if gone:
        return f"{gone[0]} is gone"
    if not skip and (read_stamp(work.data) or {})["metadata"]["left_out"]:
        return "utterances were left out that must not be now"
    return None


def _check(
    utterances: list[Utterance],
    pronunciations: Mapping[str, list[tuple[str, ...]]],
    config: Config,
    lexicon: Path,
    nj: int,
) -> tuple[dict[str, int], list[InvalidUtterance]]:
    """Number of samples of each good utterance, and what is wrong with the others."""
    rate = config.corpus.sampling_rate
    samples: dict[str, int] = {}
    problems: list[InvalidUtterance] = []
    pieces = [(rate, [u.audio for u in utterances[i : i + _PIECE]]) for i in range(0, len(utterances), _PIECE)]
    checked = parallel_map(_check_piece, pieces, nj=nj, progress="checking recordings" if len(pieces) > 9 else None)
    found = [outcome for piece in checked for outcome in piece]
    for utterance, outcome in zip(utterances, found, strict=True):
        unknown = [word for word in utterance.text.split() if word not in pronunciations]
        if isinstance(outcome, str):
            problems.append(InvalidUtterance(utterance.id, outcome))
        elif unknown:
            reason = f"the word {unknown[0]} has no pronunciation; add a line for it to {lexicon}"
            problems.append(InvalidUtterance(utterance.id, reason))
        elif outcome < (least := _least_samples(utterance.text, pronunciations, rate)):
            reason = (
                f"{utterance.audio} is {outcome / rate:.2f} s long, its words need {least / rate:.2f} s; "
                "mend the transcript or the recording"
            )
            problems.append(InvalidUtterance(utterance.id, reason))
        else:
            samples[utterance.id] = outcome
    return samples, problems


def _least_samples(text: str, pronunciations: Mapping[str, list[tuple[str, ...]]], rate: int) -> int:
    # at least: the number of frames is rounded, never below this many shifts
    phones = sum(min(map(len, pronunciations[word])) for word in text.split())
    return round(phones * FRAMES_PER_PHONE * FRAME_SHIFT * rate)


def _check_piece(piece: tuple[int, list[Path]]) -> list[int | str]:
    rate, paths = piece
    outcomes: list[int | str] = []
    for path in paths:
        try:
            outcomes.append(check_audio(path, rate))
        except BadAudio as bad:
            outcomes.append(str(bad))
    return outcomes


def _bad_utterances(problems: list[InvalidUtterance], corpus_dir: Path) -> str:
    named = "; ".join(f"{problem.utterance}: {problem.reason}" for problem in problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    many = f"{len(problems)} utterances" if len(problems) > 1 else "1 utterance"
    return f"{corpus_dir}: {many} cannot be used: {named}{more} (--on-bad-utterance skip leaves such utterances out)."


def _usable_sets(work: Workspace, listing: CorpusManifest, samples: Mapping[str, int]) -> dict[str, list[Utterance]]:
    sets: dict[str, list[Utterance]] = {name: [] for name in SETS}
    for utterance in sorted(listing.utterances, key=lambda u: u.id):
        if utterance.id in samples:
            sets[utterance.set].append(utterance)
    for name, members in sets.items():
        if not members:
            raise UserError(f"{work.config_path}: the {name} set has no usable utterance; give it some.")
    return sets


def _write(
    config: Config,
    work: Workspace,
    listing: CorpusManifest,
    sets: Mapping[str, list[Utterance]],
    samples: Mapping[str, int],
    lm: LanguageModel,
    pronunciations: Pronunciations,
    symbols: tuple[str, ...],
) -> None:
    work.data.mkdir(parents=True, exist_ok=True)
    (work.data / STAMP).unlink(missing_ok=True)
    for name, members in sets.items():
        with replacing_file(work.cuts(name)) as path:
            write_cuts(path, members, samples, config.corpus.sampling_rate, work)
    used = lm.words.union(*(u.text.split() for members in sets.values() for u in members))
    lang = make_lang(lm.words, {word: pronunciations[word] for word in used}, symbols)
    contents = {"words": digest_of(lang.words), "lexicon": digest_of(sorted(lang.pronunciations.items()))}
    with replacing_folder(work.lang, Stamp("lang", {}, contents)) as path:
        write_lang(path, lang)
    with replacing_folder(work.lm, Stamp("lm", {}, {})) as path:
        write_arpa(path / "G.arpa", lm.arpa)
    _write_transcripts(work, listing)


def _write_transcripts(work: Workspace, listing: CorpusManifest) -> None:
    with replacing_file(work.data / TRANSCRIPTS) as path:
        write_transcripts(path, listing, work)


def _metadata(
    config: Config,
    listing: CorpusManifest,
    problems: list[InvalidUtterance],
    sets: Mapping[str, list[Utterance]],
    recognised: Mapping[str, list[str]],
    samples: Mapping[str, int],
    lm: LanguageModel,
    pronunciations: Pronunciations,
    guessed: set[str],
) -> dict[str, Any]:
    sentences = {name: [text.split() for text in texts] for name, texts in recognised.items()}
    vocabulary = lm.words
    # elsewhere speakers are often not known, or there is but one
    shared = librispeech.shared_speakers(listing.utterances) if config.corpus.name in ("librispeech", "timit") else []
    duplicates = Counter(u.text for u in listing.utterances if u.id in samples)
    where = defaultdict(set)
    for name, members in sets.items():
        for utterance in members:
            where[utterance.text].add(name)
    return {
        "sets": {
            name: {
                "utterances": len(members),
                "words": sum(len(u.text.split()) for u in members),
                "minutes": sum(samples[u.id] for u in members) / config.corpus.sampling_rate / 60,
                "speakers": len({u.speaker for u in members}),
                "oov_words": sum(word not in vocabulary for sentence in sentences[name] for word in sentence),
            }
            for name, members in sets.items()
        },
        "lm": {
            "order": lm.arpa.order,
            "words": len(vocabulary),
            "ngrams": sum(map(len, lm.arpa.probabilities)),
            "ngrams_before_pruning": lm.full_ngrams,
            "sentences_left_out": lm.left_out,
            "perplexity": {name: perplexity(lm.arpa, sentences[name]).perplexity for name in ("dev", "test")},
        },
        "words_with_pronunciation": len(pronunciations),
        "guessed_pronunciations": {
            word: [" ".join(variant) for variant in pronunciations[word]] for word in sorted(guessed)
        },
        "shared_speakers": shared,
        "repeated_texts": sum(count > 1 for count in duplicates.values()),
        "texts_in_two_sets": sum(len(names) > 1 for names in where.values()),
        "left_out": [{"utterance": problem.utterance, "reason": problem.reason} for problem in problems],
        "not_speech": listing.not_speech,
        "known_missing": listing.known_missing,
    }
