"""Everything that lhotse has manifests of becomes utterances, with the audio that lhotse itself reads."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhotse import AudioSource, CutSet, MonoCut, MultiCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_kd.corpora import cutset
from asr_kd.corpora.audio import AudioFormat, BadAudio, Clip, read_audio, read_clips
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance
from asr_kd.corpora.settings import CutsConfig, HeldOut
from asr_kd.errors import UserError

RATE = 16000
SAMPLES = np.random.default_rng(0).integers(-3000, 3000, (4 * RATE, 2)).astype(np.int16)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "mono.flac", SAMPLES[:, 0], RATE)
    soundfile.write(tmp_path / "wav" / "stereo.wav", SAMPLES, RATE)
    monkeypatch.chdir(tmp_path)  # lhotse's names are relative to the current folder
    return tmp_path


def recording(name: str, path: str = "wav/mono.flac") -> Recording:
    return Recording.from_file(path, recording_id=name)


def said(name: Any, start: float, duration: float, **more: Any) -> SupervisionSegment:
    return SupervisionSegment(
        **{"id": name, "recording_id": "m", "start": start, "duration": duration, "text": f"say {name}"} | more
    )


def cut(name: Any, start: float, duration: float, *supervisions: SupervisionSegment, **more: Any) -> MonoCut:
    entries = {"channel": 0, "recording": recording("m"), "supervisions": list(supervisions)}
    return MonoCut(id=name, start=start, duration=duration, **entries | more)


def write(corpus: Path, *cuts: Any, name: str = "train.jsonl.gz") -> None:
    CutSet.from_cuts(cuts).to_file(corpus / name)


def read(corpus: Path, *parts: str, allow_pipes: bool = False, **settings: Any) -> CorpusManifest:
    parts_of_train = {"train": parts or ("train.jsonl.gz",)}
    return cutset.read(ReadRequest(corpus, corpus, CutsConfig(**settings), parts_of_train, allow_pipes=allow_pipes))


def usable(corpus: Path, *parts: str, **options: Any) -> list[Utterance]:
    listing = read(corpus, *parts, **options)
    assert not listing.problems
    return listing.utterances


def samples(utterance: Utterance, **options: Any) -> np.ndarray:
    return read_audio(utterance.audio, AudioFormat(RATE, **options)) * 32768


def test_each_supervision_is_an_utterance_at_its_place_in_the_recording(corpus: Path) -> None:
    # the second cut begins within its recording, and one of its supervisions before it and one ends after it
    write(
        corpus,
        cut("first", 0, 4, said("whole", 0, 4, speaker="ann")),
        cut("second", 1, 2, said("early", -0.5, 1), said("a b/c", 0.25, 0.5), said("late", 1.5, 1)),
    )
    utterances = usable(corpus)
    assert [(u.id, u.text, u.speaker, u.set) for u in utterances] == [
        ("whole", "say whole", "ann", "train"), ("early", "say early", "early", "train"),
        ("a-b-c", "say a b/c", "a-b-c", "train"), ("late", "say late", "late", "train"),
    ]  # fmt: skip
    for utterance, (first, end) in zip(utterances, [(0, 4), (0.5, 1.5), (1.25, 1.75), (2.5, 3.5)], strict=True):
        assert np.array_equal(samples(utterance), SAMPLES[int(first * RATE) : int(end * RATE), 0])
    assert utterances[0].audio.duration is None and {u.audio.recording for u in utterances} == {"m"}


def test_ids_that_are_numbers_are_read(corpus: Path) -> None:
    write(corpus, cut(5, 0, 4, said(7, 0, 1)))
    assert [u.id for u in usable(corpus)] == ["7"]


def test_fields_of_supervisions_are_chosen(corpus: Path) -> None:
    custom = {"speaker_id": 17, "verbatim": "say it"}
    write(corpus, cut("c", 0, 4, said("u", 0, 1, custom=custom)))
    (utterance,) = usable(corpus, text="verbatim", speaker="speaker_id")
    assert (utterance.text, utterance.speaker) == ("say it", "17")


def test_dev_can_be_drawn_by_speaker(corpus: Path) -> None:
    write(corpus, *(cut(f"c{k}", 0, 4, said(f"u{k}", 0, 1, speaker=f"s{k % 2}")) for k in range(6)))
    settings = CutsConfig(dev=HeldOut(speakers=1))
    listing = cutset.read(ReadRequest(corpus, corpus, settings, {"train": ("train.jsonl.gz",), "dev": ()}))
    assert {u.speaker for u in listing.of_set("train")} ^ {u.speaker for u in listing.of_set("dev")} == {"s0", "s1"}


@pytest.mark.parametrize("one_file", [True, False])
def test_channels_are_those_of_cuts_or_the_chosen_one(corpus: Path, one_file: bool) -> None:
    stereo = recording("s", "wav/stereo.wav")
    if not one_file:
        for channel in (0, 1):
            soundfile.write(f"wav/{channel}.wav", SAMPLES[:, channel], RATE)
        stereo = replace(stereo, sources=[AudioSource("file", [k], f"wav/{k}.wav") for k in (0, 1)])
    right = cut("right", 0, 4, said("r", 1, 1, channel=1), recording=stereo, channel=1)
    both = MultiCut("both", 0, 4, [0, 1], recording=stereo,
                    supervisions=[said("l", 1, 1, channel=0), said("b", 1, 1, channel=[0, 1])])  # fmt: skip
    write(corpus, right, both)
    listing = read(corpus)
    for utterance, channel in zip(listing.utterances, (1, 0)):  # the supervisions say which
        assert np.array_equal(samples(utterance), SAMPLES[RATE : 2 * RATE, channel])
    with pytest.raises(BadAudio, match=r"has .*channels.*choose one by corpus\.channel"):
        raise BadAudio(listing.problems[0].reason) if listing.problems else samples(listing.utterances[2]).any()
    chosen = usable(corpus, channel=1)[2]
    assert np.array_equal(samples(chosen, channel=1), SAMPLES[RATE : 2 * RATE, 1])


def test_recordings_and_supervisions_are_found_by_lhotses_names(corpus: Path) -> None:
    RecordingSet.from_recordings([recording("m"), recording("unused")]).to_file("x_recordings_some-part.jsonl.gz")
    supervisions = SupervisionSet.from_segments([said("u", 1, 2), said("lost", 1, 2, recording_id="gone")])
    supervisions.to_file("x_supervisions_some-part.jsonl.gz")
    by_names = "x_recordings_some-part.jsonl.gz+x_supervisions_some-part.jsonl.gz"
    for part in ("some-part", by_names):
        listing = read(corpus, part)
        (utterance,), (problem,) = listing.utterances, listing.problems
        assert np.array_equal(samples(utterance), SAMPLES[RATE : 3 * RATE, 0])
        assert problem.utterance == "lost" and "its recording gone is not in" in problem.reason
    (corpus / "folder").mkdir()
    for kind in ("recordings", "supervisions"):
        shutil.move(f"x_{kind}_some-part.jsonl.gz", f"folder/{kind}.jsonl.gz")
    assert len(read(corpus, "folder").utterances) == 1
    with pytest.raises(UserError, match=r"folder/recordings\.jsonl\.gz:1: this is no cut, but a recording"):
        read(corpus, "folder/recordings.jsonl.gz")


@pytest.mark.parametrize("end", ["jsonl", "json", "yaml"])
def test_manifests_of_every_form_are_read(corpus: Path, end: str) -> None:
    write(corpus, cut("c", 0, 4, said("u", 1, 2)), cut("d", 0, 4, said("v", 2, 1)), name=f"x_cuts_train.{end}")
    assert [u.id for u in usable(corpus, "train")] == ["u", "v"]


@pytest.mark.parametrize("form", ["flac", "wav", "original"])
def test_shards_are_read_from_their_archives(corpus: Path, form: str) -> None:
    (corpus / "shar").mkdir()
    cuts = [cut(f"c{k}", k / 2, 1, said(f"u{k}", 0.25, 0.5)) for k in range(5)]
    CutSet.from_cuts(cuts).to_shar("shar", fields={"recording": form}, shard_size=2)
    utterances = usable(corpus, "shar")
    assert [u.id for u in utterances] == [f"u{k}" for k in range(5)]
    for k, utterance in enumerate(utterances):
        first = int((k / 2 + 0.25) * RATE)
        assert np.array_equal(samples(utterance), SAMPLES[first : first + RATE // 2, 0]), k


def test_shards_may_name_files(corpus: Path) -> None:
    cuts = [cut(f"c{k}", k, 1, said(f"u{k}", 0.25, 0.5)) for k in range(2)]
    (corpus / "shar").mkdir()
    CutSet.from_cuts(replace(each, recording=None) for each in cuts).to_file("shar/cuts.000000.jsonl")
    lines = [json.dumps({"cut_id": each.id, "recording": each.recording.to_dict()}) + "\n" for each in cuts]
    (corpus / "shar/recording.000000.jsonl").write_text("".join(lines))
    for k, utterance in enumerate(usable(corpus, "shar")):
        assert np.array_equal(samples(utterance), SAMPLES[int((k + 0.25) * RATE) :][: RATE // 2, 0])


def test_damaged_shards_are_named(corpus: Path) -> None:
    (corpus / "shar").mkdir()
    CutSet.from_cuts([cut("c", 0, 1, said("u", 0, 1)), cut("d", 1, 1, said("v", 0, 1))]).to_shar(
        "shar", fields={"recording": "flac"}, shard_size=None
    )
    (archive,) = (corpus / "shar").glob("recording*.tar")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-70000])
    with pytest.raises(UserError, match=r"recording.*\.tar: this is no whole tar archive of lhotse's form"):
        read(corpus, "shar")
    archive.write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match=r"recording.*\.tar: .*; unpack it if it is compressed"):
        read(corpus, "shar")
    with tarfile.open(archive, "w"):
        pass
    with pytest.raises(UserError, match=r"cuts.*:1: .*recording.*\.tar has no audio of this cut at its place"):
        read(corpus, "shar")
    archive.unlink()
    (utterance, _) = read(corpus, "shar").utterances or [None, None]
    assert utterance is None and "has no audio (its type is shar)" in read(corpus, "shar").problems[0].reason


def test_what_lhotse_changes_on_reading_is_changed(corpus: Path) -> None:
    write(
        corpus,
        cut("c", 0, 4, said("slow", 1, 2)).perturb_speed(0.5),
        cut("d", 0, 4, said("low", 1, 2)).resample(8000),
        cut("e", 0, 4, said("loud", 1, 2)).perturb_volume(2.0),
    )
    slow, low, loud = usable(corpus)
    assert len(samples(slow)) == 4 * RATE
    assert np.allclose(samples(loud), 2 * SAMPLES[RATE : 3 * RATE, 0])
    with pytest.raises(BadAudio, match="has 16000 Hz, the config says 8000") as caught:
        read_audio(loud.audio, AudioFormat(8000))
    assert "mono.flac" in str(caught.value)
    assert len(read_audio(low.audio, AudioFormat(8000))) == 16000  # the manifest itself says so
    assert np.array_equal(samples(low), SAMPLES[RATE : 3 * RATE, 0])  # no detour where the config wants the original


def test_commands_are_run_only_where_that_is_allowed(corpus: Path) -> None:
    piped = replace(recording("m"), sources=[AudioSource("command", [0], "cat wav/mono.flac")])
    write(corpus, cut("c", 0, 4, said("u", 1, 2), recording=piped))
    with pytest.raises(UserError, match=r"train\.jsonl\.gz:1: recording m is the output of a command .*--allow-pipes"):
        read(corpus)
    (utterance,) = usable(corpus, allow_pipes=True)
    assert np.array_equal(samples(utterance), SAMPLES[RATE : 3 * RATE, 0])


def test_cuts_that_are_no_utterances_are_named(corpus: Path) -> None:
    write(
        corpus,
        cut("empty", 0, 4),
        cut("silent", 0, 4, said("no text", 0, 1, text=None)),
        cut("before", 0.5, 1, said("negative", -1, 1)),
        cut("mix", 0, 1, said("m", 0, 1)).append(cut("mix", 1, 1, said("n", 0, 1))),
        cut("bare", 0, 4, said("r", 0, 1), recording=None),
        cut("good", 0, 4, said("good", 0, 1)),
    )
    listing = read(corpus)
    assert [u.id for u in listing.utterances] == ["good"]
    reasons = {problem.utterance: problem.reason for problem in listing.problems}
    expected = [
        ("empty", r"has no supervision \(.*train\.jsonl\.gz:1\)"), ("no-text", r"its supervision .* has no text"),
        ("negative", r"is from -0\.50 to 0\.50 s of its recording; correct its times"),
        (None, "is a MixedCut, which is no part of one recording"), ("r", "its cut has no recording"),
    ]  # fmt: skip
    for (utterance, message), (name, reason) in zip(expected, reasons.items(), strict=True):
        assert utterance in (None, name) and re.search(message, reason), reason


def test_an_id_that_appears_twice_is_named(corpus: Path) -> None:
    write(corpus, cut("c", 0, 4, said("u", 0, 1)), cut("d", 0, 4, said("u", 1, 1)))
    with pytest.raises(UserError, match=r"train\.jsonl\.gz:2: utterance u is in .*train\.jsonl\.gz:1 too"):
        read(corpus)


MALFORMED = {
    "no JSON": ("{", r"train\.jsonl\.gz:2: this cannot be read \(Expecting property name"),
    "a list": ("[1]", r"train\.jsonl\.gz:2: this is no entry of a manifest"),
    "no cut": ('{"id": "a"}', r"train\.jsonl\.gz:2: this is no cut of lhotse's"),
    "no start": ('{"type": "MonoCut", "id": "a", "duration": 1.0, "channel": 0}', r"\(start is missing\)"),
    "text for a time": (
        '{"type": "MonoCut", "id": "a", "start": "0", "duration": 1.0, "channel": 0}',
        r"\(start must be a number, not '0'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_line_is_named(corpus: Path, kind: str) -> None:
    content, message = MALFORMED[kind]
    good = json.dumps(cut("c", 0, 4, said("u", 0, 1)).to_dict())
    with gzip.open("train.jsonl.gz", "wt") as file:
        file.write(f"{good}\n{content}\n")
    with pytest.raises(UserError, match=message):
        read(corpus)


def test_a_missing_or_ambiguous_manifest_is_named(corpus: Path) -> None:
    write(corpus, cut("c", 0, 4, said("u", 0, 1)))
    with pytest.raises(UserError, match=r"there is no manifest 'test', .* has train\.jsonl\.gz: name one of them"):
        read(corpus, "test")
    write(corpus, cut("d", 0, 4, said("v", 0, 1)), name="cuts_train.jsonl.gz")
    with pytest.raises(UserError, match=r"cuts_train\.jsonl\.gz, train\.jsonl\.gz could all be meant by 'train'"):
        read(corpus, "train")
    with pytest.raises(UserError, match=r"gone\.jsonl: the manifest cannot be read: No such file"):
        read(corpus, "gone.jsonl+train.jsonl.gz")
    whole = (corpus / "train.jsonl.gz").read_bytes()
    (corpus / "train.jsonl.gz").write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"train\.jsonl\.gz: the manifest cannot be read: it is cut short"):
        read(corpus)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**9), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.just([{}]), st.just([5]),
)  # fmt: skip


def places(data: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside plain data."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*above, key)
        yield from places(value, (*above, key))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_manifest_what_is_wrong_is_a_sentence(corpus: Path, data: st.DataObject) -> None:
    entry = cut("c", 0, 4, said("u", 0, 1, speaker="ann", custom={"more": 1})).resample(8000).to_dict()
    *way, last = data.draw(st.sampled_from(list(places(entry))))
    inside = entry
    for key in way:
        inside = inside[key]
    inside[last] = data.draw(VALUES)
    (corpus / "train.jsonl").write_text(json.dumps(entry) + "\n")
    try:
        listing = read(corpus, "train.jsonl")
    except UserError as error:
        assert "\n" not in str(error) and "train.jsonl:1: " in str(error)
    else:
        assert len(listing.utterances) + len(listing.problems) == max(1, len(entry.get("supervisions") or ()))
        assert all(isinstance(clip, (Clip, BadAudio)) for _, clip in read_clips(
            [utterance.audio for utterance in listing.utterances], AudioFormat(8000)))  # fmt: skip


def test_in_a_set_without_transcripts_what_has_no_supervision_is_an_utterance(corpus: Path) -> None:
    write(corpus, cut("whole", 0, 4), cut("part", 1, 2), cut("said", 0, 4, said("silent", 1, 1, text=None)))
    RecordingSet.from_recordings([recording("alone"), recording("two", "wav/stereo.wav")]).to_file(
        corpus / "recordings.jsonl.gz"
    )
    parts = {"more": ("train.jsonl.gz", "recordings.jsonl.gz")}
    settings = CutsConfig(channel=1)
    listing = cutset.read(ReadRequest(corpus, corpus, settings, parts, untranscribed=frozenset(parts)))
    assert not listing.problems
    assert [(u.id, u.text, len(samples(u, channel=1)) / RATE) for u in listing.utterances] == [
        ("whole", "", 4.0), ("part", "", 2.0), ("silent", "", 1.0), ("alone", "", 4.0), ("two", "", 4.0)
    ]  # fmt: skip
    whole, part, _, _, two = listing.utterances
    assert np.allclose(samples(part), samples(whole)[RATE : 3 * RATE])
    assert np.allclose(samples(two, channel=1), SAMPLES[:, 1])
    transcribed = cutset.read(ReadRequest(corpus, corpus, settings, {"train": ("train.jsonl.gz",)}))
    assert [problem.utterance for problem in transcribed.problems] == ["whole", "part", "silent"]
