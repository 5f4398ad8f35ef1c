"""What distilling was worth, pair by pair: the rows of the table "When to distil", and what the first lines say.

A pair is one comparison of the config: a network trained directly, the same one distilled, and the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from asr_kd.lang.lexicon import MANY_UNKNOWN
from asr_kd.report.results import Results, SystemRow
from asr_kd.report.worth_results import Distillation, Metric, MetricComparison, Resampled


@dataclass(frozen=True)
class Pair:
    """A comparison on one set, by one metric."""

    comparison: Distillation
    direct: SystemRow
    distilled: SystemRow
    teacher: SystemRow
    metric: Metric
    set: str
    resampled: Resampled

    @property
    def measured(self) -> MetricComparison:
        return self.comparison.sets[self.set].metrics[self.metric.key]

    @property
    def verdict(self) -> Literal["pays", "harms", "unclear", "too-few"]:
        """Whether distilling pays or harms, by the interval of the difference; unclear where that includes 0.

        No verdict where too few utterances or speakers are resampled.
        """
        if self.resampled.too_few:
            return "too-few"
        low, high = sorted(self.sign * end for end in self.measured.difference.ci95)
        return "pays" if high < 0 else "harms" if low > 0 else "unclear"

    @property
    def sign(self) -> int:
        """The sign of a change of the metric for the worse."""
        return 1 if self.metric.lower_is_better else -1

    def value(self, system: SystemRow) -> float:
        """The metric of one of the three."""
        return float(getattr(system, self.metric.key)[self.set])

    def interval(self, system: SystemRow) -> tuple[float, float]:
        """The 95 % interval of the difference."""
        low, high = getattr(system, f"{self.metric.key}_ci95")[self.set]
        return low, high


def error_metrics(results: Results) -> list[Metric]:
    """The metrics that are rates of errors."""
    return [metric for metric in results.metrics if metric.lower_is_better]


def pairs(results: Results, name: str, metric: Metric) -> list[Pair]:
    """The comparisons on a set, the smallest network first."""
    of_config = [
        Pair(
            c,
            results.row(c.direct),
            results.row(c.distilled),
            results.row(c.teacher),
            metric,
            name,
            results.resampled[name],
        )
        for c in results.all_comparisons
    ]
    return sorted(of_config, key=lambda pair: pair.distilled.parameters)


def with_one_seed(results: Results) -> list[SystemRow]:
    """The direct and distilled networks, each trained once, of which nobody knows what another seed would give."""
    names = dict.fromkeys(name for c in results.all_comparisons for name in (c.direct, c.distilled))
    return [row for row in map(results.row, names) if row.seeds == 1 and not row.is_ensemble]


def with_many_unknown(results: Results) -> list[str]:
    """The test sets of whose words a tenth or more are outside the vocabulary."""
    known = results.systems[0].oov if results.systems else {}
    return [name for name in results.test_sets if name in known and known[name].rate >= MANY_UNKNOWN]


def by_worth(of_set: Sequence[Pair]) -> list[Pair]:
    """The pair to which distilling gave most first."""
    return sorted(of_set, key=lambda pair: pair.sign * pair.measured.difference.value)


def smaller_as_good(of_set: Sequence[Pair]) -> tuple[Pair, Pair] | None:
    """A pair whose distilled network is as good as the direct one of a larger pair, with the larger pair.

    Both are of one kind, and learnt from the same share of the training data and from the same untranscribed sets. Of
    several, the two that differ most in size.
    """
    candidates = [
        (small, large)
        for small in of_set
        for large in of_set
        if small.distilled.parameters < large.direct.parameters
        and small.distilled.kind == large.direct.kind
        and small.distilled.train_fraction == large.direct.train_fraction
        and small.distilled.extra == large.direct.extra
        and small.sign * small.value(small.distilled) <= large.sign * large.value(large.direct)
    ]
    ratios = [large.direct.parameters / small.distilled.parameters for small, large in candidates]
    return candidates[ratios.index(max(ratios))] if candidates else None
