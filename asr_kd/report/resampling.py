"""What the report's intervals resample: the speakers of a set where ten or more are known, else its utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asr_kd.corpora.cuts import read_cuts
from asr_kd.errors import UserError
from asr_kd.evaluation.bootstrap import speaker_groups
from asr_kd.report.worth_results import Resampled
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import prepare_command
from asr_kd.workspace.work import Workspace


@dataclass(frozen=True)
class Resampling:
    """The resampling that every interval and comparison on a set uses.

    Attributes:
      speakers: utterance -> speaker; None where it is not known.
    """

    speakers: Mapping[str, str | None]
    samples: int
    seed: int

    def of(self, utterances: Sequence[str]) -> dict[str, Any]:
        """The keyword arguments of the functions in `evaluation.bootstrap`, for errors in this order of utterances.

        Raises:
          UserError: an utterance is none of the set.
        """
        for name in utterances:
            if name not in self.speakers:
                raise UserError(f"utterance {name} was scored but is not in the set's cuts; run the stages again.")
        groups = speaker_groups([self.speakers[name] for name in utterances])
        return {"groups": groups, "samples": self.samples, "seed": self.seed}

    def drawn(self, utterances: Sequence[str]) -> Resampled:
        """What is drawn, how many of them there are, and who speaks."""
        groups, names = self.of(utterances)["groups"], {self.speakers[name] for name in utterances}
        speakers = None if None in names else len(names)
        if groups is None:
            return Resampled("utterance", len(utterances), speakers)
        return Resampled("speaker", int(groups.max()) + 1, speakers)


def read_resampling(config: Config, work: Workspace, name: str) -> Resampling:
    """Reads the speakers from a set's cuts.

    A speaker who is called like the utterance is none that is known: it is what stands in a list of cuts, or in
    Kaldi's utt2spk, where there is no name.

    Raises:
      UserError: the cuts are missing or damaged.
    """
    fix = f"delete it, then run {work.command(prepare_command(work, name))}"
    speakers: dict[str, str | None] = {}
    for cut in read_cuts(work.cuts(name), fix):
        speaker = next((s["speaker"] for s in cut["supervisions"] if s.get("speaker")), None)
        speakers[cut["id"]] = None if speaker == cut["id"] else speaker
    return Resampling(speakers, config.evaluation.bootstrap_samples, config.seed)
