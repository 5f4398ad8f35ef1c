"""The downloader against a server on this machine: broken connections, wrong sums, hostile archives, second runs."""

import hashlib
import http.server
import io
import logging
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr_kd.corpora import openslr, transfer
from asr_kd.corpora.openslr import OPENSLR, Release, download_librispeech, make_plan
from asr_kd.corpora.transfer import RemoteFile
from asr_kd.errors import UserError

LEXICON = b"A\tAH0\n" * 1000
MODEL = np.random.default_rng(1).bytes(50_000)
AUDIO = np.random.default_rng(0).bytes(200_000)


@dataclass
class Server:
    """What it serves and how well; what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    ends_after: int | None = None  # bytes of a body, then the connection breaks
    knows_range: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # name, Range
    url: str = ""

    def file(self, name: str, option: str, algorithm: str = "sha256") -> RemoteFile:
        data = self.files[name]
        return RemoteFile(
            f"{self.url}/{name}", len(data), f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}", option
        )


def handler_of(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, asked = self.path.lstrip("/"), self.headers.get("Range")
            server.asked.append((name, asked))
            if name not in server.files:
                self.send_error(404)
                return
            data, start = server.files[name], 0
            if asked and server.knows_range:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = len(data) if server.ends_after is None else start + server.ends_after
            self.wfile.write(data[start:end])

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


def archive(part: str, *more: tarfile.TarInfo, folder: str = "LibriSpeech") -> bytes:
    packed = io.BytesIO()
    contents = {
        f"{folder}/README.TXT": b"read me",
        f"{folder}/{part}/84/121123/84-121123-0000.flac": AUDIO,
        f"{folder}/{part}/84/121123/84-121123.trans.txt": b"84-121123-0000 GO\n",
    }
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info, io.BytesIO())
    return packed.getvalue()


def empty_archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("LibriSpeech/README.TXT"))
    return packed.getvalue()


def release_of(server: Server) -> Release:
    return Release(
        parts={name: server.file(f"{name}.tar.gz", "--corpus-dir") for name in ("dev-clean-2", "train-clean-5")},
        lexicon=server.file("librispeech-lexicon.txt", "--lexicon", "md5"),
        language_models={"3-gram": server.file("3-gram.arpa.gz", "--lm", "md5")},
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "_PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    for part in ("dev-clean-2", "train-clean-5"):
        server.files[f"{part}.tar.gz"] = archive(part)
    server.files |= {"librispeech-lexicon.txt": LEXICON, "3-gram.arpa.gz": MODEL}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(server)) as running:
        server.url = f"http://127.0.0.1:{running.server_address[1]}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        running.shutdown()


@pytest.fixture
def release(server: Server) -> Release:
    return release_of(server)


def everything(target: Path, release: Release) -> openslr.DownloadResult:
    return download_librispeech(
        target, ["dev-clean-2", "train-clean-5"], lexicon=True, language_models=["3-gram"], release=release
    )


def dev(target: Path, release: Release) -> openslr.DownloadResult:
    return download_librispeech(target, ["dev-clean-2"], lexicon=False, language_models=[], release=release)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    return str(error.value)


def test_all_is_fetched_and_a_second_run_does_nothing(tmp_path: Path, server: Server, release: Release) -> None:
    target = tmp_path / "download"
    first = everything(target, release)
    assert first.ran and "fetched, sums right" in str(first)
    lexicon, model, corpus = first.places
    assert (lexicon.read_bytes(), model.read_bytes(), corpus) == (LEXICON, MODEL, target / "LibriSpeech")
    chapter = "84/121123/84-121123"
    files = [
        f"{part}/{name}"
        for part in release.parts
        for name in (".completed", f"{chapter}-0000.flac", f"{chapter}.trans.txt")
    ]
    there = snapshot(target)
    assert sorted(there) == sorted(
        [
            "3-gram.arpa.gz",
            "librispeech-lexicon.txt",
            "LibriSpeech/README.TXT",
            *[f"LibriSpeech/{name}" for name in files],
        ]
    )
    assert there[f"LibriSpeech/dev-clean-2/{chapter}-0000.flac"][0] == AUDIO
    asked = list(server.asked)
    second = everything(target, release)
    assert not second.ran and str(second).endswith(": there already")
    assert server.asked == asked and snapshot(target) == there


def test_a_broken_connection_is_gone_on_with(tmp_path: Path, server: Server, release: Release) -> None:
    server.ends_after = 60_000
    dev(tmp_path, release)
    size = len(server.files["dev-clean-2.tar.gz"])
    starts = range(0, size, 60_000)
    assert len(starts) > 2
    assert server.asked == [("dev-clean-2.tar.gz", f"bytes={start}-" if start else None) for start in starts]
    assert (tmp_path / "LibriSpeech/dev-clean-2/84/121123/84-121123-0000.flac").read_bytes() == AUDIO


def test_a_killed_run_is_gone_on_with_by_the_next(
    tmp_path: Path, server: Server, release: Release, monkeypatch
) -> None:
    def killed(seconds: float) -> None:
        raise KeyboardInterrupt

    server.ends_after = 60_000
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(transfer.time, "sleep", killed)
        dev(tmp_path, release)
    assert (tmp_path / "dev-clean-2.tar.gz.part").stat().st_size == 60_000
    plan = make_plan(tmp_path, ["dev-clean-2"], lexicon=False, language_models=[], release=release)
    assert "60.0 kB of it there" in str(plan) and plan.to_fetch == release.parts["dev-clean-2"].size - 60_000
    server.ends_after = None
    dev(tmp_path, release)
    assert server.asked == [("dev-clean-2.tar.gz", None), ("dev-clean-2.tar.gz", "bytes=60000-")]


@pytest.mark.parametrize("left", [".part", ""], ids=["before its check", "before it was unpacked"])
def test_killed_after_the_last_byte(tmp_path: Path, server: Server, release: Release, left: str) -> None:
    (tmp_path / f"dev-clean-2.tar.gz{left}").write_bytes(server.files["dev-clean-2.tar.gz"])
    half = tmp_path / ".dev-clean-2.tmp" / "LibriSpeech" / "dev-clean-2" / "84"
    half.mkdir(parents=True)
    (half / "half.flac").write_bytes(b"half")
    dev(tmp_path, release)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LibriSpeech"]
    assert not list(tmp_path.rglob("half.flac"))


def test_a_server_that_ignores_range_starts_again(tmp_path: Path, server: Server, release: Release) -> None:
    server.knows_range = False
    (tmp_path / "3-gram.arpa.gz.part").write_bytes(MODEL[:20_000])
    result = download_librispeech(tmp_path, [], lexicon=False, language_models=["3-gram"], release=release)
    assert [path.read_bytes() for path in result.places] == [MODEL]
    (tmp_path / "3-gram.arpa.gz").unlink()
    server.ends_after = 30_000  # each time: it would never end
    with pytest.raises(UserError, match="ended after 30,000 of 50,000 bytes") as error:
        download_librispeech(tmp_path, [], lexicon=False, language_models=["3-gram"], release=release)
    assert "--lm" in sentence(error)


def test_a_beginning_that_is_too_long_is_thrown_away(tmp_path: Path, server: Server, release: Release) -> None:
    (tmp_path / "3-gram.arpa.gz.part").write_bytes(MODEL + b"more")
    download_librispeech(tmp_path, [], lexicon=False, language_models=["3-gram"], release=release)
    assert (tmp_path / "3-gram.arpa.gz").read_bytes() == MODEL


def test_a_wrong_sum_is_named_and_nothing_is_unpacked(tmp_path: Path, server: Server, release: Release) -> None:
    server.files["dev-clean-2.tar.gz"] = archive("dev-clean-2", folder="Other")
    with pytest.raises(UserError, match=r"its SHA256 sum is [0-9a-f]{64}, not [0-9a-f]{64}") as error:
        dev(tmp_path, release)
    assert f"{server.url}/dev-clean-2.tar.gz" in sentence(error) and "--corpus-dir" in sentence(error)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changed_here_is_named_and_kept(tmp_path: Path, server: Server, release: Release) -> None:
    (tmp_path / "librispeech-lexicon.txt").write_bytes(b"mine")
    with pytest.raises(UserError, match="it has 4 bytes and not 6,000; delete it") as error:
        download_librispeech(tmp_path, [], lexicon=True, language_models=[], release=release)
    assert str(tmp_path / "librispeech-lexicon.txt") in sentence(error)
    assert (tmp_path / "librispeech-lexicon.txt").read_bytes() == b"mine" and server.asked == []


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil"),
        member("/evil"),
        member("LibriSpeech/../../evil"),
        member("LibriSpeech/dev-clean-2/../../../evil"),
        member("evil"),
        member("LibriSpeech/test-clean/1/1/1.flac"),
        member("LibriSpeech/dev-clean-2/84/link", tarfile.SYMTYPE, ".."),
        member("LibriSpeech/dev-clean-2/84/link", tarfile.LNKTYPE, "/etc/passwd"),
        member("LibriSpeech/dev-clean-2/84/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type!r}",
)
def test_an_archive_cannot_write_outside_its_part(tmp_path: Path, server: Server, evil: tarfile.TarInfo) -> None:
    server.files["dev-clean-2.tar.gz"] = archive("dev-clean-2", evil)
    target = tmp_path / "a" / "b" / "download"
    with pytest.raises(UserError, match="was not unpacked") as error:
        dev(target, release_of(server))
    assert evil.name in sentence(error)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["dev-clean-2.tar.gz"]


@pytest.mark.parametrize("packed", [b"no archive", archive("dev-clean-2")[:100_000], archive("x"), empty_archive()])
def test_a_useless_archive_is_one_sentence(tmp_path: Path, server: Server, packed: bytes) -> None:
    server.files["dev-clean-2.tar.gz"] = packed
    with pytest.raises(UserError, match=r"dev-clean-2.tar.gz (is damaged|holds)") as error:
        dev(tmp_path, release_of(server))
    sentence(error)
    assert [path.name for path in tmp_path.iterdir()] == ["dev-clean-2.tar.gz"]


def test_unknown_names_come_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'train-clean-1000'; there are dev-clean, .*train-clean-100, .*train-clean-5"):
        download_librispeech(tmp_path, ["train-clean-1000"], lexicon=False, language_models=[])
    with pytest.raises(UserError, match=r"'4-gram'; there are 3-gram.pruned.3e-7, 3-gram.pruned.1e-7, 3-gram"):
        download_librispeech(tmp_path, [], lexicon=False, language_models=["4-gram"])


def test_no_network_is_one_sentence(tmp_path: Path, server: Server, release: Release) -> None:
    lexicon = replace(release.lexicon, url="http://127.0.0.1:9/librispeech-lexicon.txt")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/librispeech-lexicon.txt cannot be fetched") as error:
        download_librispeech(tmp_path, [], lexicon=True, language_models=[], release=replace(release, lexicon=lexicon))
    assert "--lexicon" in sentence(error)
    del server.files["dev-clean-2.tar.gz"]
    with pytest.raises(UserError, match=r"dev-clean-2.tar.gz cannot be fetched \(404 Not Found\).*--corpus-dir"):
        dev(tmp_path, release)
    assert server.asked == [("dev-clean-2.tar.gz", None)]


def test_the_plan_comes_first_and_a_small_disk_is_refused(
    tmp_path: Path, server: Server, release, monkeypatch, caplog
) -> None:
    caplog.set_level(logging.INFO, logger="asr_kd")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=500_000))
    target = tmp_path / "download"
    with pytest.raises(UserError, match=r"are needed and 500\.0 kB are free; free some space"):
        everything(target, release)
    assert server.asked == [] and not target.exists()
    (plan,) = [record.getMessage() for record in caplog.records]
    for name, size in {
        "librispeech-lexicon.txt": "6.0 kB",
        "3-gram.arpa.gz": "50.0 kB",
        "dev-clean-2.tar.gz": "20",
    }.items():
        assert re.search(rf"{re.escape(name)} +{size}.*  (md5|sha256):[0-9a-f]{{32,64}}  to be fetched", plan)
    assert re.search(r"dev-clean-2.tar.gz .* unpacked", plan)
    dev(target, release)  # this much is there


def test_disk_needed_is_the_fullest_moment(tmp_path: Path, server: Server, release: Release) -> None:
    plan = make_plan(tmp_path, list(release.parts), lexicon=True, language_models=[], release=release)
    size = release.parts["dev-clean-2"].size  # of both, but for a few bytes of gzip
    assert plan.disk_needed == pytest.approx(
        len(LEXICON) + 3.1 * size, rel=0.001
    )  # the first's archive is gone by then


def test_a_folder_that_may_be_half_a_part_is_not_touched(tmp_path: Path, server: Server, release: Release) -> None:
    mine = tmp_path / "LibriSpeech" / "dev-clean-2" / "84"
    mine.mkdir(parents=True)
    with pytest.raises(UserError, match="it may not be whole") as error:
        dev(tmp_path, release)
    assert f"--corpus-dir {tmp_path / 'LibriSpeech'}" in sentence(error)
    assert mine.is_dir() and server.asked == []


def test_a_target_that_is_no_folder_is_refused_and_nothing_requested_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=re.escape("cannot be made (Not a directory)")):
        download_librispeech(tmp_path / "file" / "x", [], lexicon=True, language_models=[])
    assert "nothing requested" in str(download_librispeech(tmp_path, [], lexicon=False, language_models=[]))


def test_the_sums_and_parts_are_those_of_torchaudio_and_lhotse() -> None:
    published = pytest.importorskip("torchaudio.datasets.librispeech")._CHECKSUMS
    ours = {f"/12/{file.name}": file.checksum for file in OPENSLR.parts.values() if "/12/" in file.url}
    assert ours == {url.split("/resources")[1]: f"sha256:{sum_}" for url, sum_ in published.items()}
    from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH

    assert set(OPENSLR.parts) == {*LIBRISPEECH, *MINI_LIBRISPEECH}
    files = [*OPENSLR.parts.values(), OPENSLR.lexicon, *OPENSLR.language_models.values()]
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum) for file in files)
    assert len({file.checksum for file in files}) == len(files)
