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
from asr_kd.decoding.decoder import Hypothesis
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


class Heard:
    """The frames that reach the net of a recogniser."""

    def __init__(self, recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[np.ndarray] = []
        forward = recogniser.loglikes

        def loglikes(normalised: np.ndarray) -> np.ndarray:
            self.frames.append(normalised.copy())
            return forward(normalised)

        monkeypatch.setattr(recogniser, "loglikes", loglikes)

    @property
    def all(self) -> np.ndarray:
        return np.concatenate(self.frames)


@pytest.mark.parametrize("mean", ["utterance", "running"])
def test_pieces_of_a_recording_are_normalised_as_one(parts, running, mean, monkeypatch):
    recogniser, samples = Recogniser(parts if mean == "utterance" else running), noise(70.0)
    heard = Heard(recogniser, monkeypatch)
    transcript = recogniser.transcribe(samples)
    assert transcript.end == pytest.approx(70.0) and transcript.words[-1].end > 60 and len(heard.frames) >= 3
    starts = [word.start for word in transcript.words]
    assert starts == sorted(starts)
    expected = recogniser.parts.normalisation.of_unknown_speaker(recogniser.features(samples))
    inside = np.ones(len(expected), bool)
    for cut in np.cumsum([len(frames) for frames in heard.frames])[:-1]:
        inside[cut - 2 : cut + 2] = False  # whose windows reach over the cut
    np.testing.assert_allclose(heard.all[inside], expected[inside], atol=2e-2)


def test_recordings_of_one_speaker_share_their_mean(parts, monkeypatch):
    recogniser, recordings = Recogniser(parts), [noise(2.0) / 50, noise(3.0, 1)]
    heard = Heard(recogniser, monkeypatch)
    recogniser.transcribe_group(iter(recordings))
    features = [recogniser.features(samples).astype(np.float64) for samples in recordings]
    expected = (np.concatenate(features) - np.concatenate(features).mean(0)) * parts.normalisation.scale
    np.testing.assert_allclose(heard.all, expected, atol=1e-3)
    assert recogniser.transcribe_group([]) == []


@pytest.mark.parametrize("rate", [11025, 16000, 22050])
def test_times_are_those_of_the_recording_at_any_rate(running, rate):
    """Where 10 ms are no whole number of samples, frames are a little shorter."""
    recogniser = Recogniser(replace(running, settings=replace(running.settings, sampling_rate=rate)))
    samples = np.resize(noise(10.0), 65 * rate)
    assert recogniser.transcribe(samples).end == pytest.approx(65, abs=0.01)
    stream = recogniser.stream(StreamSettings(silence=100, longest=10))
    finished = [*stream.accept(samples).finished, *stream.finish().finished]
    assert finished[-1].end == pytest.approx(65, abs=0.01)


@pytest.mark.parametrize("seconds", [30.004, 30.02, 60.01])
def test_no_piece_is_too_short_for_words(parts, seconds):
    samples = noise(seconds) * np.linspace(1, 1e-4, round(seconds * RATE)).astype(np.float32)
    assert Recogniser(parts).transcribe(samples).lost == ()


@pytest.mark.parametrize("length", range(2 * RATE, 2 * RATE + 240, 40))
def test_the_end_of_a_stream_is_not_lost_for_being_short(running, length):
    stream = Recogniser(running).stream(StreamSettings(chunk=10, silence=100, longest=0.5))
    updates = [stream.accept(noise(3.0)[:length]), stream.finish()]
    assert not [stretch for update in updates for each in update.finished for stretch in each.lost]


@pytest.mark.parametrize("settings", [{"chunk": 0}, {"chunk": -1}, {"silence": 0.0}, {"longest": float("nan")}])
def test_settings_of_a_stream_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        StreamSettings(**settings)


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
        ("recogniser.json", None, r"is no exported recogniser \(recogniser.json is missing\); make a recogniser"),
        ("cmvn.npz", b"", "cmvn.npz is missing or damaged"),
        ("graph.npz", b"PK", "graph.npz is damaged"),
        ("tree.npz", None, "holds no tree.npz"),
        ("tree.npz", b"changed", "tree.npz is damaged"),
        ("phones.txt", b"SIL\na\nb\nc\nd\n", "tree and lexicon have other phones"),
        ("words.txt", b"AB\nBEE\n", None),
        ("lexicon.txt", b"AB a\nBEE b\nBEER b c\nC c\nSEA c\nX a\n", None),
        ("lexicon.txt", b"AB a\n", "lexicon.txt"),
        ("model/model.yaml", b"- 1", "model"),
    ],
)
def test_a_damaged_folder_is_one_sentence(parts, tmp_path, name, content, message):
    write_recogniser(parts, tmp_path)
    written = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if content == b"changed":  # in the middle, where the compressed numbers are
        content = written[:200] + bytes(255 - byte for byte in written[200:230]) + written[230:]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if message is None:
        assert load_recogniser(tmp_path).transcribe(noise(2.0)).words
        return
    with pytest.raises(UserError, match=message) as error:
        load_recogniser(tmp_path)
    advice = f"asr-kd export SYSTEM {tmp_path} --format recogniser --config CONFIG."
    assert str(error.value).endswith(advice) and "asr-kd decode" not in str(error.value)


@pytest.mark.parametrize("changed", [{"scale": np.full(BINS, np.nan, np.float32)}, {"means": np.zeros((0, BINS))},
                                     {"prior": np.zeros(BINS, np.float32), "running_seconds": np.zeros(())},
                                     {"prior": np.zeros(BINS, np.float32), "running_seconds": np.ones(2)}])  # fmt: skip
def test_a_normalisation_that_divides_by_nothing_is_refused(parts, tmp_path, changed):
    write_recogniser(parts, tmp_path)
    with np.load(tmp_path / "cmvn.npz") as arrays:
        written = dict(arrays)
    np.savez(tmp_path / "cmvn.npz", **written | changed)
    with pytest.raises(UserError, match=r"cmvn\.npz is missing or damaged"):
        load_recogniser(tmp_path)


def test_parts_of_different_systems_are_refused(parts):
    other = build_model(parts.model.settings, num_dims=BINS, num_senones=5, seeds=[1])
    with pytest.raises(UserError, match="the model has 5 senones, the tree 24 and the graph 24"):
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
    with pytest.raises(BadAudio, match="2 channels, but --channel names channel 5"):
        recogniser.transcribe(path, channel=5)
    with_channel = replace(parts, settings=replace(parts.settings, channel=1))
    assert Recogniser(with_channel).transcribe(path) == recogniser.transcribe(path, channel=1)
    assert recogniser.transcribe(path, channel=1) == recogniser.transcribe(recogniser.read(path, 1))


@pytest.mark.parametrize("samples", [np.zeros(10, np.float32), np.full(RATE, np.nan, np.float32)])
def test_samples_that_are_none_are_refused(parts, samples):
    with pytest.raises(BadAudio, match=r"less than 25 ms|not finite"):
        Recogniser(parts).transcribe(samples)


def test_silence_has_an_answer(parts, tmp_path):
    recogniser = Recogniser(parts)
    soundfile.write(tmp_path / "muted.wav", np.zeros(RATE * 3600, np.int16), RATE)
    assert recogniser.transcribe(tmp_path / "muted.wav").end == 3600.0
    assert recogniser.transcribe(noise(2.0)[::-1]).end == 2.0  # an array that is read backwards


def test_confidences_are_there_where_they_are_asked_for(parts, monkeypatch):
    recogniser, samples = Recogniser(parts), noise(4.0)
    transcript = recogniser.transcribe(samples, confidence=True)
    assert transcript.words and all(0 < word.confidence <= 1 for word in transcript.words)
    without = recogniser.transcribe(samples)
    assert without.text == transcript.text and {word.confidence for word in without.words} == {None}
    both = recogniser.decoder.decode_with_lattice
    monkeypatch.setattr(recogniser.decoder, "decode_with_lattice", lambda loglikes: (both(loglikes)[0], None))
    assert recogniser.transcribe(samples, confidence=True) == without


def test_an_ensemble_of_kinds_is_streamed(running):
    wider = build_model(DnnConfig(layers=1, width=8, left_context=1, right_context=6), num_dims=BINS,
                        num_senones=running.tree.num_senones, seeds=[4])  # fmt: skip
    wider.precision = "float32"
    recogniser = Recogniser(replace(running, model=JoinedModels([running.model, wider])))
    stream = recogniser.stream(StreamSettings(silence=100, longest=100))
    finished = [*stream.accept(noise(2.0)).finished, *stream.finish().finished]
    assert [each.text for each in finished] == [recogniser.transcribe(noise(2.0)).text]


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


def test_a_stretch_in_which_no_path_is_complete_is_the_best_of_all(running):
    """A second search by wider beams would take minutes on a large graph."""
    search = Recogniser(running).decoder.stream()
    search.accept(np.random.default_rng(0).normal(size=(1, running.tree.num_senones)).astype(np.float32))
    assert not len(search._search.best(final=True))  # a phone has three states
    hypothesis = search.finish()
    assert not hypothesis.failed and hypothesis.words == search.best()[0]


def test_words_that_have_just_begun_are_left_out(running):
    """There are too few frames for all that the search has begun."""
    stream = Recogniser(running).stream(StreamSettings(silence=100, longest=100))
    stream._search.finish = lambda: Hypothesis(("BEER",) * 50, -1.0)  # type: ignore[method-assign]
    stream.accept(noise(1.0))
    (stretch,) = stream.finish().finished
    assert set(stretch.text.split()) == {"BEER"} and 10 <= len(stretch.words) < 50  # a word has two phones


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(50, np.float32)])
def test_a_stream_of_nothing_has_no_words(parts, samples):
    stream = Recogniser(parts).stream()
    assert stream.accept(samples).finished == () and stream.finish().finished == ()
    with pytest.raises(ValueError, match="not finite float32"):
        Recogniser(parts).stream().accept(np.array([np.inf], np.float32))
