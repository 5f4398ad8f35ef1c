"""Utterances are segments of recordings of any kind, and cuts describe them so that lhotse reads the same samples."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, Recording
from numpy.typing import NDArray

from asr_kd.corpora.audio import Audio, AudioFormat, BadAudio, Clip, Extent, check_audio, read_audio, read_clips
from asr_kd.corpora.cuts import audio_fingerprints, cut_audio, read_cuts, recording_audio, write_cuts
from asr_kd.corpora.listing import Utterance
from asr_kd.corpora.sources import LhotseRecording, Pipe, TarMember
from asr_kd.stages.set_cuts import cuts_stamp
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

from .test_audio import flac_of_unknown_length

RATE = 16000
FORMAT = AudioFormat(RATE)
SAMPLES = np.random.default_rng(0).integers(-3000, 3000, (40000, 2)).astype(np.int16)
KINDS = {
    "a.wav": ("WAV", "PCM_16"), "deep.wav": ("WAV", "PCM_24"), "float.wav": ("WAV", "FLOAT"),
    "law.wav": ("WAV", "ULAW"), "ex.wav": ("WAVEX", "PCM_16"), "long.wav": ("RF64", "PCM_16"),
    "a.flac": ("FLAC", "PCM_16"), "a.ogg": ("OGG", "VORBIS"), "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"), "gsm.wav": ("WAV", "GSM610"), "a.sph": ("NIST", "PCM_16"),
}  # fmt: skip


def write(path: Path, channels: int = 1, samples: NDArray[Any] = SAMPLES, rate: int = RATE) -> Path:
    form, subtype = KINDS[path.name]
    soundfile.write(path, samples[:, :channels], rate, format=form, subtype=subtype)
    return path


def clips(utterances: Sequence[Audio], target: AudioFormat = FORMAT) -> list[Clip | BadAudio]:
    outcomes = dict(read_clips(utterances, target))
    return [outcomes[number] for number in range(len(utterances))]


@pytest.mark.parametrize("name", KINDS)
def test_segments_are_parts_of_the_whole_in_every_format(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    whole = read_audio(path, FORMAT)
    times = [(2.0, 0.25), (0.0, 0.5), (0.3125, 1.0), (1.5, None), (0.0, None)]  # overlapping, in no order
    for (start, duration), clip in zip(times, clips([Audio(path, *times_of) for times_of in times]), strict=True):
        first, end = int(start * RATE), None if duration is None else int((start + duration) * RATE)
        assert isinstance(clip, Clip)
        assert np.array_equal(clip.samples, whole[first:end])
        assert clip.extent.recording.rate == RATE and clip.extent.recording.samples == len(whole)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 39999), st.integers(1, 40000)), min_size=1, max_size=6), st.integers(1, 50000))
def test_any_segments_are_read_whatever_the_size_of_blocks(spans: list[tuple[int, int]], block: int) -> None:
    encoded = io.BytesIO()
    soundfile.write(encoded, SAMPLES[:, 0], RATE, format="FLAC")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr_kd.corpora.audio._BLOCK", block)
        patch.setattr("asr_kd.corpora.audio.open_source", lambda source: io.BytesIO(encoded.getvalue()))
        for seekable in (frozenset[str](), frozenset({"PCM_16"})):
            patch.setattr("asr_kd.corpora.audio._SEEKABLE", seekable)
            spans = [(first, min(count, 40000 - first)) for first, count in spans]
            utterances = [Audio(Path("no such file"), first / RATE, count / RATE) for first, count in spans]
            for (first, count), clip in zip(spans, clips(utterances), strict=True):
                expected = SAMPLES[first : first + count, 0] / np.float32(32768)
                if count == 1:  # one sample is as good as silence
                    assert isinstance(clip, BadAudio)
                else:
                    assert isinstance(clip, Clip) and np.array_equal(clip.samples, expected)


def test_a_long_recording_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lossless = write(tmp_path / "a.ogg"), write(tmp_path / "a.wav")
    real, opened, decoded = soundfile.SoundFile.read, soundfile.SoundFile.__init__, []

    def read(self: Any, frames: int, **options: Any) -> Any:
        samples = real(self, frames, **options)
        decoded.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    opens: list[object] = []
    monkeypatch.setattr(
        soundfile.SoundFile,
        "__init__",
        lambda self, *args, **more: (opens.append(args), opened(self, *args, **more))[1],
    )
    starts = [k / 50 for k in range(100)]
    assert all(isinstance(clip, Clip) for clip in clips([Audio(path, start, 0.02) for start in reversed(starts)]))
    assert len(opens) == 1 and sum(decoded) <= 2.1 * RATE
    decoded.clear()
    clips([Audio(lossless, 2.4, 0.05)])
    assert sum(decoded) == 0.05 * RATE  # what lies before it is not read


def test_flac_of_unknown_length_has_segments_and_a_length(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    flac_of_unknown_length(path)
    whole, (clip,) = read_audio(path, FORMAT), clips([Audio(path, 0.5, 0.5)])
    assert isinstance(clip, Clip) and np.array_equal(clip.samples, whole[8000:16000])
    assert clip.extent.recording.samples == len(whole)


@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
def test_a_segment_beyond_the_end_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    for start, duration in ((2.0, 1.0), (2.5, 1.0), (9.0, None)):
        (bad,) = clips([Audio(path, start, duration)])
        assert isinstance(bad, BadAudio)
        end = "its end" if duration is None else f"{start + duration:.2f} s"
        assert f"{name} from {start:.2f} s to {end}: the recording ends at 2.50 s" in str(bad)
    (rounded,) = clips([Audio(path, 2.0, 0.51)])  # times of two decimals
    assert isinstance(rounded, Clip) and len(rounded.samples) == 8000


def test_a_channel_is_chosen_or_the_key_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", channels=2)
    with pytest.raises(BadAudio, match=r"a\.wav has 2 channels; choose one by corpus\.channel \(0 is the first\)"):
        read_audio(path, FORMAT)
    for channel in (0, 1):
        expected = SAMPLES[:, channel] / np.float32(32768)
        assert np.array_equal(read_audio(path, AudioFormat(RATE, channel=channel)), expected)
        # what the corpus says goes before what the config says
        audio = Audio(path, channel=channel)
        assert np.array_equal(read_audio(audio, AudioFormat(RATE, channel=1 - channel)), expected)
    with pytest.raises(BadAudio, match=r"has 2 channels, but corpus\.channel names channel 2 \(0 is the first\)"):
        read_audio(path, AudioFormat(RATE, channel=2))
    with pytest.raises(BadAudio, match=r"has 1 channel, but corpus\.channel names channel 1"):
        read_audio(write(tmp_path / "a.flac"), AudioFormat(RATE, channel=1))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_another_rate_is_converted_only_where_that_is_wanted(tmp_path: Path, rate: int) -> None:
    import torch
    from torchaudio.functional import resample

    path = write(tmp_path / "a.wav", rate=rate)
    with pytest.raises(BadAudio, match=rf"a\.wav has {rate} Hz, the config says 16000; .*set corpus\.resample to true"):
        read_audio(path, FORMAT)
    converted = read_audio(path, AudioFormat(RATE, resample=True))
    expected = resample(torch.from_numpy(SAMPLES[:, 0] / np.float32(32768)), rate, RATE).numpy()
    assert len(converted) == check_audio(path, AudioFormat(RATE, resample=True)).num_samples
    assert abs(len(converted) - len(SAMPLES) * RATE / rate) <= 0.5
    assert np.array_equal(converted, expected[: len(converted)])
    assert np.array_equal(read_audio(Audio(path, rate=RATE), FORMAT), converted)  # the corpus itself may say so
    with pytest.raises(BadAudio, match=r"has \d+ Hz, the config says 16000"):
        read_audio(Audio(path, rate=12345), FORMAT)


def tar_of(path: Path, file: Path) -> TarMember:
    with tarfile.open(path, "w") as archive:
        archive.add(file, "before")
        archive.add(file, "it")
    with tarfile.open(path) as archive:
        member = archive.getmember("it")
        return TarMember(path, member.offset_data, member.size)


def extents_of(utterances: Sequence[Utterance], target: AudioFormat) -> dict[str, Extent]:
    return {u.id: check_audio(u.audio, target) for u in utterances}


def lhotse_recording(path: Path, **changes: Any) -> LhotseRecording:
    recording = Recording.from_file(path).perturb_volume(2.0)
    return LhotseRecording(json.dumps(recording.to_dict() | changes))


@pytest.mark.parametrize("resampled", [False, True])
def test_cuts_are_what_lhotse_reads_the_same_samples_from(tmp_path: Path, resampled: bool) -> None:
    wav, other = write(tmp_path / "a.wav", channels=2), write(tmp_path / "a.flac", rate=11025 if resampled else RATE)
    audio_format = AudioFormat(RATE, resample=resampled, channel=1)
    sources = {
        "whole": Audio(wav), "part": Audio(wav, 0.5, 1.00005, recording="a"), "left": Audio(wav, 1.0, None, 0, "a"),
        "other": Audio(other, channel=0), "other part": Audio(other, 0.25, 0.333, 0, "b"),
        "pipe": Audio(Pipe(f"cat {other}"), 0.5, 0.25, 0, "c"),
        "changed": Audio(lhotse_recording(wav), 0.5, 0.25, 1),
    }  # fmt: skip
    utterances = [Utterance(name, audio, "WORDS", "ann", "train") for name, audio in sources.items()]
    extents = extents_of(utterances, audio_format)
    write_cuts(tmp_path / "cuts.jsonl.gz", utterances, extents, tmp_path, "en")
    warnings.filterwarnings("ignore", "You requested a subset of a recording that is read from disk via a bash command")
    cuts = CutSet.from_file(tmp_path / "cuts.jsonl.gz").with_recording_path_prefix(tmp_path)
    for utterance, cut, data in zip(utterances, cuts, read_cuts(tmp_path / "cuts.jsonl.gz", "fix"), strict=True):
        samples = read_audio(utterance.audio, audio_format)
        assert np.array_equal(read_audio(cut_audio(data, tmp_path, 1), audio_format), samples), utterance.id
        assert cut.num_samples == len(samples) == extents[utterance.id].num_samples
        assert cut.recording_id == cut.supervisions[0].recording_id
        loaded = cut.load_audio()[0]
        if (
            extents[utterance.id].recording.rate != RATE
        ):  # lhotse's way of cutting before it converts differs in rounding
            assert np.allclose(loaded[200:-200], samples[200:-200], atol=2e-2)
        else:
            assert np.array_equal(loaded, samples), utterance.id


def test_audio_in_an_archive_is_read_from_there(tmp_path: Path) -> None:
    member = tar_of(tmp_path / "shard.tar", write(tmp_path / "a.flac"))
    (tmp_path / "a.flac").unlink()
    utterances = [Utterance(f"u{k}", Audio(member, k / 2, 0.5), "WORDS", "ann", "train") for k in range(2)]
    write_cuts(tmp_path / "cuts.jsonl.gz", utterances, extents_of(utterances, FORMAT), tmp_path, "en")
    for k, cut in enumerate(read_cuts(tmp_path / "cuts.jsonl.gz", "fix")):
        expected = SAMPLES[8000 * k : 8000 * (k + 1), 0] / np.float32(32768)
        assert np.array_equal(read_audio(cut_audio(cut, tmp_path), FORMAT), expected)
    (tmp_path / "shard.tar").unlink()
    with pytest.raises(BadAudio, match=r"shard\.tar .* is missing"):
        read_audio(Audio(member), FORMAT)


def test_a_file_without_a_header_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(SAMPLES.tobytes())
    with pytest.raises(BadAudio, match=r"a\.raw is in no format that libsndfile reads; convert it"):
        read_audio(tmp_path / "a.raw", FORMAT)
    (tmp_path / "text.mp3").write_text("this is what was said\n" * 99)  # of which libsndfile says that it is no file
    with pytest.raises(BadAudio, match=r"text\.mp3 is in no format that libsndfile reads; convert it"):
        read_audio(tmp_path / "text.mp3", FORMAT)
    (tmp_path / "a.mp3").touch()
    with pytest.raises(BadAudio, match=r"a\.mp3 is empty; record it again"):
        read_audio(tmp_path / "a.mp3", FORMAT)
    with pytest.raises(BadAudio, match=r"is a folder; name the recordings in it"):
        read_audio(tmp_path, FORMAT)


def test_old_cuts_are_the_same_bytes(tmp_path: Path) -> None:
    """A recording that is an utterance is written as before there were segments, so that stores stay valid."""
    path = write(tmp_path / "a.wav")
    utterances = [Utterance("a", Audio(path), "WORDS", "ann", "train")]
    write_cuts(tmp_path / "cuts.jsonl.gz", utterances, extents_of(utterances, FORMAT), tmp_path, "en")
    with gzip.open(tmp_path / "cuts.jsonl.gz") as lines:
        cut = json.loads(lines.read())
    assert cut["recording"] == {
        "id": "a", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "sampling_rate": RATE,
        "num_samples": 40000, "duration": 2.5, "channel_ids": [0],
    }  # fmt: skip
    assert (cut["start"], cut["duration"], cut["channel"]) == (0.0, 2.5, 0)


def test_a_stamp_tells_segments_channels_and_contents_apart(tmp_path: Path) -> None:
    path, other = write(tmp_path / "a.wav"), write(tmp_path / "a.flac")
    member = tar_of(tmp_path / "shard.tar", other)
    of = [
        Audio(path), Audio(other), Audio(path, 0.5), Audio(path, 0.0, 0.5), Audio(path, channel=0),
        Audio(path, rate=RATE), Audio(member), Audio(TarMember(member.tar, 0, member.size)), Audio(Pipe("cat a.wav")),
    ]  # fmt: skip
    work = Workspace(tmp_path, tmp_path / "conf.yaml")

    def digests() -> list[str]:
        sets = [[Utterance("a", audio, "WORDS", "ann", "train")] for audio in of]
        return [cuts_stamp(Config(), work, members, audio_fingerprints(members, tmp_path)).digest for members in sets]

    before = digests()
    assert len(set(before)) == len(of)
    write(path, samples=SAMPLES[::-1])
    changed = [k for k, (old, new) in enumerate(zip(before, digests(), strict=True)) if old != new]
    assert changed == [k for k, audio in enumerate(of) if audio.source == path]


def test_what_lhotse_has_no_audio_of_is_named(tmp_path: Path) -> None:
    recording = {"id": "r", "sampling_rate": RATE, "num_samples": 10, "duration": 1.0}

    def read(channels: Any, *sources: tuple[str, list[int], str], **more: Any) -> Audio:
        entries = [dict(zip(("type", "channels", "source"), source, strict=True)) for source in sources]
        return recording_audio({**recording, "sources": entries, **more}, channels, Path, more.pop("chosen", None))

    two = [("file", [0], "a.wav"), ("file", [1, 4], "b.wav")]
    assert read([0, 1, 4], *two, chosen=4) == Audio(Path("b.wav"), channel=1, recording="r")
    assert read(0, *two) == Audio(Path("a.wav"), channel=0, recording="r")
    with pytest.raises(BadAudio, match=r"recording r has the channels 0, 1, 4; choose one by corpus\.channel"):
        read([0, 1, 4], *two)
    with pytest.raises(BadAudio, match=r"recording r names no audio"):
        read(0)
    with pytest.raises(BadAudio, match=r"recording r has no audio \(its type is memory\)"):
        read(0, ("memory", [0], "?"))
    volume = [{"name": "Volume", "kwargs": {"factor": 2.0}}]
    with pytest.raises(BadAudio, match=r"recording r is changed by lhotse .* no file \(its type is command\)"):
        read(0, ("command", [0], "rm -rf x"), transforms=volume)  # lhotse would run it in a shell
    with pytest.raises(BadAudio, match=r"gone\.wav cannot be read by lhotse: .*; is the file missing or truncated"):
        read_audio(read(0, ("file", [0], str(tmp_path / "gone.wav")), transforms=volume), FORMAT)
