"""Realignment on speech whose phones sound different between other phones, and whose boundaries are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from asr_kd.acoustic.settings import DnnConfig, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl
from asr_kd.alignment.aligner import UtteranceAlignment, load_aligner
from asr_kd.alignment.flat_start import flat_start
from asr_kd.alignment.realignment import align, realign
from asr_kd.alignment.settings import FLAT_START_MODEL, AlignmentConfig, RealignConfig
from asr_kd.alignment.topology import SIL, CannotAlignError
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.frames.source import ArrayFrames
from asr_kd.lang.lexicon import Lang

LANG = Lang(("SIL", "A", "B", "C"), ("AB", "BA", "CA"), {"AB": ((1, 2),), "BA": ((2, 1),), "CA": ((3, 1), (3,))})
SETTINGS = AlignmentConfig(
    rounds=6,
    model=dataclasses.replace(FLAT_START_MODEL, width=32),
    leaves=40,
    min_count=20,
    batch_size=128,
    realign=RealignConfig(
        model=DnnConfig(layers=1, width=64, left_context=4, right_context=4),
        training=TrainingConfig(epochs=4, batch_size=64, learning_rate=5e-3),
    ),
)


def speech(count: int = 60) -> tuple[TranscribedFrames, list[np.ndarray]]:
    """Each phone's frames depend on the phones around it; returns the utterances and the phone of each frame."""
    rng = np.random.default_rng(2)
    centres, coarticulation = rng.normal(0, 1.2, (4, 8)), rng.normal(0, 0.8, (2, 4, 4, 8))
    features, texts, truth = [], [], []
    for _ in range(count):
        words = rng.choice(LANG.words, 5).tolist()
        phones = [SIL, *(phone for word in words for phone in LANG.pronunciations[word][0]), SIL]
        lengths = rng.integers(4, 12, len(phones))
        frames = []
        for k, (phone, length) in enumerate(zip(phones, lengths.tolist(), strict=True)):
            place = np.linspace(1, 0, length)[:, None]
            left, right = phones[max(k - 1, 0)], phones[min(k + 1, len(phones) - 1)]
            heard = place * coarticulation[0, phone, left] + (1 - place) * coarticulation[1, phone, right]
            frames.append(centres[phone] + heard + rng.normal(0, 0.5, (length, 8)))
        features.append(np.concatenate(frames))
        texts.append(" ".join(words))
        truth.append(np.repeat(phones, lengths))
    durations = np.array([len(frames) * 0.01 for frames in features])
    data = TranscribedFrames(ArrayFrames(features), texts, np.ones(count, bool), durations, LANG)
    return data, truth


def share_wrong(results: Iterable[UtteranceAlignment | CannotAlignError], truth: list[np.ndarray]) -> float:
    """The share of frames that have another phone than the true one."""
    wrong = []
    for result, phones in zip(results, truth, strict=True):
        assert not isinstance(result, CannotAlignError)
        wrong.append(result.states // 3 != phones)
    return float(np.concatenate(wrong).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [SETTINGS.realign.model, TdnnConfig(width=24, dilations=(1, 2), chunk_frames=20)], ids=["dnn", "tdnn"]
)
def test_boundaries_get_better_and_the_aligner_is_read_back(model: DnnConfig | TdnnConfig, tmp_path: Path) -> None:
    data, truth = speech()
    settings = dataclasses.replace(SETTINGS, realign=dataclasses.replace(SETTINGS.realign, model=model))
    first = flat_start(data, settings, seed=1)
    second = realign(first, data, settings, RunControl(seed=1))
    assert second.tree is not None and first.tree is None
    assert 12 < second.tree.num_senones == len(second.log_priors) <= 40  # contexts that the flat start cannot see
    wrong = [share_wrong(aligner.align(data, range(60)).values(), truth) for aligner in (first, second)]
    assert wrong[1] < 0.8 * wrong[0]
    second.save(tmp_path)
    again = load_aligner(tmp_path)
    for one, other in zip(second.align(data, [0, 7]).values(), again.align(data, [0, 7]).values(), strict=True):
        assert not isinstance(one, CannotAlignError) and not isinstance(other, CannotAlignError)
        assert np.array_equal(one.states, other.states) and one.score == other.score


def test_the_same_seed_gives_the_same_aligner_and_copies_do_not_count() -> None:
    """An altered copy of an utterance changes nothing, as only unaltered ones are learnt from."""
    data, _ = speech(20)
    first = flat_start(data, SETTINGS, seed=1)
    unaltered = np.append(data.unaltered, False)
    frames = ArrayFrames([*(data.frames.normalised(u) for u in range(20)), data.frames.normalised(3)], np.ones(8))
    more = dataclasses.replace(
        data,
        frames=frames,
        texts=[*data.texts, data.texts[3]],
        unaltered=unaltered,
        durations=np.append(data.durations, 1.0),
    )
    plain = dataclasses.replace(data, frames=ArrayFrames([data.frames.normalised(u) for u in range(20)], np.ones(8)))
    aligners = [realign(first, of, SETTINGS, RunControl(seed=4)) for of in (plain, more)]
    one, other = (aligner.align(plain, range(20)) for aligner in aligners)
    for a, b in zip(one.values(), other.values(), strict=True):
        assert not isinstance(a, CannotAlignError) and not isinstance(b, CannotAlignError)
        assert np.array_equal(a.states, b.states) and a.score == b.score


@pytest.mark.slow
def test_the_librarys_function_realigns_as_its_settings_say() -> None:
    data, truth = speech(40)
    features = [data.frames.normalised(u) for u in range(40)]
    wrong = {}
    for rounds in (0, 2):
        settings = dataclasses.replace(SETTINGS, realign=dataclasses.replace(SETTINGS.realign, rounds=rounds))
        wrong[rounds] = share_wrong(align(features, data.texts, LANG, settings), truth)
    assert wrong[2] < 0.8 * wrong[0]


def test_blocks_of_posteriors_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many senones fewer utterances are searched at once, with the same result."""
    data, _ = speech(12)
    aligner = flat_start(data, SETTINGS, seed=1)
    whole = aligner.align(data, range(12))
    asked: list[int] = []
    real = type(aligner.classifier).log_posteriors

    def noted(self: object, source: object, utterances: list[int]) -> object:
        asked.append(len(utterances))
        return real(self, source, utterances)  # type: ignore[arg-type]

    monkeypatch.setattr(type(aligner.classifier), "log_posteriors", noted)
    longest = int(np.diff(data.frames.offsets).max())
    monkeypatch.setattr("asr_kd.alignment.aligner._BLOCK_SCORES", 2 * longest * len(aligner.log_priors))
    parts = aligner.align(data, range(12))
    assert sum(asked) == 12 and 1 < max(asked) < 12
    for a, b in zip(whole.values(), parts.values(), strict=True):
        assert not isinstance(a, CannotAlignError) and not isinstance(b, CannotAlignError)
        assert np.array_equal(a.states, b.states)
