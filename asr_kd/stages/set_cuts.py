"""One set's cuts with their lexicon and stamp; each set is written alone, so that one can be added later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.corpora.cuts import audio_digest, audio_place, read_cuts, write_cuts
from asr_kd.corpora.listing import DroppedText, Utterance
from asr_kd.corpora.settings import OwnSpeechConfig
from asr_kd.corpora.transcripts import dropped_metadata
from asr_kd.errors import UserError, some_of
from asr_kd.io.files import digest_of, replacing_file
from asr_kd.io.fingerprint import Fingerprint
from asr_kd.io.formatting import plural
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import write_lexicon
from asr_kd.lang.ngram import Arpa, perplexity
from asr_kd.lang.settings import LangConfig
from asr_kd.lang.units import PronunciationModel, Pronunciations
from asr_kd.stages.check_utterances import UsableUtterances
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.work import Workspace

GUESSES_NAMED = 5  # words with guessed pronunciations of which each set's stamp has an utterance
_GUESSES = "guessed_lexicon.txt"  # in data/


@dataclass(frozen=True)
class SetWriter:
    """Writes sets into data/.

    Attributes:
      model: pronounced the words of `usable`.
      symbols: the units of data/lang, without silence.
      learnt_speakers: those of training and dev, where the corpus's speakers are known.
    """

    config: Config
    work: Workspace
    usable: UsableUtterances
    model: PronunciationModel
    arpa: Arpa
    symbols: Sequence[str]
    learnt_speakers: set[str]

    def write(self, name: str, stamp: Stamp, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """Writes cuts_<name>.jsonl.gz, for scored sets but dev also lexicon_<name>.txt, and last their stamp.

        Args:
          more: further entries of the stamp's metadata.

        Returns:
          The stamp's metadata.
        """
        work, members = self.work, self.usable.sets[name]
        work.cuts_stamp(name).unlink(missing_ok=True)
        with replacing_file(work.cuts(name)) as path:
            write_cuts(path, members, self.usable.extents, work.root, self.config.lang.language)
        if has_lexicon(self.config, name):
            with replacing_file(work.lexicon(name)) as path:
                write_lexicon(path, self._lexicon(name))
        metadata = self._metadata(name) | (more or {})
        with replacing_file(work.cuts_stamp(name)) as path:
            stamp.write(path, metadata)
        return metadata

    def _words(self, name: str) -> set[str]:
        return {word for text in self.usable.texts(name) for word in text.split()}

    def _lexicon(self, name: str) -> Pronunciations:
        """Returns the pronunciations of the words in a set's transcripts, in the units of data/lang."""
        units, known = set(self.symbols), self.usable.pronunciations
        words = sorted(self._words(name) & known.keys())
        return {word: [variant for variant in known[word] if units.issuperset(variant)] for word in words}

    def _metadata(self, name: str) -> dict[str, Any]:
        members, untranscribed = self.usable.sets[name], name in self.config.untranscribed
        sentences = [sentence.split() for sentence in self.usable.sentences(name)]
        vocabulary = self.arpa.spoken_words
        oov = Counter(word for sentence in sentences for word in sentence if word not in vocabulary)
        speakers = {utterance.speaker for utterance in members}
        corpus, extents = self.config.corpus, self.usable.extents
        seconds = sum(extents[u.id].num_samples for u in members) / corpus.sampling_rate
        # by the config's wish, not the corpus's own
        resampled = sum(corpus.sampling_rate not in (u.audio.rate, extents[u.id].recording.rate) for u in members)
        return {
            "utterances": len(members),
            "words": sum(len(utterance.text.split()) for utterance in members),
            "minutes": seconds / 60,
            "speakers": len(speakers),
            "language": self.config.lang.language,
            "dropped": dropped_metadata(self.usable.dropped.get(name, DroppedText())),
            **({"resampled": resampled} if corpus.resample else {}),
            "oov_words": oov.total(),
            "different_oov": len(oov),
            "most_frequent_oov": [word for word, _ in oov.most_common(10)],
            **({} if name == TRAIN or untranscribed else {"perplexity": perplexity(self.arpa, sentences)}),
            **({"untranscribed": True} if untranscribed else {}),
            "guessed_pronunciations": (guessed := guesses(self.model, self._words(name))),
            "guessed_in": {
                word: next(u.id for u in members if word in u.text.split()) for word in list(guessed)[:GUESSES_NAMED]
            },
            "shared_speakers": sorted(speakers & self.learnt_speakers) if has_lexicon(self.config, name) else [],
            "left_out": [
                {"utterance": bad.utterance, "reason": bad.reason} for bad in self.usable.problems if bad.set == name
            ],
        }


def has_lexicon(config: Config, name: str) -> bool:
    """Whether a set has a lexicon of its own: data/lang has the words of train and dev alone."""
    return name not in (TRAIN, DEV, *config.untranscribed)


def guesses(model: PronunciationModel, words: set[str]) -> dict[str, list[str]]:
    """Returns those of the words that letter-to-sound rules pronounced, with their pronunciations."""
    pronunciations = model(words & model.guessed)
    return {word: [" ".join(variant) for variant in pronunciations[word]] for word in sorted(pronunciations)}


def write_guesses(work: Workspace, guessed: Mapping[str, Sequence[str]]) -> None:
    """Writes the guessed pronunciations of all sets as a lexicon to look into; deletes it where there are none.

    Args:
      guessed: word -> its pronunciations, as `guesses` has them.
    """
    path = work.data / _GUESSES
    if not guessed:
        path.unlink(missing_ok=True)
        return
    with replacing_file(path) as temporary:
        write_lexicon(temporary, {word: [tuple(v.split()) for v in guessed[word]] for word in sorted(guessed)})


def describe_guesses(metadata: Mapping[str, Any]) -> str:
    """Returns a sentence on the words that are in no lexicon, from what `prepared` gives."""
    guessed = sorted(metadata["guessed_pronunciations"])
    sets = reversed(list(metadata["sets"].values()))  # the first set counts
    places = {word: utterance for entries in sets for word, utterance in entries.get("guessed_in", {}).items()}
    named = [f"{word} in {places[word]}" if word in places else word for word in guessed[:GUESSES_NAMED]]
    return (
        f"{plural(len(guessed), 'word')} {'are' if len(guessed) > 1 else 'is'} in no lexicon "
        f"({some_of(named, count=len(guessed))}): letter-to-sound rules gave the pronunciations, "
        f"all of which are in data/{_GUESSES}"
    )


def describe_redrawn(
    config: Config, work: Workspace, sets: Mapping[str, Sequence[Utterance]], corpus_dir: Path
) -> str | None:
    """Returns a sentence on dev and test where others are drawn for them than their cuts, which are there still, have.

    Args:
      sets: the sets that are to be written.

    Returns:
      None where the speakers (or utterances, where speakers are not known) are the same, or nothing is drawn.
    """
    corpus = config.corpus
    drawn = {"test": corpus.test, "dev": corpus.dev} if isinstance(corpus, OwnSpeechConfig) else {}
    changes, known = [], False
    for name in (name for name, held_out in drawn.items() if held_out is not None and name in sets):
        try:
            cuts = list(read_cuts(work.cuts(name), "")) if work.cuts(name).exists() else []
        except UserError:  # it is damaged, and written anew
            continue
        before = {cut["supervisions"][0]["speaker"] for cut in cuts}
        if cuts and before != (now := {utterance.speaker for utterance in sets[name]}):
            known |= any(utterance.speaker != utterance.id for utterance in sets[name])
            changes.append(f"{name} was {some_of(sorted(before))}, is now {some_of(sorted(now))}")
    if not changes:
        return None
    keys = "in place of corpus.test and corpus.dev"
    advice = f"to keep sets, give them parts of their own under sets:, {keys}"
    if corpus.name == "folder":
        what, folders = "speakers" if known else "recordings", f"{corpus_dir / 'test'} and {corpus_dir / 'dev'}"
        advice = f"put {what} into {folders} to keep them, and name these folders under sets:, {keys}"
    return f"{'; '.join(changes)}: results before and after do not compare; {advice}"


def cuts_stamp(
    config: Config, work: Workspace, utterances: Sequence[Utterance], recordings: Mapping[str, Fingerprint | None]
) -> Stamp:
    """The stamp of a set's cuts.

    Args:
      recordings: `asr_kd.corpora.cuts.audio_fingerprints` of the utterances.
    """
    members = sorted(utterances, key=lambda u: u.id)
    inputs = {
        "utterances": digest_of(
            [[u.id, u.text, u.speaker, u.phones, u.reference, *audio_place(u.audio, work.root)] for u in members]
        ),
        "audio": audio_digest(recordings),
    }
    settings: dict[str, Any] = {"corpus": config.corpus.name, "sampling_rate": config.corpus.sampling_rate}
    if config.corpus.channel is not None:  # `resample` counts where it matters: see `stale_set`
        settings["channel"] = config.corpus.channel
    if config.lang.language != LangConfig.language:
        settings["language"] = config.lang.language
    return Stamp("cuts", settings, inputs)


def stale_set(config: Config, work: Workspace, name: str, stamp: Stamp) -> str | None:
    """Why a set must be written; None: it is there, made from the same utterances."""
    if (reason := stale_reason(work.cuts_stamp(name), stamp)) is not None:
        return reason
    files = [work.cuts(name), *([work.lexicon(name)] if has_lexicon(config, name) else [])]
    if missing := [path for path in files if not path.exists()]:
        return f"{missing[0]} is gone"
    metadata = (read_stamp(work.cuts_stamp(name)) or {})["metadata"]
    if config.corpus.on_bad_utterance != "skip" and metadata["left_out"]:
        return "utterances were left out that must not be now"
    if metadata.get("resampled") and not config.corpus.resample:
        return "the setting corpus.resample changed"
    if metadata["left_out"] and config.corpus.resample and "resampled" not in metadata:
        return "the setting corpus.resample changed"
    return None
