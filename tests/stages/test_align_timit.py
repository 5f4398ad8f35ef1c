"""Real speech with manual boundaries: the flat start finds them from nothing but the phones' order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_kd.alignment.flat_start import flat_start
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.alignment.topology import CannotAlignError, path_segments
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.frames.features import FRAME_SHIFT, fbank
from asr_kd.frames.store import FrameStore
from asr_kd.lang.lexicon import Lang

from ..stores import write_store

RATE = 16000
EDGE = "h#"  # TIMIT's silence before and after an utterance; ours is optional and in no transcript


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


def test_boundaries_of_timit_are_found(timit: tuple[FrameStore, Lang, list[np.ndarray]]) -> None:
    store, lang, truth = timit
    data = TranscribedFrames.of_store(store, lang)
    aligner = flat_start(data, AlignmentConfig(), seed=1)
    graphs, _ = data.graphs(range(len(store.ids)))
    misses = []
    for graph, path, times in zip(graphs.values(), aligner.paths(store, graphs), truth, strict=True):
        assert not isinstance(path, CannotAlignError)
        words = path_segments(graph, path[0]).words()
        boundaries = np.array([start for _, start, _ in words] + [words[-1][2]]) * FRAME_SHIFT
        misses.append(np.abs(boundaries - times))
    within = float((np.concatenate(misses) <= 0.02 + 1e-9).mean())
    assert within >= 0.75, f"{100 * within:.1f} % of the boundaries within 20 ms"
