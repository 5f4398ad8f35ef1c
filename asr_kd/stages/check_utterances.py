"""Which utterances can be used: audio that can be read, words with pronunciations, enough frames for those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.corpora.audio import BadAudio, check_audio
from asr_kd.corpora.listing import InvalidUtterance, Utterance
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.lang.units import Pronunciations
from asr_kd.workspace.executor import parallel_map

FRAMES_PER_PHONE = 3  # at least: one per HMM state
_SHARD = 200  # files that one process checks at a time
_NAMED = 5  # bad utterances that an error names


@dataclass(frozen=True)
class UsableUtterances:
    """The utterances of a corpus that can be used.

    Attributes:
      sets: set -> its utterances, in the order of their ids.
      samples: utterance -> length of its recording.
      problems: what is wrong with the others.
    """

    sets: Mapping[str, list[Utterance]]
    samples: Mapping[str, int]
    problems: list[InvalidUtterance]

    def texts(self, name: str) -> list[str]:
        return [utterance.text for utterance in self.sets[name]]


@dataclass(frozen=True)
class Requirements:
    """What an utterance must fulfil.

    Attributes:
      lexicon: the file that a word without pronunciation can be added to.
      any_word: accept words without pronunciation: they cannot be recognised, nor their utterances aligned.
    """

    sampling_rate: int
    pronunciations: Pronunciations
    lexicon: Path
    any_word: bool = False

    def problem(self, utterance: Utterance, audio: int | str) -> str:
        """Why it cannot be used; "": it can.

        Args:
          audio: the recording's samples, or why it cannot be used.
        """
        words = utterance.text.split()
        unknown = [word for word in words if word not in self.pronunciations]
        if isinstance(audio, str):
            return audio
        if unknown and not self.any_word:
            return f"the word {unknown[0]} has no pronunciation; add a line for it to {self.lexicon}"
        # the number of frames is rounded, never below this many shifts
        phones = sum(min(map(len, self.pronunciations.get(word, [()]))) for word in words)
        least = round(phones * FRAMES_PER_PHONE * FRAME_SHIFT * self.sampling_rate)
        if audio < least:
            return (
                f"{utterance.audio} is {audio / self.sampling_rate:.2f} s long, its words need "
                f"{least / self.sampling_rate:.2f} s; correct the transcript or the recording"
            )
        return ""


def check_utterances(
    utterances: Sequence[Utterance], requirements: Requirements, listed: Sequence[InvalidUtterance], nj: int
) -> UsableUtterances:
    """Reads every recording.

    Args:
      listed: what the corpus's reader found wrong.
      nj: processes.
    """
    rate = requirements.sampling_rate
    shards = [(rate, [u.audio for u in utterances[i : i + _SHARD]]) for i in range(0, len(utterances), _SHARD)]
    checked = parallel_map(_check_shard, shards, nj=nj, progress="checking recordings" if len(shards) > 9 else None)
    outcomes = [outcome for shard in checked for outcome in shard]
    samples: dict[str, int] = {}
    problems = list(listed)
    for utterance, outcome in zip(utterances, outcomes, strict=True):
        if reason := requirements.problem(utterance, outcome):
            problems.append(InvalidUtterance(utterance.id, reason, utterance.set))
        else:
            samples[utterance.id] = int(outcome)
    sets: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda u: u.id):
        if utterance.id in samples:
            sets.setdefault(utterance.set, []).append(utterance)
    return UsableUtterances(sets, samples, sorted(problems, key=lambda problem: problem.utterance))


def _check_shard(shard: tuple[int, list[Path]]) -> list[int | str]:
    rate, paths = shard
    outcomes: list[int | str] = []
    for path in paths:
        try:
            outcomes.append(check_audio(path, rate))
        except BadAudio as bad:
            outcomes.append(str(bad))
    return outcomes


def refuse(problems: Sequence[InvalidUtterance], corpus_dir: Path) -> None:
    """Raises UserError that names the first bad utterances, where there are some."""
    if not problems:
        return
    named = "; ".join(f"{problem.utterance}: {problem.reason}" for problem in problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    count = f"{len(problems)} utterances" if len(problems) > 1 else "1 utterance"
    raise UserError(
        f"{corpus_dir}: {count} cannot be used: {named}{more} (--on-bad-utterance skip leaves such utterances out)."
    )
