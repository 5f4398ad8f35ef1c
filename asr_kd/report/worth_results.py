"""The part of results.json that says what distilling was worth: metrics, what is resampled, and comparisons."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT

Ends = tuple[float, float]  # low and high of a 95 % interval

FEWEST_RESAMPLED = 10  # intervals over fewer utterances or speakers are too narrow for a verdict


@dataclass(frozen=True, config=STRICT)
class Metric:
    """A number that systems are compared by: a field of `SystemRow`, with its interval in the field `<key>_ci95`."""

    key: str
    name: str  # "word error rate"
    unit: str  # what is counted: "frame", "word", "character" or "phone"
    lower_is_better: bool


@dataclass(frozen=True, config=STRICT)
class Resampled:
    """What the 95 % intervals of a set are over; means over seeds, and what compares them, are over the seeds too."""

    over: Literal["speaker", "utterance"]
    number: int
    speakers: int | None = None  # who speak in the set; null: one is not known, or an older report did not say

    @property
    def too_few(self) -> bool:
        """Whether nothing can be said of other speech of the kind."""
        return self.number < FEWEST_RESAMPLED


@dataclass(frozen=True, config=STRICT)
class GainKept:
    """(distilled - direct) / (teacher - direct) on the main test set; null where the teacher has no clear gain."""

    frame_accuracy: float | None
    cross_entropy: float | None
    wer: float | None
    per: float | None  # null also where phones were not decoded beside words
    frame_accuracy_dev: float | None  # on dev


@dataclass(frozen=True, config=STRICT)
class Difference:
    """The difference of two systems on the same utterances, with its 95 % interval."""

    value: float
    ci95: Ends


@dataclass(frozen=True, config=STRICT)
class MetricComparison:
    """What distilling was worth by one metric on one set."""

    difference: Difference  # distilled minus direct
    p_distilled_better: float  # paired probability that the distilled system is the better one; a tie counts one half
    gain: Difference  # teacher minus direct
    gain_is: Literal["clear", "uncertain", "none"]  # uncertain: its interval includes 0; none: the teacher is no better
    share_kept: float | None  # difference / gain; null unless the gain is clear
    share_kept_ci95: Ends | None


@dataclass(frozen=True, config=STRICT)
class SetComparison:
    """What distilling was worth on one set."""

    metrics: dict[str, MetricComparison]  # by `Metric.key`
    cross_entropy_kept: float | None  # the share of the teacher's gain; null where the teacher is no better


@dataclass(frozen=True, config=STRICT)
class Distillation:
    """One comparison of the config: the same model on hard labels and distilled, and its teacher."""

    direct: str
    distilled: str
    teacher: str
    temperature: float
    soft_weight: float
    mean: Literal["arithmetic", "geometric"]
    loss: str
    out_of_fold: int  # folds of the teacher, each of whose members labels what it did not train on; 0: none
    seeds: int
    gain_kept: GainKept
    p_distilled_better: float  # in the rate of errors on the main test set
    sets: dict[str, SetComparison]
