"""LibriSpeech, its lexicon and its language models from their makers' site, OpenSLR: fetched, checked, unpacked.

Not lhotse's download_librispeech: it knows no sums, spoils a file where the server ignores Range, and unpacks links.

python -m asr_kd.corpora.openslr [--part PART]... [--lexicon] [--lm NAME]... FOLDER

FOLDER gets LibriSpeech/<part>/, librispeech-lexicon.txt and <name>.arpa.gz. A file grows as <file>.part and takes its
name once its sum is right; a part is unpacked beside its place and moved there whole. So a run that was killed, at
any moment, is gone on with by the next one. Archives are deleted once they are unpacked.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click
from tqdm import tqdm

from asr_kd.artifacts import full_disk_is_an_error
from asr_kd.errors import UserError

CORPUS = "LibriSpeech"  # the one folder that the archives hold
COMPLETED = ".completed"  # marks a part as whole; lhotse's downloader leaves a file of this name too
_SECONDS = 60  # without an answer
_TRIES = 5  # connections in a row that bring nothing, after one that did
_PAUSE = 5.0  # seconds before the next of them
_BLOCK = 1 << 18  # bytes
# FLAC hardly shrinks in gzip; the rest is what 4 KiB blocks add to files of 220 KB
_UNPACKED = 1.05  # bytes on disk per byte of archive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, and how to know that it is the right one."""

    url: str
    size: int  # bytes; for planning, the sum decides
    checksum: str  # algorithm:hexadecimal digits
    option: str  # the recipe's option that takes a copy of it instead

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Release:
    """What can be had: archives by the name of their part, the lexicon, language models by their name."""

    parts: Mapping[str, RemoteFile]
    lexicon: RemoteFile
    language_models: Mapping[str, RemoteFile]


_SITE = "https://www.openslr.org/resources"


def _part(resource: int, name: str, size: int, sha256: str) -> tuple[str, RemoteFile]:
    return name, RemoteFile(f"{_SITE}/{resource}/{name}.tar.gz", size, f"sha256:{sha256}", "--corpus-dir")


def _language_model(name: str, size: int, md5: str) -> tuple[str, RemoteFile]:
    return name, RemoteFile(f"{_SITE}/11/{name}.arpa.gz", size, f"md5:{md5}", "--lm")


# Sums. Resource 12: torchaudio.datasets.librispeech; resource 31: recorded by several projects beside the MD5 sums that
# OpenSLR publishes for it; resource 11: MD5, as github.com/sdrobert/pytorch-database-prep has them in librispeech.py
# together with those that OpenSLR publishes for 12.
# Sizes: Kaldi's egs/{librispeech,mini_librispeech}/s5/local/download_{and_untar,lm}.sh.
OPENSLR = Release(
    parts=dict(
        [
            _part(12, "dev-clean", 337926286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
            _part(12, "dev-other", 314305928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
            _part(12, "test-clean", 346663984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
            _part(12, "test-other", 328757843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
            _part(
                12, "train-clean-100", 6387309499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"
            ),
            _part(
                12, "train-clean-360", 23049477885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"
            ),
            _part(
                12, "train-other-500", 30593501606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"
            ),
            _part(31, "dev-clean-2", 126046265, "176ec501490eced2d6c1f89f4f0ddc7dfe799e649e5322f8ba49fe3ff50c8012"),
            _part(31, "train-clean-5", 332954390, "47805806c8b15f7549f3c51bd6b7da72ec0128a34d32830c8014a88658c0292d"),
        ]
    ),
    lexicon=RemoteFile(
        f"{_SITE}/11/librispeech-lexicon.txt", 5627653, "md5:28f72663f6bfed7cd346283c064c315b", "--lexicon"
    ),
    language_models=dict(
        [
            _language_model("3-gram.pruned.3e-7", 13654242, "8f67ec741827742eee05799ab7605b50"),
            _language_model("3-gram.pruned.1e-7", 34094057, "9a0f1325bcaf3a0f7b7be4be10823c2a"),
            _language_model("3-gram", 759636181, "74cbb837e582378c26c602e1c8cbcb9c"),
        ]
    ),
)


@dataclass(frozen=True)
class DownloadResult:
    """Where what was asked for lies now; None and () where it was not asked for."""

    corpus_dir: Path | None
    lexicon: Path | None
    language_models: tuple[Path, ...]
    fetched: int  # bytes
    made: bool  # whether anything was fetched or unpacked

    def __str__(self) -> str:
        places = [self.corpus_dir, self.lexicon, *self.language_models]
        state = f"{_in_words(self.fetched)} fetched, sums right" if self.made else "there already"
        return f"{', '.join(str(path) for path in places if path) or 'nothing asked for'}: {state}"


def download_librispeech(
    target: Path,
    parts: Sequence[str],
    *,
    lexicon: bool,
    language_models: Sequence[str],
    release: Release = OPENSLR,
) -> DownloadResult:
    """Fetches what of this is not in `target` yet, after logging what that takes; see the module on its layout.

    Args:
      parts: names such as "train-clean-100"; `release.parts` lists them.
      language_models: names such as "3-gram.pruned.3e-7".

    Raises:
      UserError: a name is unknown, the disk is too small, the network fails, a sum is wrong, an archive holds what it
        should not, or the folder of a part is there without its mark.
    """
    plan = make_plan(target, parts, lexicon=lexicon, language_models=language_models, release=release)
    log.info("%s", plan)
    if plan.disk_needed > plan.disk_free:
        raise UserError(
            f"{target}: {_in_words(plan.disk_needed)} are needed and {_in_words(plan.disk_free)} are free; make room, "
            "ask for fewer parts, or give a folder on another disk."
        )
    with full_disk_is_an_error(target):
        try:
            target.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"{target} cannot be made ({error.strerror}); give another folder.") from None
        if not os.access(target, os.W_OK | os.X_OK):
            raise UserError(f"{target} cannot be written to; give another folder.")
        for item in plan.items:
            if item.part is None:
                _fetch(item.file, target)
            elif not item.done:
                archive = _fetch(item.file, target)
                _unpack(archive, item.part, item.file, target)
                archive.unlink()
    return DownloadResult(
        corpus_dir=target / CORPUS if parts else None,
        lexicon=target / release.lexicon.name if lexicon else None,
        language_models=tuple(target / release.language_models[name].name for name in language_models),
        fetched=plan.to_fetch,
        made=not all(item.done for item in plan.items),
    )


@dataclass(frozen=True)
class Item:
    """One file that is asked for, and how far it has come."""

    file: RemoteFile
    part: str | None  # its archive's part; None: a file that is used as it is
    done: bool
    there: int  # bytes of it

    @property
    def to_fetch(self) -> int:
        return 0 if self.done else max(0, self.file.size - self.there)

    def __str__(self) -> str:
        state = f"{_in_words(self.there)} of it there" if self.there else "to be fetched"
        if self.done:
            state = "there already"
        return f"{self.file.name:<28} {_in_words(self.file.size):>7}  {state}"


@dataclass(frozen=True)
class Plan:
    """What a download will take; printed before it starts."""

    target: Path
    items: tuple[Item, ...]
    disk_free: int  # bytes

    @property
    def to_fetch(self) -> int:
        """Bytes."""
        return sum(item.to_fetch for item in self.items)

    @property
    def disk_needed(self) -> int:
        """Bytes at the fullest moment: an archive is deleted once it is unpacked, before the next is fetched."""
        more = most = 0
        for item in self.items:
            if not item.done:
                more += item.to_fetch + (round(_UNPACKED * item.file.size) if item.part else 0)
                most = max(most, more)
                more -= item.file.size if item.part else 0
        return most

    def __str__(self) -> str:
        needed, free = _in_words(self.disk_needed), _in_words(self.disk_free)
        total = f"{_in_words(self.to_fetch)} to fetch; {needed} of disk needed, archives and unpacked, {free} free"
        return "\n  ".join([f"{self.target}:", *map(str, self.items), total])


def make_plan(
    target: Path, parts: Sequence[str], *, lexicon: bool, language_models: Sequence[str], release: Release = OPENSLR
) -> Plan:
    """Looks at what is in `target`; arguments and errors as of `download_librispeech`. The small files come first."""
    _check_names("part of LibriSpeech", parts, release.parts)
    _check_names("language model of LibriSpeech", language_models, release.language_models)
    plain = [release.lexicon] if lexicon else []
    plain += [release.language_models[name] for name in dict.fromkeys(language_models)]
    items = [_look(file, target, None, target / file.name) for file in plain]
    for part in dict.fromkeys(parts):
        folder = target / CORPUS / part
        if folder.exists() and not (folder / COMPLETED).exists():
            raise UserError(
                f"{folder} is there, but nothing says that it is whole (no {COMPLETED}); delete it to have it fetched, "
                f"or use it as it is with --corpus-dir {target / CORPUS}."
            )
        items.append(_look(release.parts[part], target, part, folder))
    existing = next(path for path in [target, *target.absolute().parents] if path.exists())
    return Plan(target, tuple(items), shutil.disk_usage(existing).free)


def _check_names(what: str, names: Sequence[str], known: Mapping[str, RemoteFile]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"there is no {what} called {name!r}; there are {', '.join(known)}.")


def _look(file: RemoteFile, target: Path, part: str | None, result: Path) -> Item:
    there = _size(target / file.name) or _size(_partial(target, file))
    return Item(file, part, done=result.exists(), there=there)


def _partial(target: Path, file: RemoteFile) -> Path:
    return target / f"{file.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _in_words(size: int) -> str:
    return str(tqdm.format_sizeof(size, "B"))


def _fetch(file: RemoteFile, target: Path) -> Path:
    """The file in `target`, its sum right; gone on with where a part of it is there."""
    path, partial = target / file.name, _partial(target, file)
    if path.exists():
        if wrong := _wrong(path, file):
            raise UserError(f"{path}: {wrong}; delete it to have it fetched again, or give a copy with {file.option}.")
        return path
    _transfer(file, partial)
    if wrong := _wrong(partial, file):
        partial.unlink()  # nothing says which bytes are bad
        raise UserError(
            f"{file.url}: {wrong}; what came was deleted: run the same command again, "
            f"or give a copy with {file.option}."
        )
    partial.rename(path)
    return path


def _wrong(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with it, None where nothing is."""
    algorithm, expected = file.checksum.split(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)  # MD5 is there to find damage, which it does
    with path.open("rb") as data, _bar(f"checking {file.name}", _size(path), delay=2.0) as bar:
        while block := data.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() == expected:
        return None
    size = _size(path)
    lengths = "" if size == file.size else f", it has {size:,} bytes and not {file.size:,}"
    return f"its {algorithm.upper()} sum is {digest.hexdigest()}, not {expected}{lengths}"


def _bar(description: str, total: int, *, initial: int = 0, delay: float = 0.0) -> tqdm:
    return tqdm(
        desc=description, total=total, initial=initial, delay=delay, unit="B", unit_scale=True,
        mininterval=0.5, dynamic_ncols=True,
    )  # fmt: skip


class _BrokenOffError(Exception):
    """The connection, or the server, failed; another try may go on."""


def _transfer(file: RemoteFile, partial: Path) -> None:
    """Fetches until the server says that this was all of it; a connection that breaks is made anew."""
    tries = 0  # where not even the first connection brings anything, waiting will not help
    with _bar(file.name, file.size, initial=_size(partial)) as bar:
        while True:
            before = _size(partial)
            try:
                return _receive(file, partial, bar)
            except _BrokenOffError as error:
                tries = _TRIES if _size(partial) > before else tries - 1
                if tries < 0:
                    raise UserError(
                        f"{file.url} cannot be fetched ({error}); run the same command again to go on with it, "
                        f"or give a copy with {file.option}."
                    ) from None
            time.sleep(_PAUSE)


def _receive(file: RemoteFile, partial: Path, bar: tqdm) -> None:
    """One connection: asks for what `partial` lacks and appends it.

    Raises:
      _BrokenOffError: it ended before the file did.
    """
    have = _size(partial)
    answer = _ask(file.url, have)
    if answer is None:  # nothing lies beyond what is there
        return
    with answer, partial.open("r+b" if have else "wb") as out:
        start, total = _extent(answer, file)
        if start > have:
            raise _BrokenOffError(f"the server answers from byte {start:,}, not from {have:,}")
        out.seek(start)
        out.truncate()
        bar.total, bar.n = total, start
        while block := _read(answer):
            out.write(block)
            bar.update(len(block))
        if out.tell() < total:
            raise _BrokenOffError(f"the connection ended after {out.tell():,} of {total:,} bytes")


def _ask(url: str, have: int) -> http.client.HTTPResponse | None:
    """The answer to a request for all bytes from `have` on; None where there are exactly that many."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_SECONDS)
        return answer
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not have:
                raise _BrokenOffError(f"{error.code} {error.reason}") from None
            if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
                return None
        return _ask(url, 0)  # what is there is longer than the server's file, so it is no beginning of it
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(getattr(error, "reason", error)) or type(error).__name__) from None


def _extent(answer: http.client.HTTPResponse, file: RemoteFile) -> tuple[int, int]:
    """Where the answer begins in the file, and the file's size, in bytes."""
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", "").strip())
        if found is None:
            raise _BrokenOffError("the server does not say which bytes it sends")
        return int(found[1]), int(found[2])
    return 0, int(answer.headers.get("Content-Length") or file.size)  # all of it: the server ignores Range


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from None


def _unpack(archive: Path, part: str, file: RemoteFile, target: Path) -> None:
    """Puts the archive's part, whole and marked, into target/LibriSpeech, and the makers' texts beside it."""
    temporary = target / f".{part}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write_members(archive, part, temporary)
        new, corpus = temporary / CORPUS, target / CORPUS
        if not (new / part).is_dir():
            raise UserError(f"{archive} holds no {CORPUS}/{part}; delete it, and give a copy with {file.option}.")
        (new / part / COMPLETED).write_text(f"{file.checksum}\n", encoding="utf-8")
        corpus.mkdir(exist_ok=True)
        for text in new.iterdir():
            if text.is_file() and not (corpus / text.name).exists():
                text.rename(corpus / text.name)
        (new / part).rename(corpus / part)  # last: from here on the part counts as done
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_members(archive: Path, part: str, folder: Path) -> None:
    """Writes plain files and folders only, and only those below LibriSpeech/<part> or directly in LibriSpeech."""
    try:
        with (
            archive.open("rb") as packed,
            _bar(f"unpacking {archive.name}", _size(archive)) as bar,
            tarfile.open(fileobj=packed, mode="r|gz") as tar,
        ):
            for member in tar:
                path = folder / _safe_path(member, part, archive)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                contents = tar.extractfile(member)
                assert contents is not None  # a plain file has contents
                with path.open("xb") as out:
                    shutil.copyfileobj(contents, out)
                bar.update(packed.tell() - bar.n)
    except (tarfile.TarError, EOFError, zlib.error, FileExistsError, NotADirectoryError):
        raise UserError(f"{archive} is damaged; delete it to have it fetched again.") from None


def _safe_path(member: tarfile.TarInfo, part: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if (
        not (member.isfile() or member.isdir())
        or path.is_absolute()
        or ".." in path.parts
        or path.parts[:1] != (CORPUS,)
        or (len(path.parts) > 2 and path.parts[1] != part)
    ):
        raise UserError(
            f"{archive} holds {member.name!r}, a link or something outside {CORPUS}/{part}: it is not the corpus and "
            "was not unpacked; delete it."
        )
    return path


@click.command()
@click.option("--part", "parts", multiple=True, type=click.Choice(list(OPENSLR.parts)), help="A part of the corpus.")
@click.option("--lexicon", is_flag=True, help="The lexicon.")
@click.option(
    "--lm", "language_models", multiple=True, type=click.Choice(list(OPENSLR.language_models)), help="A language model."
)
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path, parts: Sequence[str], lexicon: bool, language_models: Sequence[str]) -> None:
    """Puts parts of LibriSpeech, its lexicon and its language models into FOLDER."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        click.echo(download_librispeech(folder, parts, lexicon=lexicon, language_models=language_models))
    except UserError as error:
        click.echo(f"asr_kd.corpora.openslr: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
