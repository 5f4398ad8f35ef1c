"""What each artefact of the stage `align` depends on.

- the aligner: the pronunciations of the words that are said, and the training frames, with learn_from: all the frames
  of every set, with labels: from the files of these labels;
- a round of realignment: the aligner before it, and the same frames;
- the alignment of a set: the last aligner, the frames and the lexicon of that set;
- the trees: the alignment of the training set;
- the labels of a set: its alignment and the tree;
- times that are finer than a frame: the alignment of their set.

Where frames are not exactly 10 ms apart, what is made from times in seconds, or gives them, depends on their distance.

So no artefact but the totals depends on a set that is only scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asr_kd.alignment.settings import flat_start_settings, realign_settings, tree_settings
from asr_kd.frames.features import FRAME_SHIFT, frame_seconds
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import digest_of, file_digest
from asr_kd.io.stamp import Stamp
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.work import Workspace, labels_of


@dataclass(frozen=True)
class AlignmentStamps:
    """Stamps of a run over these sets.

    Attributes:
      spoken: digest of the phones, and of the pronunciations of the words that are said.
      given_labels: digest of the labels that the flat start begins with.
      respelt: set -> digest of the words of its lexicon that data/lang says otherwise; "": none.
    """

    config: Config
    work: Workspace
    spoken: str
    stores: Mapping[str, FrameStore]
    given_labels: str = ""
    respelt: Mapping[str, str] = field(default_factory=dict)

    def aligner(self, number: int) -> Stamp:
        """Returns the stamp of an aligner: that of the flat start (number 0), or of a round of realignment."""
        settings, seed = self.config.alignment, self.config.seed
        if number:
            inputs = {"aligner": self.aligner(number - 1).digest}
            return Stamp("realign", {"alignment": realign_settings(settings)}, inputs, seed)
        inputs = {"lang": self.spoken} | ({"labels": self.given_labels} if self.given_labels else {})
        for name in self.stores if settings.learn_from == "all" else [TRAIN]:
            inputs |= {f"{name} {key}": digest for key, digest in self._of_set(name).items()}
        # only these labels are read from times in seconds
        shift = self._frame_seconds if settings.labels in ("manual", "from") else {}
        return Stamp("aligner", {"alignment": flat_start_settings(settings), **shift}, inputs, seed)

    @property
    def _frame_seconds(self) -> dict[str, float]:
        """The seconds from one frame to the next, as an entry of settings; nothing where they are 10 ms.

        Versions before this entry took them for 10 ms always: what they made is out of date only where they are not.
        """
        seconds = frame_seconds(self.config.corpus.sampling_rate)
        return {} if seconds == FRAME_SHIFT else {"frame_seconds": seconds}

    def _of_set(self, name: str) -> dict[str, str]:
        lexicon = self.work.lexicon(name)
        digests = {"lexicon": file_digest(lexicon)} if lexicon.exists() else {}
        respelt = self.respelt.get(name)
        return {"frames": self.stores[name].digest, **digests, **({"pronunciations": respelt} if respelt else {})}

    def alignment(self, name: str) -> Stamp:
        last = self.aligner(self.config.alignment.realign_rounds)
        return Stamp("alignment", {"set": name}, {"aligner": last.digest, **self._of_set(name)})

    def tree(self, kind: str) -> Stamp:
        settings = self.config.alignment
        return Stamp(
            self.work.tree(kind).name,
            {"alignment": tree_settings(settings) if kind == "tied" else flat_start_settings(settings)},
            {
                "lang": self.spoken,
                "train frames": self.stores[TRAIN].digest,
                "train alignment": self.alignment(TRAIN).digest,
            },
            self.config.seed,
        )

    def labels(self, name: str, kind: str) -> Stamp:
        inputs = {"tree": self.tree(kind).digest, "alignment": self.alignment(name).digest}
        return Stamp(labels_of(kind), {"set": name}, inputs)

    def times(self, name: str) -> Stamp:
        settings = {"phases": self.config.alignment.phases, **self._frame_seconds}
        return Stamp("subframe times", settings, {"alignment": self.alignment(name).digest})

    def totals(self, offsets: Mapping[str, float]) -> Stamp:
        """Returns the stamp of the totals of all sets together.

        Args:
          offsets: of boundaries, by their kind; see `asr_kd.alignment.boundaries`.
        """
        inputs = {f"{name} alignment": self.alignment(name).digest for name in self.stores}
        inputs |= {self.work.tree(kind).name: self.tree(kind).digest for kind in self.config.trees}
        inputs |= {f"{name} times": self.times(name).digest for name in self.stores}
        return Stamp("align", {}, inputs | ({"boundary offsets": digest_of(dict(offsets))} if offsets else {}))
