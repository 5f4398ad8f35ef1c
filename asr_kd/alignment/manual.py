"""Labels from manual phone times: each phone's frames are split over its HMM states, inside its boundaries.

Shapes:  T frames of an utterance, K phones, C context-independent states.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.topology import NUM_HMM_STATES, CannotAlignError, TranscriptGraph
from asr_kd.alignment.transcripts import Starts
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import open_text
from asr_kd.kernels import compiled


def read_starts(cuts: Path, store: FrameStore, frame_seconds: float) -> Starts:
    """Reads the first frame of each phone of each utterance from the phone times in a list of cuts.

    The times of altered copies are altered likewise. An utterance with fewer frames than phones is not in the result.

    Args:
      frame_seconds: from one frame of the store to the next.

    Raises:
      UserError: a cut has no phone times, or the store has an utterance that is no cut.
    """
    seconds: dict[str, NDArray[np.float64]] = {}
    with open_text(cuts, "the list of cuts", "delete it and prepare the corpus again") as lines:
        for line in lines:
            cut = json.loads(line)
            phones = (cut["supervisions"][0].get("alignment") or {}).get("phone")
            if not phones:
                raise UserError(
                    f"{cuts}: {cut['id']} has no times of phones, which alignment.labels: manual needs; they come from "
                    "corpora that have them, where corpus.transcripts is phones."
                )
            seconds[cut["id"]] = np.array([start for _, start, *_ in phones])
    starts: Starts = {}
    for utterance, original in enumerate(store.originals):
        if original not in seconds:
            raise UserError(f"{store.folder} has an utterance {original} that {cuts} does not have.")
        num_frames = int(store.offsets[utterance + 1] - store.offsets[utterance])
        times = seconds[original] / float(store.speeds[utterance])
        first_frames = frames_of(times, num_frames, frame_seconds)
        if first_frames is not None:
            starts[utterance] = first_frames
    return starts


def frames_of(seconds: NDArray[np.float64], num_frames: int, frame_seconds: float) -> NDArray[np.int32] | None:
    """(K,) times at which phones begin -> (K + 1,) their first frames and T; each phone gets at least one frame.

    None where there are fewer frames than phones.

    Args:
      frame_seconds: from one frame to the next.
    """
    if num_frames < len(seconds):
        return None
    starts = np.append(np.round(seconds / frame_seconds), num_frames).astype(np.int32)
    order = np.arange(len(starts), dtype=np.int32)
    starts[0] = 0
    # strictly rising from left to right, then moved back where too few frames are left for the phones that follow
    starts = np.maximum.accumulate(starts - order) + order
    starts = np.minimum(starts, num_frames - order[::-1])
    starts[-1] = num_frames
    return starts.astype(np.int32)


def equal_split(graph: TranscriptGraph) -> NDArray[np.int32]:
    """(T,) states of the graph: each phone's frames shared equally by its states."""
    starts = _starts(graph)
    path = np.empty(starts[-1], np.int32)
    for node, (begin, end) in enumerate(itertools.pairwise(starts)):
        inside = np.arange(end - begin)
        path[begin:end] = NUM_HMM_STATES * node + (2 * inside + 1) * NUM_HMM_STATES // (2 * (end - begin))
    return path


def best_split(log_likelihoods: NDArray[np.float32], graph: TranscriptGraph) -> tuple[NDArray[np.int32], float]:
    """The most likely path through each phone's states that keeps to the boundaries.

    A phone of one frame has its middle state alone, a phone of two frames its first and last.

    Args:
      log_likelihoods: (T, C) natural logarithms.

    Returns:
      (T,) states of the graph, and the sum of their log-likelihoods.

    Raises:
      CannotAlignError: the likelihoods are not of as many frames as the phone times.
    """
    starts = _starts(graph)
    if len(log_likelihoods) != starts[-1]:
        raise CannotAlignError(f"it has {len(log_likelihoods)} frames, but its phones have {starts[-1]}")
    path = np.empty(starts[-1], np.int32)
    score = _split(np.ascontiguousarray(log_likelihoods, np.float32), graph.classes, starts, path)
    return path, float(score)


def _starts(graph: TranscriptGraph) -> NDArray[np.int32]:
    assert graph.starts is not None, "this graph has no manual times"
    return graph.starts


@compiled()
def _split(ll, classes, starts, path):  # type: ignore[no-untyped-def]
    total = 0.0
    for node in range(len(starts) - 1):
        begin, end = starts[node], starts[node + 1]
        a, b, c = classes[3 * node], classes[3 * node + 1], classes[3 * node + 2]
        if end - begin == 1:
            path[begin] = 3 * node + 1
            total += ll[begin, b]
            continue
        if end - begin == 2:
            path[begin] = 3 * node
            path[begin + 1] = 3 * node + 2
            total += ll[begin, a] + ll[begin + 1, c]
            continue
        # the best score of frame t in the first, second or third state, and the frame in which each state was entered
        first = ll[begin, a] * 1.0
        second = third = -np.inf
        into_second = into_third = second_of_third = begin
        for t in range(begin + 1, end):
            if second >= third:
                from_second, entered = second, into_second
                stays = False
            else:
                from_second, entered = third, second_of_third
                stays = True
            third = from_second + ll[t, c]
            if not stays:
                into_third = t
            second_of_third = entered
            if first >= second:
                second = first
                into_second = t
            second += ll[t, b]
            first += ll[t, a]
        total += third
        for t in range(begin, end):
            path[t] = 3 * node + (2 if t >= into_third else 1 if t >= second_of_third else 0)
    return total
