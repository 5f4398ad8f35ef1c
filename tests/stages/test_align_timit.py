"""Real speech with boundaries set by hand: the flat start finds them, from nothing but the phones' order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr_kd.alignment.flat_start import MonophoneAligner, flat_start
from asr_kd.alignment.topology import CannotAlignError, Graph, compile_graph, path_segments
from asr_kd.frames.features import FRAME_SHIFT, fbank
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.lang.lexicon import Lang
from asr_kd.workspace.config import AlignmentConfig

RATE = 16000
EDGE = "h#"  # TIMIT's silence before and after an utterance: ours is optional and in no transcript


class SmallNet:
    """A FrameClassifier like the product's: one hidden layer on a frame and its neighbours, Adam, one epoch a round."""

    def __init__(
        self, store: FrameStore, num_classes: int, settings: AlignmentConfig, seed: int, utterances: list[int]
    ) -> None:
        torch.manual_seed(seed)
        self.context = settings.context
        inputs = (2 * self.context + 1) * store.num_dims
        (width,) = settings.hidden
        self.net = torch.nn.Sequential(
            torch.nn.Linear(inputs, width), torch.nn.ReLU(), torch.nn.Linear(width, num_classes)
        )
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.windows = torch.cat([self._windows(store, u) for u in range(len(store.ids))])

    def _windows(self, store: FrameStore, utterance: int) -> torch.Tensor:
        x = store.normalised(utterance)
        padded = np.pad(x, ((self.context, self.context), (0, 0)), mode="edge")
        return torch.from_numpy(np.hstack([padded[k : k + len(x)] for k in range(2 * self.context + 1)]))

    def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int) -> None:
        inputs, targets = self.windows[torch.from_numpy(frames)], torch.from_numpy(states.astype(np.int64))
        for _ in range(epochs):
            for batch in torch.randperm(len(frames)).split(256):
                self.optimizer.zero_grad()
                torch.nn.functional.cross_entropy(self.net(inputs[batch]), targets[batch]).backward()
                self.optimizer.step()

    def log_posteriors(self, store: FrameStore, utterances: Sequence[int]) -> list[np.ndarray]:
        with torch.no_grad():
            return [self.net(self._windows(store, utterance)).log_softmax(-1).numpy() for utterance in utterances]


@pytest.fixture(scope="module")
def timit(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FrameStore, Lang, list[np.ndarray]]:
    """The sample as a store, its phones as words of one phone, and the true boundaries between them in seconds."""
    names = sorted((shared / "data" / "timit-sample").rglob("*.PHN"))
    if not names:
        pytest.skip("no TIMIT sample in the folder `shared`")
    utterances, texts, truth = [], [], []
    for name in names:
        rows = [line.split() for line in name.read_text().splitlines()]
        samples, rate = soundfile.read(name.with_suffix(".WAV"), dtype="float32")
        assert rate == RATE
        utterances.append((f"{name.parent.name}-{name.stem}", np.asarray(fbank(samples[None], rate, 40))))
        spoken = [(int(a), int(b), phone) for a, b, phone in rows if phone != EDGE]
        texts.append(" ".join(phone for _, _, phone in spoken))
        truth.append(np.array([start for start, _, _ in spoken] + [spoken[-1][1]]) / RATE)
    phones = sorted({phone for text in texts for phone in text.split()})
    lang = Lang(("SIL", *phones), tuple(phones), {phone: ((k + 1,),) for k, phone in enumerate(phones)})
    store = write_store(tmp_path_factory.mktemp("timit") / "store", utterances, texts=texts)
    return store, lang, truth


def share_found(
    aligner: MonophoneAligner, store: FrameStore, graphs: list[Graph], truth: list[np.ndarray], within: float
) -> float:
    """Share of true boundaries that the alignment puts at most `within` seconds away."""
    misses = []
    found = aligner.paths(store, list(range(len(graphs))), graphs, nj=1, progress=None)
    for graph, result, times in zip(graphs, found, truth, strict=True):
        assert not isinstance(result, CannotAlignError)
        words = path_segments(graph, result[0]).words()
        boundaries = np.array([start for _, start, _ in words] + [words[-1][2]]) * FRAME_SHIFT
        misses.append(np.abs(boundaries - times))
    return float((np.concatenate(misses) <= within + 1e-9).mean())


def test_boundaries_of_timit_are_found(timit: tuple[FrameStore, Lang, list[np.ndarray]]) -> None:
    store, lang, truth = timit
    graphs = [compile_graph(text.split(), lang) for text in store.texts]
    everyone, num_classes = list(range(len(graphs))), 3 * len(lang.phones)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        aligner = flat_start(
            store, everyone, graphs, num_classes, AlignmentConfig(), SmallNet, seed=1, nj=1, quiet=True
        )
        found = share_found(aligner, store, graphs, truth, within=0.02)
    finally:
        torch.set_num_threads(threads)
    assert found >= 0.75, f"{100 * found:.1f} % of the boundaries within 20 ms"
