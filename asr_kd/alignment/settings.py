"""Settings of the alignment and of the decision tree."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic.dataclasses import dataclass

from asr_kd.acoustic.settings import DnnConfig
from asr_kd.settings import COSMETIC, STRICT, Count, Fraction, Natural, NotNegative, Positive

# one frame on each side: a wider context memorises the equal alignment and stays there
FLAT_START_MODEL = DnnConfig(layers=1, width=128, left_context=1, right_context=1)


@dataclass(frozen=True, config=STRICT)
class AlignmentConfig:
    """GMM-free flat start (Senior et al. 2014), realignment and the phonetic decision tree."""

    model: DnnConfig = FLAT_START_MODEL  # the flat start's small net
    linear_rounds: Natural = 0  # of {linear discriminants, realign}, before the net; they leave the flat start sooner
    rounds: Count = 8  # of {one epoch, realign}
    batch_size: Count = 256  # frames a step of that net; 1024 takes less time and is a little less exact
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of that net's products
    subset_hours: Positive = 100.0  # flat start and tree use a random subset of at most this; the rest is only aligned
    # all: also train the flat start on dev and test (everything in memory); for aligning a corpus only, never for
    # training a recogniser
    learn_from: Literal["train", "all"] = "train"
    leaves: Count = 400  # senones wanted
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

    def __post_init__(self) -> None:
        if self.model.lda_dims:
            raise ValueError("model.lda_dims must be 0: the flat start has no labels to find discriminants of")


def flat_start_settings(settings: AlignmentConfig) -> AlignmentConfig:
    """What an aligner and its alignments depend on: settings of the tree and of times are at their defaults.

    So is the folder of given labels, which count by their content.
    """
    names = ("leaves", "min_count", "phases", "boundary_offsets", "dir")
    return dataclasses.replace(settings, **{name: getattr(AlignmentConfig, name) for name in names})


def tree_settings(settings: AlignmentConfig) -> AlignmentConfig:
    """What the tree depends on: settings of times are at their defaults."""
    return dataclasses.replace(flat_start_settings(settings), leaves=settings.leaves, min_count=settings.min_count)
