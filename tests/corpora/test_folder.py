"""Own recordings are found whatever their names look like to other programs."""

import unicodedata
from pathlib import Path

import pytest

from asr_kd.corpora import folder
from asr_kd.corpora.listing import CorpusManifest, ReadRequest
from asr_kd.corpora.settings import FolderConfig
from asr_kd.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "é1") for form in ("NFC", "NFD"))


def write(part: Path, text: str, *recordings: str) -> None:
    part.mkdir(parents=True, exist_ok=True)
    (part / "text").write_text(text, encoding="utf-8")
    for name in recordings:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).touch()


def read(root: Path) -> CorpusManifest:
    return folder.read(ReadRequest(root, root, FolderConfig(), {"train": ("train",)}))


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
