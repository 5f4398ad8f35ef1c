"""Stage 1: reads and checks a corpus, then writes cuts, lexicon and language model: all of them or none.

Everything is checked before anything is written. The stamp goes first and comes back last, so that a run killed
between two of the files is done again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.artifacts import (
    STAMP,
    Stamp,
    Work,
    file_digest,
    read_stamp,
    reason_to_make,
    replacing_file,
    replacing_folder,
)
from asr_kd.config import Config
from asr_kd.corpora import folder, prompts
from asr_kd.corpora.audio import BadAudio, check_audio
from asr_kd.corpora.listing import SETS, Listing, Problem, Utterance
from asr_kd.errors import UserError
from asr_kd.lang.lexicon import make_lang, pronounce, read_lexicon, write_lang
from asr_kd.lang.ngram import estimate_arpa, perplexity
from asr_kd.parallel import map_pieces

READERS: Mapping[str, Callable[[Path, Path], Listing]] = {"prompts": prompts.read, "folder": folder.read}

FRAMES_PER_PHONE = 3  # one per HMM state
FRAME_SHIFT = 0.01  # seconds
_HASHED_BYTES = 2 << 30  # of a corpus above this only sizes and times are compared, not contents
_PIECE = 200  # files that one process checks at a time
_NAMED = 5  # bad utterances that an error names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareResult:
    """What is in data/; `facts` are its stamp's."""

    made: bool
    facts: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [
            f"{name}: {f['utterances']} utterances, {f['words']} words, {f['minutes']:.1f} minutes, "
            f"{f['oov_words']} words outside the vocabulary"
            for name, f in self.facts["sets"].items()
        ]
        lm = self.facts["lm"]
        lines.append(
            f"language model: order {lm['order']}, {lm['words']} words, {lm['ngrams']} n-grams; "
            f"perplexity {lm['perplexity']['dev']:.1f} on dev"
        )
        if self.facts["not_speech"]:
            lines.append(f"no speech in {len(self.facts['not_speech'])} recordings, left out")
        lines += [f"left out {bad['utterance']}: {bad['reason']}" for bad in self.facts["left_out"]]
        return "\n".join(lines)


def prepare(config: Config, work: Work, *, corpus_dir: Path, nj: int = 1) -> PrepareResult:
    """Makes data/cuts_<set>.jsonl.gz, data/lang, data/lm/G.arpa and data/stamp.json.

    Args:
      corpus_dir: what stage 0 left, or one's own recordings.
      nj: processes that check recordings.

    Raises:
      UserError: the corpus is unknown or malformed, an utterance cannot be used (and is not to be skipped), or a set
        is empty.
    """
    reader = READERS.get(config.corpus.name)
    if reader is None:
        raise UserError(f"{work.config_path}: there is no corpus {config.corpus.name!r}; known: {', '.join(READERS)}.")
    if not corpus_dir.is_dir():
        raise UserError(f"{corpus_dir}: there is no such folder; fetch the corpus first (stage 0).")
    listing = reader(corpus_dir, work.config_path.parent)
    lexicon_path = work.config_path.parent / config.lang.lexicon
    stamp = Stamp(
        "prepare",
        {
            "corpus": config.corpus.name,
            "sampling_rate": config.corpus.sampling_rate,
            "ngram_order": config.lang.ngram_order,
        },
        {
            **{_name(path, corpus_dir): file_digest(path) for path in listing.transcripts},
            "lexicon": file_digest(lexicon_path) if lexicon_path.exists() else "",
            "audio": _audio_digest(listing.utterances, corpus_dir, work),
        },
    )
    skip = config.corpus.on_bad_utterance == "skip"
    reason = _why(work, stamp, skip)
    if reason is None:
        return PrepareResult(False, (read_stamp(work.data) or {})["facts"])
    logger.info("preparing %s: %s", work.data, reason)

    pronunciations = pronounce(
        {word for utterance in listing.utterances for word in utterance.text.split()}, read_lexicon(lexicon_path)
    )
    samples, problems = _check(listing.utterances, pronunciations, config, lexicon_path, nj)
    problems = sorted([*listing.problems, *problems], key=lambda problem: problem.utterance)
    if problems and not skip:
        raise UserError(_bad_utterances(problems, corpus_dir))
    for problem in problems:
        logger.warning("left out: %s: %s", problem.utterance, problem.reason)
    return _write(config, work, listing, problems, samples, pronunciations, stamp)


def _why(work: Work, stamp: Stamp, skip: bool) -> str | None:
    reason = reason_to_make(work.data, stamp)
    if reason is not None:
        return reason
    gone = [path for path in (*map(work.cuts, SETS), work.lang / STAMP, work.lm / "G.arpa") if not path.exists()]
    if gone:
        return f"{gone[0]} is gone"
    if not skip and (read_stamp(work.data) or {})["facts"]["left_out"]:
        return "utterances were left out that must not be now"
    return None


def _check(
    utterances: list[Utterance],
    pronunciations: Mapping[str, list[tuple[str, ...]]],
    config: Config,
    lexicon: Path,
    nj: int,
) -> tuple[dict[str, int], list[Problem]]:
    """Number of samples of each good utterance, and what is wrong with the others."""
    rate = config.corpus.sampling_rate
    samples: dict[str, int] = {}
    problems: list[Problem] = []
    pieces = [(rate, [u.audio for u in utterances[i : i + _PIECE]]) for i in range(0, len(utterances), _PIECE)]
    checked = map_pieces(_check_piece, pieces, nj=nj, progress="checking recordings" if len(pieces) > 9 else None)
    found = [outcome for piece in checked for outcome in piece]
    for utterance, outcome in zip(utterances, found, strict=True):
        unknown = [word for word in utterance.text.split() if word not in pronunciations]
        if isinstance(outcome, str):
            problems.append(Problem(utterance.id, outcome))
        elif unknown:
            reason = f"the word {unknown[0]} has no pronunciation; add a line for it to {lexicon}"
            problems.append(Problem(utterance.id, reason))
        elif outcome < (least := _least_samples(utterance.text, pronunciations, rate)):
            reason = (
                f"{utterance.audio} is {outcome / rate:.2f} s long, its words need {least / rate:.2f} s; "
                "mend the transcript or the recording"
            )
            problems.append(Problem(utterance.id, reason))
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


def _bad_utterances(problems: list[Problem], corpus_dir: Path) -> str:
    named = "; ".join(f"{problem.utterance}: {problem.reason}" for problem in problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    many = f"{len(problems)} utterances" if len(problems) > 1 else "1 utterance"
    return f"{corpus_dir}: {many} cannot be used: {named}{more} (--on-bad-utterance skip leaves such utterances out)."


def _write(
    config: Config,
    work: Work,
    listing: Listing,
    problems: list[Problem],
    samples: Mapping[str, int],
    pronunciations: Mapping[str, list[tuple[str, ...]]],
    stamp: Stamp,
) -> PrepareResult:
    sets: dict[str, list[Utterance]] = {name: [] for name in SETS}
    for utterance in sorted(listing.utterances, key=lambda u: u.id):
        if utterance.id in samples:
            sets[utterance.set].append(utterance)
    for name, members in sets.items():
        if not members:
            raise UserError(f"{work.config_path}: the {name} set has no usable utterance; give it some.")
    sentences = {name: [u.text.split() for u in members] for name, members in sets.items()}
    vocabulary = {word for sentence in sentences["train"] for word in sentence}
    used = {word for name in SETS for sentence in sentences[name] for word in sentence}

    work.data.mkdir(parents=True, exist_ok=True)
    (work.data / STAMP).unlink(missing_ok=True)
    for name, members in sets.items():
        with replacing_file(work.cuts(name)) as path:
            _write_cuts(path, members, samples, config.corpus.sampling_rate, work)
    lang = make_lang(vocabulary, {word: pronunciations[word] for word in used})
    contents = {"words": _digest(lang.words), "lexicon": _digest(sorted(lang.pronunciations.items()))}
    with replacing_folder(work.lang, Stamp("lang", {}, contents)) as path:
        write_lang(path, lang)
    order = config.lang.ngram_order
    with replacing_folder(work.lm, Stamp("lm", {"ngram_order": order}, {"text": _digest(sentences["train"])})) as path:
        arpa = estimate_arpa(sentences["train"], order, path / "G.arpa")

    duplicates = Counter(u.text for u in listing.utterances if u.id in samples)
    where = defaultdict(set)
    for name, members in sets.items():
        for utterance in members:
            where[utterance.text].add(name)
    facts = {
        "sets": {
            name: {
                "utterances": len(members),
                "words": sum(map(len, sentences[name])),
                "minutes": sum(samples[u.id] for u in members) / config.corpus.sampling_rate / 60,
                "speakers": len({u.speaker for u in members}),
                "oov_words": sum(word not in vocabulary for sentence in sentences[name] for word in sentence),
            }
            for name, members in sets.items()
        },
        "lm": {
            "order": order,
            "words": len(vocabulary),
            "ngrams": sum(map(len, arpa.probabilities)),
            "perplexity": {name: perplexity(arpa, sentences[name]).perplexity for name in ("dev", "test")},
        },
        "words_with_pronunciation": len(used),
        "repeated_texts": sum(count > 1 for count in duplicates.values()),
        "texts_in_two_sets": sum(len(names) > 1 for names in where.values()),
        "left_out": [{"utterance": problem.utterance, "reason": problem.reason} for problem in problems],
        "not_speech": listing.not_speech,
        "known_missing": listing.known_missing,
    }
    with replacing_file(work.data / STAMP) as path:
        stamp.write(path, facts)
    return PrepareResult(True, facts)


def _write_cuts(path: Path, members: list[Utterance], samples: Mapping[str, int], rate: int, work: Work) -> None:
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

    # by hand rather than CutSet.to_file: without a time in the gzip header the same cuts are the same bytes
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for u in members:
            duration = samples[u.id] / rate
            source = AudioSource("file", [0], _relative(u.audio, work.root))
            recording = Recording(u.id, [source], rate, samples[u.id], duration)
            supervision = SupervisionSegment(
                u.id, u.id, 0.0, duration, channel=0, text=u.text, language="English", speaker=u.speaker
            )
            cut = MonoCut(u.id, 0.0, duration, channel=0, supervisions=[supervision], recording=recording)
            file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


def _relative(path: Path, root: Path) -> str:
    path, root = path.resolve(), root.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _name(path: Path, corpus_dir: Path) -> str:
    return str(path.relative_to(corpus_dir)) if path.is_relative_to(corpus_dir) else path.name


def _audio_digest(utterances: list[Utterance], corpus_dir: Path, work: Work) -> str:
    """Of all recordings' names and contents; in a large corpus, of their sizes and times of change.

    Where the corpus lies is part of it: the cuts hold the paths.
    """
    files = [(u.audio, u.audio.stat() if u.audio.exists() else None) for u in utterances]
    hashed = sum(stat.st_size for _, stat in files if stat) <= _HASHED_BYTES
    rows: list[Sequence[Any]] = []
    for path, stat in files:
        known = [] if stat is None else [stat.st_size, file_digest(path) if hashed else stat.st_mtime_ns]
        rows.append([_relative(path, work.root), *known])
    return _digest(rows)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
