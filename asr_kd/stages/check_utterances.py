"""Which utterances can be used: audio that can be read, words with pronunciations, enough frames for those."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asr_kd.corpora.audio import Audio, AudioFormat, BadAudio, Extent, read_clips
from asr_kd.corpora.held_out import draw
from asr_kd.corpora.listing import CorpusManifest, DroppedText, InvalidUtterance, ReadRequest, Utterance
from asr_kd.corpora.registry import CORPORA
from asr_kd.corpora.settings import OwnSpeechConfig
from asr_kd.corpora.shared_audio import check_disjoint
from asr_kd.corpora.sources import Source
from asr_kd.corpora.transcripts import check_losses, in_words
from asr_kd.errors import UserError, printable
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.io.formatting import plural
from asr_kd.lang.units import PhonesAsWords, PronunciationModel, Pronunciations, normaliser
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.executor import parallel_map
from asr_kd.workspace.work import Workspace

FRAMES_PER_PHONE = 3  # at least: one per HMM state
_SHARD = 200  # utterances that one process checks at a time; more where one recording has more
_NAMED = 10  # bad utterances that an error names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsableUtterances:
    """The utterances of a corpus that can be used.

    Attributes:
      sets: set -> its utterances, in the order of their ids.
      extents: utterance -> what it takes of its recording.
      problems: what is wrong with the others.
      pronunciations: of the transcripts' words, as far as they have one.
      phones: set where the phones of a lexicon are recognised instead of the transcripts' words.
      dropped: set -> what its transcripts lost on becoming words.
    """

    sets: Mapping[str, list[Utterance]]
    extents: Mapping[str, Extent]
    problems: list[InvalidUtterance]
    pronunciations: Pronunciations
    phones: PhonesAsWords | None
    dropped: Mapping[str, DroppedText]

    def texts(self, name: str) -> list[str]:
        return [utterance.text for utterance in self.sets[name]]

    def sentences(self, name: str) -> list[str]:
        """A set's transcripts in the words that are recognised."""
        return self.texts(name) if self.phones is None else [self.phones.sentence(text) for text in self.texts(name)]


@dataclass(frozen=True)
class CorpusSource:
    """The corpus that sets are read from.

    Attributes:
      folder: the corpus as stage 0 left it, or one's own recordings.
      nj: processes that check recordings.
      allow_pipes: run the commands that the corpus names for audio.
    """

    config: Config
    work: Workspace
    folder: Path
    nj: int = 1
    allow_pipes: bool = False

    def read(self, parts: Mapping[str, Sequence[str]]) -> CorpusManifest:
        """Lists the utterances of some sets.

        Args:
          parts: set -> the corpus's parts.

        Raises:
          UserError: there is no such folder, the corpus is malformed, or transcripts are not of `lang.language`.
        """
        if not self.folder.is_dir():
            own = isinstance(self.config.corpus, OwnSpeechConfig)
            fix = "correct --corpus-dir" if own else "fetch the corpus first (stage 0)"
            raise UserError(f"{self.folder}: there is no such folder; {fix}.")
        if printable(folder := str(self.folder.resolve())) != folder:
            raise UserError(f"{folder}: the name of the corpus's folder is not UTF-8; rename it.")
        corpus, words = self.config.corpus, self.config.alignment.labels == "words"
        conf_dir, seed = self.work.config_path.parent, self.config.seed
        normalise = normaliser(self.config.lang)
        untranscribed = frozenset(parts) & self.config.untranscribed.keys()
        request = ReadRequest(
            self.folder, conf_dir, corpus, parts, seed, words_for_phones=words, normalise=normalise,
            allow_pipes=self.allow_pipes, untranscribed=untranscribed,
        )  # fmt: skip
        listing = CORPORA[corpus.name].read(request).only_utf8()
        check_disjoint(listing.utterances, self._is_scored_only)
        hidden = {name: of_training for name in parts if name in untranscribed
                  and (of_training := self.config.untranscribed[name].hidden) is not None}  # fmt: skip
        listing = draw(listing, hidden, seed, self.folder, "untranscribed").without_transcripts(untranscribed)
        manifest = in_words(listing, normalise)
        for name, dropped in manifest.dropped.items():
            check_losses(self.folder, name, dropped.losses, normalise)
        return manifest

    def _is_scored_only(self, name: str) -> bool:
        return name not in (TRAIN, DEV) and name not in self.config.untranscribed

    def check(
        self, manifest: CorpusManifest, names: Collection[str], model: PronunciationModel, *, any_word: bool = False
    ) -> UsableUtterances:
        """Reads every recording of some sets.

        Args:
          any_word: accept words without pronunciation: they cannot be recognised, nor their utterances aligned.

        Raises:
          UserError: an utterance cannot be used and is not to be skipped, a set is empty, or phones are to be
            recognised that are not those of a lexicon.
        """
        utterances = [utterance for utterance in manifest.utterances if utterance.set in names]
        phones_recognised = self._recognises_phones(utterances)
        pronunciations = model({word for utterance in utterances for word in utterance.text.split()})
        any_word = any_word and not phones_recognised
        problems = [problem for problem in manifest.problems if problem.set in names]
        extents: dict[str, Extent] = {}
        sets: dict[str, list[Utterance]] = {}
        for utterance, audio in sorted(zip(utterances, self._check_audio(utterances)), key=lambda pair: pair[0].id):
            reason = audio if isinstance(audio, str) else self._too_short(utterance, audio.num_samples, pronunciations)
            unknown = [word for word in utterance.text.split() if word not in pronunciations]
            if unknown and not (any_word or isinstance(audio, str)):
                reason = f"the word {unknown[0]} {model.lack(unknown[0])}"
            if isinstance(audio, str) or reason:
                problems.append(InvalidUtterance(utterance.id, reason, utterance.set))
            else:
                extents[utterance.id] = audio
                sets.setdefault(utterance.set, []).append(utterance)
        problems.sort(key=lambda problem: problem.utterance)
        self._report(problems)
        for name in names:
            if name not in sets:
                raise self._no_utterance(name)
        phones = PhonesAsWords(pronunciations) if phones_recognised else None
        return UsableUtterances(sets, extents, problems, pronunciations, phones, manifest.dropped)

    def require_training(self, manifest: CorpusManifest) -> None:
        """Raises UserError where nothing can be learnt, with what is wrong with the utterances."""
        if not manifest.of_set(TRAIN):
            self._report(manifest.problems)
            raise self._no_utterance(TRAIN)

    def _no_utterance(self, name: str) -> UserError:
        return UserError(f"{self.folder}: the {name} set has no usable utterance; give it some, or other parts.")

    def _recognises_phones(self, utterances: Sequence[Utterance]) -> bool:
        """Whether phones are recognised where the transcripts are words."""
        referenced, units = any(utterance.reference for utterance in utterances), self.config.lang.units
        if referenced and units != "phones":
            raise UserError(
                f"{self.work.config_path}: alignment.labels: words needs a lexicon of phones (lang.units: phones), "
                f"not {units}."
            )
        return referenced

    def _check_audio(self, utterances: Sequence[Utterance]) -> list[Extent | str]:
        """Returns for each utterance what it takes of its recording, or why the recording cannot be used."""
        # all utterances of a recording at once, for it may be long
        recordings: dict[Source, list[int]] = {}
        for number, utterance in enumerate(utterances):
            recordings.setdefault(utterance.audio.source, []).append(number)
        shards: list[list[int]] = [[]]
        for numbers in recordings.values():
            if len(shards[-1]) >= _SHARD:
                shards.append([])
            shards[-1] += numbers
        audio = [[utterances[number].audio for number in shard] for shard in shards]
        check = partial(_check_shard, self.config.corpus.audio_format)
        progress = "checking recordings" if len(shards) > 9 else None
        checked = parallel_map(check, audio, nj=self.nj, progress=progress)
        outcomes = {number: outcome for pair in zip(shards, checked) for number, outcome in zip(*pair)}
        return [outcomes[number] for number in range(len(utterances))]

    def _too_short(self, utterance: Utterance, samples: int, pronunciations: Pronunciations) -> str:
        """Says so where a recording is too short for its words, and "" where it is not."""
        words, rate = utterance.text.split(), self.config.corpus.sampling_rate
        # the number of frames is rounded, never below this many shifts
        phones = sum(min(map(len, pronunciations.get(word, [()]))) for word in words)
        least = round(phones * FRAMES_PER_PHONE * FRAME_SHIFT * rate)
        speed = max(self.config.features.speeds) if utterance.set == TRAIN else 1.0
        if samples < least * speed:
            copy = f" and {samples / speed / rate:.2f} s at speed {speed:g}" if samples >= least else ""
            return (
                f"{utterance.audio} is {samples / rate:.2f} s long{copy}, its words need {least / rate:.2f} s; "
                "correct the transcript or the recording" + (", or lower features.speeds" if copy else "")
            )
        return ""

    def _report(self, problems: Sequence[InvalidUtterance]) -> None:
        """Logs the bad utterances that are left out; raises UserError where none may be."""
        if self.config.corpus.on_bad_utterance == "skip":
            for problem in problems:
                logger.warning("left out: %s: %s", problem.utterance, problem.reason)
        elif problems:
            raise UserError(f"{self.folder}: {_sentence_on(sorted(problems, key=lambda problem: problem.utterance))}")


def _sentence_on(problems: Sequence[InvalidUtterance]) -> str:
    """Returns what is wrong with utterances, a line each where they are several, and equal advice once."""
    skip = "corpus.on_bad_utterance: skip leaves such utterances out"
    if len(problems) == 1:
        return f"1 utterance cannot be used: {problems[0].utterance}: {problems[0].reason} ({skip})."
    lines, given = [], set()
    for problem in problems[:_NAMED]:
        what, _, advice = problem.reason.partition("; ")
        kind = advice.partition(", for example")[0]  # an example has names of its own
        lines.append(f"  {problem.utterance}: {what if kind in given else problem.reason}")
        given.add(kind)
    if len(problems) > _NAMED:
        lines.append(f"  and {len(problems) - _NAMED:,} more")
    return "\n".join([f"{plural(len(problems), 'utterance')} cannot be used ({skip}):", *lines])


def corpus_folder(config: Config, work: Workspace, named: Path | None) -> Path:
    """The corpus's folder: the one that was named; else that of the config, where the training parts are found there.

    Raises:
      UserError: none was named, and they are not.
    """
    if named is not None:
        return named
    beside, corpus = work.config_path.parent, config.corpus.name
    files = [beside / name for part in config.sets[TRAIN] for name in part.split("+")]
    if not CORPORA[corpus].names_sets or not files or not all(file.exists() for file in files):
        raise UserError(f"the {corpus} corpus needs its folder; name it with --corpus-dir.")
    return beside


def _check_shard(target: AudioFormat, utterances: Sequence[Audio]) -> list[Extent | str]:
    outcomes = {
        number: str(clip) if isinstance(clip, BadAudio) else clip.extent
        for number, clip in read_clips(utterances, target)
    }
    return [outcomes[number] for number in range(len(utterances))]
