"""Own recordings are found whatever their names look like to other programs."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from asr_kd.corpora import folder
from asr_kd.corpora.audio import Audio
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import FolderConfig, HeldOut
from asr_kd.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "é1") for form in ("NFC", "NFD"))


def write(part: Path, text: str, *recordings: str) -> None:
    part.mkdir(parents=True, exist_ok=True)
    (part / "text").write_text(text, encoding="utf-8")
    for name in recordings:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).touch()


def read(root: Path, *parts: str, **settings: Any) -> CorpusManifest:
    """Each part is a set of its name; without any, train alone."""
    sets = {part: (part,) for part in parts or ("train",)}
    return folder.read(ReadRequest(root, root, FolderConfig(**settings), sets))


def names(manifest: CorpusManifest) -> list[str]:
    assert not manifest.problems
    return [utterance.id for utterance in manifest.utterances]


@pytest.mark.parametrize(("written", "file"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_a_name_is_one_name_in_either_form_of_unicode(tmp_path: Path, written: str, file: str) -> None:
    write(tmp_path / "train", f"{written} one\n", f"{file}.wav")
    assert names(read(tmp_path)) == [NFC]
    assert read(tmp_path).utterances[0].audio.source.exists()


def test_a_name_in_both_forms_is_there_twice(tmp_path: Path) -> None:
    write(tmp_path / "train", f"{NFC} one\n{NFD} two\n", f"{NFC}.wav")
    with pytest.raises(UserError, match=f"text: {NFC} appears twice, written in two ways of Unicode"):
        read(tmp_path)


def test_folders_that_may_be_speakers_are_named_where_sets_are_drawn(tmp_path: Path) -> None:
    lines = "".join(f"{name}{number} one\n" for name in "ab" for number in range(5))
    write(tmp_path / "train", lines, *(f"{name}/{name}{number}.wav" for name in "ab" for number in range(5)))
    sets = {"train": ("train",), "dev": ()}
    notes = {
        known: folder.read(
            ReadRequest(tmp_path, tmp_path, FolderConfig(folder_is_speaker=known, dev=HeldOut(share=0.2)), sets)
        ).notes
        for known in (False, True)
    }
    assert "training recordings are in 2 folders, and utterances of dev are drawn from all" in notes[False][0]
    assert "set corpus.folder_is_speaker: true" in notes[False][0]
    assert not any("folder_is_speaker" in note for note in notes[True])


def test_hidden_files_are_no_recordings(tmp_path: Path) -> None:
    write(tmp_path / "train", "x one\n", "x.wav", "._x.wav", ".trash/y.wav", "deep/.hidden.flac")
    assert names(read(tmp_path)) == ["x"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "", "a.wav", "deep/b.flac")
    write(tmp_path / "train", "a one\nb two\n")
    (tmp_path / "train" / "wav").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "same").symlink_to(tmp_path / "elsewhere")
    assert names(read(tmp_path)) == ["a", "b"]


# --- transcripts beside the recordings, and recordings of one name in several folders


def beside(part: Path, **texts: str) -> None:
    """A recording and its transcript for each name, in which __ is a slash."""
    for name, text in texts.items():
        path = part / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.with_suffix(".wav").touch()


def test_a_txt_beside_a_recording_holds_its_transcript(tmp_path: Path) -> None:
    beside(tmp_path / "train", b="\ufeffдва\r\n", deep__a="один \n\n и ещё\u2028один\n")
    (tmp_path / "train" / "b.txt").rename(tmp_path / "train" / "b.TXT")
    listing = read(tmp_path)
    assert [(u.id, u.text, u.speaker) for u in listing.utterances] == [
        ("a", "один и ещё\u2028один", "a"),
        ("b", "два", "b"),
    ]
    assert sorted(path.name for path in listing.transcripts) == ["a.txt", "b.TXT"]


def test_recordings_of_one_name_are_called_by_their_folders(tmp_path: Path) -> None:
    beside(tmp_path / "train", anna__001="one", ben__001="two", ben__002="three")
    assert names(read(tmp_path)) == ["anna-001", "ben-001", "ben-002"]
    (tmp_path / "train" / "text").write_text("anna-001 uno\nben-001 dos\nben-002 tres\n")
    assert [u.text for u in read(tmp_path).utterances] == ["uno", "dos", "tres"]


def test_parts_may_number_their_recordings_alike(tmp_path: Path) -> None:
    beside(tmp_path / "train", a1="one", a2="two")
    beside(tmp_path / "dev", a1="three", a3="four")
    assert names(read(tmp_path, "train", "dev")) == ["a1", "a2", "dev-a1", "a3"]


def test_what_is_wrong_with_a_transcript_beside_a_recording(tmp_path: Path) -> None:
    train = tmp_path / "train"
    beside(train, good="yes", empty=" \n", alone="gone")
    (train / "latin.wav").touch()
    (train / "latin.txt").write_bytes("\u00e9".encode("latin-1"))
    (train / "mute.wav").touch()
    (train / "alone.wav").unlink()
    listing = read(tmp_path)
    assert [u.id for u in listing.utterances] == ["good"]
    assert {problem.utterance: problem.reason for problem in listing.problems} == {
        "empty": f"its transcript in {train / 'empty.txt'} is empty; write the transcript, or delete the recording",
        "latin": f"{train / 'latin.txt'}: this is not UTF-8 text; save it as UTF-8",
        "mute": f"{train / 'mute.wav'} has no transcript; write it in a .txt beside it",
    }
    assert listing.notes == [f"{tmp_path}: .txt files without a recording beside them: 1 (train/alone.txt)"]


# --- formats that cannot be read


def convert(path: Path) -> str:
    command = f"ffmpeg -i {path.name} {path.with_suffix('.wav').name}"
    return f"{path}: this format cannot be read; convert it, for example with {command}"


def as_m4a(path: Path) -> Path:
    """The recording under a name of that format."""
    return path.with_suffix(".wav").rename(path.with_suffix(".m4a"))


def test_a_transcribed_recording_that_cannot_be_read_is_refused_until_it_is_converted(tmp_path: Path) -> None:
    beside(tmp_path / "train", anna__001="one", dan__001="two", dan__002="three")
    (tmp_path / "train" / "dan" / "cover.mp4").touch()  # it has no transcript
    one, two = (as_m4a(tmp_path / "train" / "dan" / name) for name in ("001", "002"))
    listing = read(tmp_path, folder_is_speaker=True)
    assert [u.id for u in listing.utterances] == ["anna-001"]
    assert {p.utterance: p.reason for p in listing.problems} == {"dan-001": convert(one), "dan-002": convert(two)}
    assert not listing.notes
    for path in (one, two):  # the original stays where it is
        path.with_suffix(".wav").touch()
    assert names(read(tmp_path, folder_is_speaker=True)) == ["anna-001", "dan-001", "dan-002"]


@pytest.mark.parametrize("suffix", [".m4a", ".AAC", ".wma", ".webm", ".mp4", ".amr", ".3gp"])
def test_a_folder_of_a_format_that_cannot_be_read_says_so(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "train", "", f"a b{suffix}")
    (tmp_path / "train" / "text").unlink()
    (tmp_path / "train" / "a b.txt").write_text("one")
    (problem,) = read(tmp_path).problems
    assert problem.utterance == "a_b"
    assert f"cannot be read; convert it, for example with ffmpeg -i 'a b{suffix}' 'a b.wav'" in problem.reason


def test_a_format_that_cannot_be_read_is_refused_wherever_its_utterance_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train", "one x\nthree z\n", "anna/one.m4a", "three.mp3", "original/three.m4a")
    assert [p.reason for p in read(tmp_path).problems] == [convert(tmp_path / "train" / "anna" / "one.m4a")]
    write(tmp_path / "dev", "anna-1 x\nben-1 y\n", "anna/1.m4a", "ben/1.mp3")
    assert [(p.utterance, p.reason) for p in read(tmp_path, "dev").problems] == [
        ("anna-1", convert(tmp_path / "dev" / "anna" / "1.m4a"))
    ]
    write(tmp_path / "long", "a one\n", "talk.m4a")
    (tmp_path / "long" / "segments").write_text("a talk 0 1\n")
    assert [p.reason for p in read(tmp_path, "long").problems] == [convert(tmp_path / "long" / "talk.m4a")]
    write(tmp_path / "more", "", "b.wma", "c.wav")
    request = ReadRequest(tmp_path, tmp_path, FolderConfig(), {"more": ("more",)}, untranscribed=frozenset({"more"}))
    listing = folder.read(request)
    assert [u.id for u in listing.utterances] == ["c"]
    assert [p.reason for p in listing.problems] == [convert(tmp_path / "more" / "b.wma")]


def test_a_folder_may_be_the_speaker(tmp_path: Path) -> None:
    beside(tmp_path / "train", anna__day1__001="one", ben__001="two", loose="three")
    listing = read(tmp_path, folder_is_speaker=True)
    assert [u.speaker for u in listing.utterances] == ["anna", "ben"]
    (problem,) = listing.problems
    assert problem.utterance == "loose" and "has no speaker; " in problem.reason
    lines = "anna-day1-001 Anna\nben-001 Ben\nloose Cleo\n"
    (tmp_path / "train" / "utt2spk").write_text(lines)
    assert [u.speaker for u in read(tmp_path, folder_is_speaker=True).utterances] == ["Anna", "Ben", "Cleo"]


def test_utterances_may_be_segments_of_long_recordings(tmp_path: Path) -> None:
    write(tmp_path / "train", "a one\nb two\nc three\nd four\n", "talk.mp3", "idle.flac")
    (tmp_path / "train" / "segments").write_text("a talk 0.5 2\nb talk 2 -1\nd lost 0 1\ne talk 0 1\n")
    (tmp_path / "train" / "utt2spk").write_text("".join(f"{name} anna\n" for name in "abcde"))
    listing = read(tmp_path)
    talk = tmp_path / "train" / "talk.mp3"
    assert [(u.id, u.audio) for u in listing.utterances] == [
        ("a", Audio(talk, 0.5, 1.5, recording="talk")),
        ("b", Audio(talk, 2.0, None, recording="talk")),
    ]
    reasons = {problem.utterance: problem.reason for problem in listing.problems}
    assert reasons.pop("c") == f"has no line in {tmp_path / 'train' / 'segments'}; add one, or delete its transcript"
    assert reasons.pop("d").startswith(f"{tmp_path / 'train' / 'lost'}.wav (or .flac, .mp3, ...) is missing; ")
    assert reasons.pop("e").startswith(f"{talk} from 0.00 s to 1.00 s has no transcript; add a line to ")
    assert not reasons and listing.notes == [f"{tmp_path / 'train'}: recordings without a segment: 1 (idle)"]
    (tmp_path / "train" / "segments").write_text("a talk 2 0.5\n")
    with pytest.raises(UserError, match=r"segments:1: expected 'utterance-id recording-id start end"):
        read(tmp_path)


@pytest.mark.parametrize(("written", "file"), [(NFC, NFD), (NFD, NFC)])
def test_a_recording_of_segments_is_one_name_in_either_form_of_unicode(tmp_path: Path, written: str, file: str) -> None:
    write(tmp_path / "train", "a one\n", f"{file}.mp3")
    (tmp_path / "train" / "segments").write_text(f"a {written} 0.5 2\n", encoding="utf-8")
    assert names(read(tmp_path)) == ["a"]


def test_dev_is_drawn_from_a_folder_that_has_train_alone(tmp_path: Path) -> None:
    beside(tmp_path, **{f"{speaker}__{number}": "one" for speaker in "abcdefgh" for number in range(3)})
    sets = {"train": (".",), "dev": (), "test": ()}
    settings = FolderConfig(folder_is_speaker=True, dev=HeldOut(speakers=2), test=HeldOut(share=0.1))
    listing = folder.read(ReadRequest(tmp_path, tmp_path, settings, sets))
    assert [len(listing.of_set(name)) for name in sets] == [15, 6, 3]
    assert len(listing.notes) == 2


def test_a_part_that_is_not_there_is_named_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: there is no such folder; .*train: \[\.\] is .*corpus\.dev"):
        read(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"text: cannot be read .*write a line .* or a \.txt beside it"):
        read(tmp_path)


def test_a_set_without_transcripts_is_its_recordings_or_their_segments(tmp_path: Path) -> None:
    write(tmp_path / "more", "a one\ngone two\n", "a.wav", "anna/b.wav")
    (tmp_path / "more" / "anna" / "b.txt").write_text("three")
    write(tmp_path / "long", "", "talk.wav")
    (tmp_path / "long" / "segments").write_text("talk-1 talk 0 1.5\nlost-1 lost 0 1\n")
    sets = {part: (part,) for part in ("more", "long")}
    request = ReadRequest(tmp_path, tmp_path, FolderConfig(), sets, untranscribed=frozenset(sets))
    listing = folder.read(request)
    assert [(u.set, u.id, u.text) for u in listing.utterances] == [
        ("more", "a", ""), ("more", "b", ""), ("long", "talk-1", "")
    ]  # fmt: skip
    (problem,) = listing.problems
    assert problem.utterance == "lost-1" and problem.reason.endswith("put it there, or delete its segment")


@pytest.mark.parametrize("file", [" .wav", "\u00a0.wav"])
def test_a_recording_without_a_name_is_refused(tmp_path: Path, file: str) -> None:
    """It would be a column of a CTM file that is not there."""
    (tmp_path / "train").mkdir()
    for name in (file, "a.wav"):
        (tmp_path / "train" / name).touch()
        (tmp_path / "train" / name).with_suffix(".txt").write_text("one")
    manifest = read(tmp_path)
    assert [utterance.id for utterance in manifest.utterances] == ["a"]
    (problem,) = manifest.problems
    assert "has a name of spaces alone; rename it" in problem.reason
