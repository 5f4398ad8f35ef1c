"""What a net loses by the mean that it gets of new speech: of a recording, with frames of training, or a running one.

    python benchmarks/bench_means.py --config CONFIG --work-dir WORK SYSTEM [--set dev] [--every 4] [--frames 300]
    python benchmarks/bench_means.py ... --running 100,200,400 [--seconds 6,12]

The first prints the cross-entropy (nats a frame, first model, by the senones of the alignment) of utterances, of which
each has a mean of its own: for 0 to 400 frames at the mean of training that count with it (`asr_kd.stages.new_speech`),
and for the mean that training had, its speaker's. --frames takes the first so many of each utterance. The second does
so for running means that begin with so many frames of training, by the seconds of their memory.

What it gave: recipes/librispeech/notes/2026-11-30-means-of-recordings.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from asr_kd.frames import normalisation as normalisation_module
from asr_kd.frames.normalisation import Normalisation
from asr_kd.frames.store import FrameStore
from asr_kd.stages.export_posteriors import answering_model
from asr_kd.stages.new_speech import PRIORS, Piece, cross_entropy
from asr_kd.workspace.config import TRAIN
from asr_kd.workspace.config_files import load_config
from asr_kd.workspace.sets import open_frames, open_labels
from asr_kd.workspace.work import Workspace

Normalise = Callable[[FrameStore, int], np.ndarray]  # an utterance -> (T, D) normalised frames


def pieces(
    store: FrameStore, labels: np.ndarray, normalise: Normalise, *, every: int, frames: int | None
) -> Iterator[Piece]:
    """One of so many utterances, or the beginning of it."""
    for utterance in range(0, len(store.ids), every):
        yield normalise(store, utterance)[:frames], np.asarray(labels[store.span(utterance)])[:frames]


def of_recordings(normalisation: Normalisation, frames: int | None) -> Normalise:
    """Each utterance, or its beginning, is all that is known of who speaks."""
    return lambda store, utterance: normalisation.of_unknown_speaker(store.features[store.span(utterance)][:frames])


def running(normalisation: Normalisation, prior_frames: int, seconds: float) -> Normalise:
    """A mean that begins with so many frames of training."""
    with_running = replace(normalisation, running=normalisation.running_mean(seconds))

    def normalise(store: FrameStore, utterance: int) -> np.ndarray:
        normalisation_module.MEAN_PRIOR = prior_frames
        return with_running.of_unknown_speaker(store.features[store.span(utterance)])

    return normalise


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("system")
    options.add_argument("--config", type=Path, required=True)
    options.add_argument("--work-dir", type=Path, required=True)
    options.add_argument("--set", default="dev")
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--frames", type=int)
    options.add_argument("--running", type=numbers, help="frames of training that running means begin with")
    options.add_argument("--seconds", type=numbers, default=[6.0])
    given = options.parse_args()
    config, work = load_config(given.config), Workspace(given.work_dir, given.config)
    store = open_frames(work, given.set)
    labels = open_labels(work, store, config.system(given.system).tree)
    model = answering_model(config, work, given.system)
    new = open_frames(work, TRAIN).normalisation.for_new_speech()
    ways: dict[str, Normalise] = {}
    if given.running is None:
        ways = {f"{prior}": of_recordings(replace(new, prior_frames=prior), given.frames) for prior in PRIORS}
    else:
        for prior in given.running:
            for seconds in given.seconds:
                ways[f"{prior:g} frames, {seconds:g} s"] = running(new, int(prior), seconds)
    ways["speaker"] = lambda store, utterance: store.normalised(utterance)
    for name, normalise in ways.items():
        chosen = pieces(store, labels, normalise, every=given.every, frames=given.frames)
        entropy = cross_entropy(model, chosen)
        print(f"{name}: {entropy:.3f}", flush=True)


if __name__ == "__main__":
    main()
