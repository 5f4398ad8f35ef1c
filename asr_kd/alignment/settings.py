"""Settings of the alignment and of the decision tree."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic.dataclasses import dataclass

from asr_kd.acoustic.settings import AnyModel, DnnConfig, Precision, TrainingConfig
from asr_kd.settings import COSMETIC, STRICT, Count, Fraction, Natural, NotNegative, Positive

# one frame on each side: a wider context memorises the equal alignment and stays there
FLAT_START_MODEL = DnnConfig(layers=1, width=128, left_context=1, right_context=1)
REALIGN_MODEL = DnnConfig(layers=3, width=256, left_context=10, right_context=10, hidden_dropout=0.1)
REALIGN_TRAINING = TrainingConfig(epochs=3, batch_size=256, learning_rate=1e-3)


@dataclass(frozen=True, config=STRICT)
class RealignConfig:
    """Realignment with a context-dependent model: each round grows a tree, trains a net on its senones, and aligns."""

    rounds: Natural = 1  # 0: none
    model: AnyModel = REALIGN_MODEL  # it sees the phones around, which the flat start's must not
    training: TrainingConfig = REALIGN_TRAINING

    def __post_init__(self) -> None:
        if getattr(self.model, "lda_dims", 0):
            raise ValueError("model.lda_dims must be 0: this net learns from the window itself")


@dataclass(frozen=True, config=STRICT)
class AlignmentConfig:
    """GMM-free flat start (Senior et al. 2014), realignment and the phonetic decision tree."""

    model: DnnConfig = FLAT_START_MODEL  # the flat start's small net
    linear_rounds: Natural = 0  # of {linear discriminants, Viterbi}, before the net; they leave the flat start sooner
    rounds: Count = 8  # of {one epoch, Viterbi}
    realign: RealignConfig = RealignConfig()  # after the flat start; not within manual times
    batch_size: Count = 256  # frames a step of the flat start's net; 1024 takes less time and is a little less exact
    precision: Precision = "auto"  # of the products of the flat start's net
    # flat start, realignment and tree use a random subset of at most this; the rest is only aligned
    subset_hours: Positive = 100.0
    # all: also train the flat start on dev and test (everything in memory); for aligning a corpus only, never for
    # training a recogniser
    learn_from: Literal["train", "all"] = "train"
    leaves: Count = 400  # senones, at most
    min_count: Count = 100  # frames per senone
    optional_silence: bool = True  # between words and around them; false where the transcripts name every silence
    phases: Count = 1  # more: word and phone times finer than a frame, from as many alignments; labels do not change
    # a file beside the config: ms to move boundaries by, per kind; align --compare learns one from manual times
    boundary_offsets: str = ""
    # forced: align the transcript; words: where transcripts are phones, align the words through a lexicon instead;
    # manual: align within the manual phone times of the corpus; from: align the transcript, but begin the flat start
    # with labels of another aligner instead of equal alignments
    labels: Literal["forced", "words", "manual", "from"] = "forced"
    # labels: from: a folder, relative to the config's, of TextGrids, of phones.ctm, or of Kaldi alignments (.ark, .scp)
    # with their phones.txt
    dir: str = ""
    beam: NotNegative = 0.0  # 0: exact Viterbi
    # more utterances than this failing to align is an error
    max_bad_fraction: Fraction = dataclasses.field(default=0.05, metadata=COSMETIC)

    @property
    def realign_rounds(self) -> int:
        """None within manual times: they leave the phones' boundaries where they are."""
        return 0 if self.labels == "manual" else self.realign.rounds

    def __post_init__(self) -> None:
        if self.model.lda_dims:
            raise ValueError("model.lda_dims must be 0: the flat start has no labels to find discriminants of")


def flat_start_settings(settings: AlignmentConfig) -> AlignmentConfig:
    """What the flat start depends on: settings of realignment, of the tree and of times are at their defaults.

    So is the folder of given labels, which count by their content.
    """
    names = ("realign", "leaves", "min_count", "phases", "boundary_offsets", "dir")
    return dataclasses.replace(settings, **{name: getattr(AlignmentConfig, name) for name in names})


def realign_settings(settings: AlignmentConfig) -> AlignmentConfig:
    """What a round of realignment depends on: the net and the tree, not the number of rounds."""
    realign = dataclasses.replace(settings.realign, rounds=RealignConfig.rounds)
    return dataclasses.replace(tree_settings(settings), realign=realign)


def tree_settings(settings: AlignmentConfig) -> AlignmentConfig:
    """What the tree depends on: settings of times are at their defaults."""
    return dataclasses.replace(flat_start_settings(settings), leaves=settings.leaves, min_count=settings.min_count)
