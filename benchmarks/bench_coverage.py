"""How often a 95 % interval of a difference holds the true one, in sets that are made up.

    python benchmarks/bench_coverage.py

Two systems of equal error rates are scored on G speakers of 1000 words each. What a speaker adds to the difference and
what a seed adds to its system's rate are drawn from normal distributions; in the table they are said as standard
deviations of the mean over all speakers and of one seed, in points. The interval is that of the reports
(`asr_kd.evaluation.bootstrap.compare`). Where seeds matter more than speakers, two or three of them are too few for
percentiles: no resample lies beyond the best and the worst seed. Measured (`--trials 400`):

    seeds  speakers  one seed, points  mean of speakers, points  coverage
        1        20              0.20                      0.40    84.5 %
        3        20              0.20                      0.40    94.2 %
        1        40              0.30                      0.10    36.0 %
        3        40              0.30                      0.10    86.8 %
        5        40              0.30                      0.10    92.5 %
       10        40              0.30                      0.10    94.8 %
        1       100              0.30                      0.03    12.0 %
        3       100              0.30                      0.03    85.8 %
       10       100              0.30                      0.03    94.2 %
"""

from __future__ import annotations

import argparse

import numpy as np

from asr_kd.evaluation.bootstrap import compare
from asr_kd.io.formatting import text_table

_WORDS = 1000  # of a speaker
_RATE = 0.3


def coverage(seeds: int, speakers: int, seed_sd: float, speaker_sd: float, trials: int) -> float:
    """Returns the share of trials whose interval holds the true difference, which is 0.

    Args:
      seed_sd: standard deviation of a system's rate over its seeds.
      speaker_sd: standard deviation of the two systems' difference over speakers.
    """
    rng = np.random.default_rng([seeds, speakers])
    totals, groups = np.full(speakers, _WORDS), np.arange(speakers)
    held = 0
    for trial in range(trials):
        of_speaker = rng.normal(_RATE, 0.06, speakers)
        rates = [of_speaker + rng.normal(0, seed_sd, (seeds, 1)) for _ in range(2)]
        rates[1] = rates[1] + rng.normal(0, speaker_sd, speakers)
        difference = compare(
            *(_WORDS * rate for rate in rates), totals, groups=groups, samples=1000, seed=trial
        ).difference
        held += difference.low <= 0 <= difference.high
    return held / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    rows = [["seeds", "speakers", "one seed, points", "mean of speakers, points", "coverage"]]
    for speakers, seed_sd, mean_sd in ((20, 0.002, 0.004), (40, 0.003, 0.001), (100, 0.003, 0.0003)):
        for seeds in (1, 2, 3, 5, 10):
            held = coverage(seeds, speakers, seed_sd, mean_sd * speakers**0.5, trials)
            rows.append(
                [str(seeds), str(speakers), f"{100 * seed_sd:.2f}", f"{100 * mean_sd:.2f}", f"{100 * held:.1f} %"]
            )
    print(text_table(rows))


if __name__ == "__main__":
    main()
