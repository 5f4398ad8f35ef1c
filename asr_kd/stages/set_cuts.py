"""One set's cuts with their lexicon and stamp; each set is written alone, so that one can be added later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asr_kd.corpora.cuts import audio_digest, write_cuts
from asr_kd.corpora.listing import Utterance
from asr_kd.io.files import digest_of, replacing_file
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import write_lexicon
from asr_kd.lang.ngram import Arpa, perplexity
from asr_kd.lang.units import PhonesAsWords, Pronunciations
from asr_kd.stages.check_utterances import UsableUtterances
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.work import Workspace


@dataclass(frozen=True)
class Language:
    """The words that can be recognised, and the pronunciations of those of the transcripts.

    Attributes:
      symbols: the units of data/lang, without silence.
      guessed: words that were pronounced by letter-to-sound rules.
      phones: set where the phones of a lexicon are recognised instead of the transcripts' words.
    """

    arpa: Arpa
    symbols: tuple[str, ...]
    pronunciations: Pronunciations
    guessed: frozenset[str] = frozenset()
    phones: PhonesAsWords | None = None

    def sentence(self, text: str) -> str:
        """A transcript in the words that are recognised."""
        return text if self.phones is None else self.phones.sentence(text)

    def guesses(self, words: set[str]) -> dict[str, list[str]]:
        """Those of the words that were guessed, with their pronunciations."""
        return {word: [" ".join(v) for v in self.pronunciations[word]] for word in sorted(words & self.guessed)}


@dataclass(frozen=True)
class SetWriter:
    """Writes sets into data/.

    Attributes:
      learnt_speakers: those of training and dev, where the corpus's speakers are known.
    """

    config: Config
    work: Workspace
    usable: UsableUtterances
    language: Language
    learnt_speakers: set[str] = field(default_factory=set)

    def write(self, name: str, stamp: Stamp, more: dict[str, Any] | None = None) -> None:
        """Writes cuts_<name>.jsonl.gz, for test sets also lexicon_<name>.txt, and last their stamp.

        Args:
          more: further entries of the stamp's metadata.
        """
        work, members = self.work, self.usable.sets[name]
        work.cuts_stamp(name).unlink(missing_ok=True)
        rate = self.config.corpus.sampling_rate
        with replacing_file(work.cuts(name)) as path:
            write_cuts(path, members, self.usable.samples, rate, work.root)
        if name not in (TRAIN, DEV):
            with replacing_file(work.lexicon(name)) as path:
                write_lexicon(path, self._pronunciations(members))
        with replacing_file(work.cuts_stamp(name)) as path:
            stamp.write(path, self._metadata(name) | (more or {}))

    def _pronunciations(self, members: Sequence[Utterance]) -> Pronunciations:
        """Of the transcripts' words, in the units of data/lang."""
        units = set(self.language.symbols)
        pronunciations: Pronunciations = {}
        for word in sorted({word for utterance in members for word in utterance.text.split()}):
            variants = [v for v in self.language.pronunciations.get(word, ()) if units.issuperset(v)]
            if variants:
                pronunciations[word] = variants
        return pronunciations

    def _metadata(self, name: str) -> dict[str, Any]:
        members, language = self.usable.sets[name], self.language
        sentences = [language.sentence(utterance.text).split() for utterance in members]
        vocabulary = language.arpa.spoken_words
        oov = Counter(word for sentence in sentences for word in sentence if word not in vocabulary)
        speakers = {utterance.speaker for utterance in members}
        test = name not in (TRAIN, DEV)
        seconds = sum(self.usable.samples[u.id] for u in members) / self.config.corpus.sampling_rate
        return {
            "utterances": len(members),
            "words": sum(len(utterance.text.split()) for utterance in members),
            "minutes": seconds / 60,
            "speakers": len(speakers),
            "oov_words": oov.total(),
            "most_frequent_oov": [word for word, _ in oov.most_common(10)],
            **({} if name == TRAIN else {"perplexity": perplexity(language.arpa, sentences).perplexity}),
            "guessed_pronunciations": language.guesses({word for u in members for word in u.text.split()}),
            "shared_speakers": sorted(speakers & self.learnt_speakers) if test else [],
            "left_out": [
                {"utterance": bad.utterance, "reason": bad.reason} for bad in self.usable.problems if bad.set == name
            ],
        }


def cuts_stamp(config: Config, work: Workspace, utterances: Sequence[Utterance]) -> Stamp:
    """The stamp of a set's cuts."""
    members = sorted(utterances, key=lambda u: u.id)
    inputs = {
        "utterances": digest_of([[u.id, u.text, u.speaker, u.phones, u.reference] for u in members]),
        "audio": audio_digest(members, work.root),
    }
    return Stamp("cuts", {"corpus": config.corpus.name, "sampling_rate": config.corpus.sampling_rate}, inputs)


def stale_set(work: Workspace, name: str, stamp: Stamp, *, skip: bool) -> str | None:
    """Why a set must be written; None: it is there, made from the same utterances.

    Args:
      skip: whether utterances may be left out.
    """
    if (reason := stale_reason(work.cuts_stamp(name), stamp)) is not None:
        return reason
    files = [work.cuts(name)] + ([] if name in (TRAIN, DEV) else [work.lexicon(name)])
    if missing := [path for path in files if not path.exists()]:
        return f"{missing[0]} is gone"
    if not skip and (read_stamp(work.cuts_stamp(name)) or {})["metadata"]["left_out"]:
        return "utterances were left out that must not be now"
    return None
