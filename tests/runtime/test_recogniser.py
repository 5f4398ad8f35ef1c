"""Words of recordings with their times, whole, in pieces and from a stream."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from asr_kd.acoustic.joined import JoinedModels
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.corpora.audio import BadAudio
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.runtime.folder import load_recogniser, write_recogniser
from asr_kd.runtime.recogniser import Recogniser
from asr_kd.runtime.stream import StreamSettings

from .conftest import BINS, RATE, noise


def test_words_follow_each_other_inside_the_recording(parts):
    transcript = Recogniser(parts).transcribe(noise(4.0))
    assert transcript.words and (transcript.start, transcript.end) == (0.0, 4.0)
    edges = [edge for word in transcript.words for edge in (word.start, word.end)]
    assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= 4.0
    assert all(word.end - word.start >= 2.99 * FRAME_SHIFT for word in transcript.words)  # a phone has three states
    assert all(0 < word.confidence <= 1 for word in transcript.words)


def test_a_long_recording_is_that_of_its_pieces_with_their_common_mean(parts):
    recogniser, samples = Recogniser(parts), noise(70.0)
    whole = recogniser.transcribe(samples)
    assert whole.end == pytest.approx(70.0) and whole.words[-1].end > 60
    starts = [word.start for word in whole.words]
    assert starts == sorted(starts)
    features = recogniser.features(samples[: RATE * 2])
    (alone,), together = parts.normalisation.of_new_group([features]), parts.normalisation.of_new_group([features] * 2)
    np.testing.assert_allclose(together[1], alone, atol=1e-5)


def test_recordings_of_one_speaker_share_their_mean(parts):
    recogniser, quiet, loud = Recogniser(parts), noise(2.0) / 50, noise(2.0, 1)
    alone = [recogniser.transcribe(samples) for samples in (quiet, loud)]
    assert [recogniser.transcribe_group([samples])[0] for samples in (quiet, loud)] == alone
    means = [recogniser.features(samples).astype(np.float64).mean(0) for samples in (quiet, loud)]
    normalised = parts.normalisation.of_new_group([recogniser.features(samples) for samples in (quiet, loud)])
    expected = (means[0] - (means[0] + means[1]) / 2) * parts.normalisation.scale
    np.testing.assert_allclose(normalised[0].mean(0), expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["one", "joined"])
def test_a_folder_gives_the_same_words(parts, running, tmp_path, kind):
    if kind == "joined":
        wider = build_model(DnnConfig(layers=1, width=8, left_context=1, right_context=4), num_dims=BINS,
                            num_senones=parts.tree.num_senones, seeds=[4])  # fmt: skip
        wider.precision = "float32"
        parts = replace(running, model=JoinedModels([parts.model, wider]))
    write_recogniser(parts, tmp_path)
    (tmp_path / "moved").mkdir()
    for path in list(tmp_path.iterdir()):
        if path.name != "moved":
            path.rename(tmp_path / "moved" / path.name)
    loaded = load_recogniser(str(tmp_path / "moved"))
    assert loaded.settings == parts.settings
    assert loaded.transcribe(noise(3.0)) == Recogniser(parts).transcribe(noise(3.0))
    assert not list((tmp_path / "moved").rglob("*.pt")) + list((tmp_path / "moved").rglob("*.pkl"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recogniser.json", b'{"sampling_rate": 8000', "recogniser.json"),
        ("recogniser.json", b'{"sampling_rate": -1}', "recogniser.json: .*; export it again"),
        ("recogniser.json", None, "is no exported recogniser .*recogniser.json is missing"),
        ("cmvn.npz", b"", "cmvn.npz is missing or damaged"),
        ("graph.npz", b"PK", "graph.npz is damaged"),
        ("tree.npz", None, "holds no tree.npz"),
        ("lexicon.txt", b"AB a\n", "lexicon.txt"),
        ("model/model.yaml", b"- 1", "model"),
    ],
)
def test_a_damaged_folder_is_one_sentence(parts, tmp_path, name, content, message):
    write_recogniser(parts, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_recogniser(tmp_path)


def test_parts_of_different_systems_are_refused(parts):
    other = build_model(parts.model.settings, num_dims=BINS, num_senones=5, seeds=[1])
    with pytest.raises(UserError, match="they are not of one system"):
        Recogniser(replace(parts, model=other))


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_files_of_any_rate(parts, tmp_path, rate, caplog):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat(noise(1.0), 3)[:rate], rate)
    recogniser = Recogniser(parts)
    assert recogniser.transcribe(path).end == pytest.approx(1.0, abs=0.01)
    assert ("is resampled to 8000" in caplog.text) == (rate != RATE)
    soundfile.write(path, np.stack([noise(1.0), noise(1.0, 1)], 1), RATE)
    with pytest.raises(BadAudio, match="2 channels; choose one by --channel"):
        recogniser.transcribe(path)
    assert recogniser.transcribe(path, channel=1) == recogniser.transcribe(recogniser.read(path, 1))


@pytest.mark.parametrize("samples", [np.zeros(10, np.float32), np.full(RATE, np.nan, np.float32)])
def test_samples_that_are_none_are_refused(parts, samples):
    with pytest.raises(BadAudio, match=r"less than 25 ms|not finite"):
        Recogniser(parts).transcribe(samples)


def test_an_hour_of_zeros_has_an_answer(parts):
    silence = Recogniser(parts).transcribe(np.zeros(RATE * 90, np.float32))
    assert silence.end == 90.0


@pytest.mark.parametrize("portion", [1, 77, 800, 100_000])
def test_a_stream_hears_what_the_whole_recording_has(running, portion):
    """Frames and scores are those of the whole with a running mean; so are the words, where nothing ends early."""
    recogniser, samples = Recogniser(running), noise(2.3 if portion > 1 else 0.6)
    expected = recogniser.loglikes(running.normalisation.of_unknown_speaker(recogniser.features(samples)))
    stream = recogniser.stream(StreamSettings(chunk=7, silence=100, longest=100))
    heard = []
    accept = stream._search.accept
    stream._search.accept = lambda loglikes: (heard.append(loglikes), accept(loglikes))  # type: ignore[method-assign]
    updates = [stream.accept(samples[first : first + portion]) for first in range(0, len(samples), portion)]
    updates.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(heard), expected, atol=2e-3)
    finished = [transcript for update in updates for transcript in update.finished]
    whole = recogniser.transcribe(samples)
    assert [transcript.text for transcript in finished] == ([whole.text] if whole.words else [])
    with pytest.raises(ValueError, match="has ended"):
        stream.accept(samples)


def test_a_stream_ends_a_stretch_when_it_is_too_long(running):
    recogniser = Recogniser(running)
    stream = recogniser.stream(StreamSettings(silence=100, longest=1.0))
    finished = list(stream.accept(noise(9.0)).finished) + list(stream.finish().finished)
    assert len(finished) >= 4 and finished[0].start == 0 and finished[-1].end == pytest.approx(9.0, abs=0.02)
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(finished))
    assert all(transcript.end - transcript.start <= 2.3 for transcript in finished)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(50, np.float32)])
def test_a_stream_of_nothing_has_no_words(parts, samples):
    stream = Recogniser(parts).stream()
    assert stream.accept(samples).finished == () and stream.finish().finished == ()
    with pytest.raises(ValueError, match="not finite float32"):
        Recogniser(parts).stream().accept(np.array([np.inf], np.float32))
