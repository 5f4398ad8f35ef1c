"""Where the flat start begins with labels from elsewhere: for each utterance the path that agrees with them best.

Labels are another lexicon's phones, silence apart from ours, and perhaps of frames of another length. So no label is
taken as it is: the path is the best one through the graph of the transcript, where a state scores by the label of the
frame and by the third of the label that the frame lies in. Where most labels have no name of ours (numbers of pdfs,
other phone sets), what each stands for is learnt: rounds of {count labels in states, realign} from the equal alignment.

Shapes:  T frames of an utterance, K labels of it, L names of labels, C context-independent states.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.boundaries import POSITION, SILENT
from asr_kd.alignment.given_labels import GivenLabels
from asr_kd.alignment.topology import NUM_HMM_STATES, SIL, CannotAlignError, TranscriptGraph, equal_alignment
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.alignment.viterbi import viterbi
from asr_kd.errors import UserError, some_of

UNKNOWN = -1  # of a label that is no phone of ours
_OTHER_PHONE, _OTHER_STATE = -10.0, -1.0  # scores, where 0 is the state that a label names
_NOISE = frozenset({"SPN", "NSN"})  # where words without pronunciation are said: any phone
_STRESS = re.compile(r"\d$")
_SLACK = 3  # frames by which lengths may differ: at the edges of a recording aligners count them differently
_SUBSAMPLING = 3  # of chain models: a label each 30 ms
_LEAST_AGREEMENT = 0.5  # of the frames whose label is a phone of ours
_ROUNDS = 10  # of learning what labels stand for

Paths = dict[int, NDArray[np.int32]]  # utterance -> (T,) states of its graph
Symbols = dict[int, NDArray[np.int32]]  # utterance -> (T,) of frames, see `frame_symbols`


@dataclass(frozen=True)
class LabelledStart:
    """The first paths of the utterances whose labels can be used.

    Attributes:
      paths: by the utterances' numbers.
      notes: lines on what could not be used, with names and counts.
    """

    paths: Paths
    notes: Sequence[str]


def match_phone(label: str, phones: Mapping[str, int]) -> int:
    """The index of a label's phone; UNKNOWN where there is none.

    Where the phones have none, a position in the word (_B, _I, _E, _S) and a digit for stress or tone do not count, nor
    does case.

    >>> phones = {"SIL": 0, "AA": 1, "b": 2}
    >>> [match_phone(label, phones) for label in ("AA1_B", "aa", "b_S", "sil", "", "ZH", "spn")]
    [1, 1, 2, 0, 0, -1, -1]
    """
    forms = [label, POSITION.sub("", label)]
    forms += [_STRESS.sub("", form) for form in forms]
    for form in (*forms, *(form.upper() for form in forms), *(form.lower() for form in forms)):
        if form in phones:
            return phones[form]
    name = forms[1].upper()
    return SIL if name in SILENT - _NOISE else UNKNOWN


def label_paths(labels: GivenLabels, data: TranscribedFrames, graphs: Mapping[int, TranscriptGraph]) -> LabelledStart:
    """The first path of each of these utterances whose labels fit it; the notes name the others.

    Raises:
      UserError: no utterance has labels that can be used.
    """
    symbols, problems = _fitted(labels, data, graphs)
    index = {phone: number for number, phone in enumerate(data.lang.phones)}
    phone_of = np.array([match_phone(name, index) for name in labels.names])
    frames = np.zeros(len(phone_of), np.int64)  # with each label
    for of_one in symbols.values():
        frames += np.bincount(of_one // NUM_HMM_STATES, minlength=len(frames))
    unknown = [f"{labels.names[k]} ({frames[k]})" for k in np.argsort(-frames) if phone_of[k] == UNKNOWN and frames[k]]
    notes = [f"labels that are no phones here, with their frames: {some_of(unknown)}"] if unknown else []
    if frames[phone_of == UNKNOWN].sum() > frames[phone_of > SIL].sum():
        notes.append("these are most: what each label stands for was learnt from the transcripts")
        paths = _learnt_paths(symbols, graphs, len(phone_of), len(index))
    else:
        paths, others = _named_paths(symbols, graphs, phone_of, len(index))
        problems["with labels of other words"] = [data.frames.ids[utterance] for utterance in others]
    refused = [f"{len(names)} utterances {reason}: {some_of(names)}" for reason, names in problems.items() if names]
    if not paths:
        raise UserError(
            f"{labels.folder}: none of its labels can be used ({'; '.join([*refused, *notes])}); name a folder with "
            "phones of these recordings, one for each 10 or 30 ms."
        )
    notes.insert(
        0, f"{labels.folder}: labels of {len(paths)} of {len(graphs)} utterances are where the flat start began"
    )
    return LabelledStart(paths, [*notes, *(f"began with an equal alignment: {line}" for line in refused)])


def _fitted(
    labels: GivenLabels, data: TranscribedFrames, utterances: Iterable[int]
) -> tuple[Symbols, dict[str, list[str]]]:
    """The symbols of the utterances whose labels have their length; what is wrong -> the names of the others."""
    symbols: Symbols = {}
    problems: dict[str, list[str]] = {}
    for utterance in utterances:
        name, span = data.frames.ids[utterance], data.span(utterance)
        spans, num_frames = labels.spans.get(name), span.stop - span.start
        if spans is None:
            problems.setdefault("without labels", []).append(name)
        elif (fitted := frame_symbols(spans, num_frames)) is None:
            lengths = f"{name} ({_length(spans)} frames, the recording has {num_frames})"
            problems.setdefault("with labels of another length", []).append(lengths)
        else:
            symbols[utterance] = fitted
    return symbols, problems


def frame_symbols(spans: NDArray[np.void], num_frames: int) -> NDArray[np.int32] | None:
    """(T,) 3 * label + third of the label, for each frame; None where the labels are of another length.

    Frames without a label are silent (label 0). A label for every third frame counts for three. Where labels leave no
    gap, what they are too short by lies at both edges: Kaldi's frames lie within the recording (snip_edges).

    >>> spans = np.array([(1, 0, 2), (2, 2, 8)], dtype=[("label", "i4"), ("start", "f4"), ("end", "f4")])
    >>> frame_symbols(spans, 8).tolist()
    [3, 5, 6, 6, 7, 7, 8, 8]
    """
    starts, ends, length, factor = spans["start"], spans["end"], _length(spans), 1
    if length == 0:
        return None
    no_gap = bool((np.append(starts, length) - np.append(0, ends) < 0.5).all())
    if no_gap and length < num_frames - _SLACK and abs(num_frames - _SUBSAMPLING * length) < _SUBSAMPLING + _SLACK:
        factor = _SUBSAMPLING
    missing = num_frames - factor * length
    if missing < -factor * _SLACK or (no_gap and missing > factor * _SLACK):
        return None
    delay = 0
    if no_gap:  # chain models label the first of three frames, and the second where frames lie within the recording
        delay = max(missing, 0) // 2 if factor == 1 else max(-1, min(missing, 0))
    first, last = (
        np.clip(np.round(factor * times + delay), 0, num_frames).astype(np.int64) for times in (starts, ends)
    )
    if no_gap:
        first[0], last[-1] = 0, num_frames
    lengths = np.maximum(last - first, 0)
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    thirds = (2 * inside + 1) * NUM_HMM_STATES // (2 * np.repeat(lengths, lengths))
    symbols = np.full(num_frames, NUM_HMM_STATES // 2, np.int32)
    symbols[np.repeat(first, lengths) + inside] = NUM_HMM_STATES * np.repeat(spans["label"], lengths) + thirds
    return symbols


def _length(spans: NDArray[np.void]) -> int:
    """Frames up to the end of the last label."""
    return round(float(spans["end"].max(initial=0.0)))


def _named_paths(
    symbols: Symbols, graphs: Mapping[int, TranscriptGraph], phone_of: NDArray[np.int64], num_phones: int
) -> tuple[Paths, list[int]]:
    """Paths by the names of the labels, and the utterances whose transcripts disagree with most of their labels."""
    scores = np.zeros((NUM_HMM_STATES * len(phone_of), NUM_HMM_STATES * num_phones), np.float32)
    for label in np.flatnonzero(phone_of != UNKNOWN):
        rows, states = (slice(NUM_HMM_STATES * k, NUM_HMM_STATES * (k + 1)) for k in (label, phone_of[label]))
        scores[rows] = _OTHER_PHONE
        scores[rows, states] = _OTHER_STATE * (1 - np.eye(NUM_HMM_STATES))
    paths, others = _best_paths(scores, symbols, graphs), []
    for utterance, path in list(paths.items()):
        named = phone_of[symbols[utterance] // NUM_HMM_STATES]
        known = named != UNKNOWN
        same = graphs[utterance].phone[path // NUM_HMM_STATES] == named
        if same[known].sum() < _LEAST_AGREEMENT * known.sum():
            others.append(utterance)
            del paths[utterance]
    return paths, others


def _learnt_paths(symbols: Symbols, graphs: Mapping[int, TranscriptGraph], num_labels: int, num_phones: int) -> Paths:
    """Paths by how often a symbol is seen in each state, counted on the paths of the round before."""
    paths: Paths = {}
    for utterance, of_one in symbols.items():
        with contextlib.suppress(CannotAlignError):  # the alignment of the whole set names it
            paths[utterance] = equal_alignment(graphs[utterance], len(of_one))
    num_symbols, num_states = NUM_HMM_STATES * num_labels, NUM_HMM_STATES * num_phones
    for _ in range(_ROUNDS if paths else 0):
        pairs = np.concatenate(
            [symbols[u].astype(np.int64) * num_states + graphs[u].classes[path] for u, path in paths.items()]
        )
        counts = np.bincount(pairs, minlength=num_symbols * num_states).reshape(num_symbols, num_states)
        smoothed = counts + counts.sum(1, keepdims=True) / counts.sum()
        with np.errstate(divide="ignore"):  # a symbol that no frame has
            scores = np.log(smoothed / smoothed.sum(0))
        paths |= _best_paths(scores.astype(np.float32), symbols, {utterance: graphs[utterance] for utterance in paths})
    return paths


def _best_paths(scores: NDArray[np.float32], symbols: Symbols, graphs: Mapping[int, TranscriptGraph]) -> Paths:
    """The best path of each utterance that has symbols and enough frames.

    Args:
      scores: (3 L, C) of each symbol in each state.
    """
    paths: Paths = {}
    for utterance, of_one in symbols.items():
        with contextlib.suppress(CannotAlignError):
            paths[utterance], _ = viterbi(scores[of_one], graphs[utterance])
    return paths
