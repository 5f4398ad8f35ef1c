"""How well a recogniser's confidences tell right words from wrong ones, and what they cost.

    python benchmarks/bench_confidence.py --cuts WORK/data/cuts_dev.jsonl.gz [--every 1] MODEL...

MODEL was written by `asr-kd export SYSTEM DIR --format recogniser`. A word is right where the alignment of the
recognised words with the transcript says so. "nce" is the normalised cross-entropy (Siu and Gish 1999): 1 for
confidences of 0 and 1 that are never wrong, 0 for the share of right words as the confidence of each, below 0 for worse
than that. "auc" is the probability that a right word has a higher confidence than a wrong one, "mean" what confidences
promise beside the share of words that are right. Seconds are for a second of speech, on one thread, without and with
confidences.

Measured with the same model as in bench_runtime.py on the 60 utterances of its dev, each of another speaker:

    | model | words | right | mean | nce | auc | s without | s with |
    |---|--:|--:|--:|--:|--:|--:|--:|
    | rec-distilled | 1802 | 78.2% | 87.9% | 0.047 | 0.855 | 0.016 | 0.030 |
"""

from __future__ import annotations

import os

from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags

os.environ.setdefault("OMP_NUM_THREADS", "1")
choose_mkl_code_path(cpu_flags())  # before torch is loaded, as the commands do

# isort: split
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from utterances import Utterance, parser, speakers_of  # noqa: E402

import asr_kd  # noqa: E402
from asr_kd.decoding.confidence import DRAWS  # noqa: E402
from asr_kd.evaluation.wer import align_words  # noqa: E402
from asr_kd.runtime.recogniser import Recogniser  # noqa: E402


def judged(recogniser: Recogniser, speakers: Sequence[Sequence[Utterance]]) -> tuple[np.ndarray, np.ndarray]:
    """(W,) confidences of all recognised words, and whether each is right."""
    confidences: list[float] = []
    right: list[bool] = []
    for utterances in speakers:
        transcripts = recogniser.transcribe_group([each.samples for each in utterances], confidence=True)
        for utterance, transcript in zip(utterances, transcripts, strict=True):
            pairs = align_words(utterance.words, [word.word for word in transcript.words])
            right += [reference == word for reference, word in pairs if word is not None]
            confidences += [float(word.confidence or 0.0) for word in transcript.words]
    return np.array(confidences), np.array(right)


def normalised_cross_entropy(confidences: np.ndarray, right: np.ndarray) -> float:
    """See above; confidences are at least half a draw from 0 and 1."""
    clipped = confidences.clip(0.5 / DRAWS, 1 - 0.5 / DRAWS)
    share = right.mean()
    most = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    return float(1 + np.log(np.where(right, clipped, 1 - clipped)).mean() / most)


def area_under_the_curve(confidences: np.ndarray, right: np.ndarray) -> float:
    """A tie counts one half."""
    above, below = confidences[right][:, None], confidences[~right][None, :]
    return float((above > below).mean() + 0.5 * (above == below).mean())


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    print("| model | words | right | mean | nce | auc | s without | s with |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for folder in options.models:
        recogniser = asr_kd.load(folder)
        speakers = speakers_of(options.cuts, options.every, recogniser.sampling_rate)
        speech = sum(len(each.samples) for utterances in speakers for each in utterances) / recogniser.sampling_rate
        recogniser.transcribe(speakers[0][0].samples, confidence=True)  # compiles
        started = time.perf_counter()
        for utterances in speakers:
            recogniser.transcribe_group([each.samples for each in utterances])
        between = time.perf_counter()
        confidences, right = judged(recogniser, speakers)
        seconds = between - started, time.perf_counter() - between
        print(
            f"| {folder.name} | {len(right)} | {right.mean():.1%} | {confidences.mean():.1%} | "
            f"{normalised_cross_entropy(confidences, right):.3f} | {area_under_the_curve(confidences, right):.3f} | "
            f"{seconds[0] / speech:.3f} | {seconds[1] / speech:.3f} |"
        )


if __name__ == "__main__":
    main()
