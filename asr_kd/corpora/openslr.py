"""Downloads LibriSpeech, its lexicon and its language models from OpenSLR, checks and unpacks them.

lhotse's download_librispeech checks no sums, corrupts a file where the server ignores Range, and unpacks links.

The target folder gets LibriSpeech/<part>/, librispeech-lexicon.txt and <name>.arpa.gz. A file grows as <file>.part
and takes its name once its sum is right; a part is unpacked beside its place and moved there whole. So a killed run is
resumed by the next one. Archives are deleted once they are unpacked.
"""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from asr_kd.corpora.transfer import RemoteFile, fetch, size_of
from asr_kd.errors import UserError
from asr_kd.io.files import full_disk_is_an_error
from asr_kd.io.formatting import human_bytes
from asr_kd.io.progress import progress_bar

CORPUS = "LibriSpeech"  # the one folder that the archives hold
COMPLETED = ".completed"  # marks a part as whole; lhotse's downloader leaves a file of this name too
# FLAC hardly shrinks in gzip; the rest is what 4 KiB blocks add to files of 220 KB
_UNPACKED = 1.05  # bytes on disk per byte of archive

# Sums. Resource 12: torchaudio.datasets.librispeech; resource 31: recorded by several projects beside the MD5 sums that
# OpenSLR publishes for it; resource 11: MD5, as github.com/sdrobert/pytorch-database-prep has them in librispeech.py
# together with those that OpenSLR publishes for 12.
# Sizes: Kaldi's egs/{librispeech,mini_librispeech}/s5/local/download_{and_untar,lm}.sh.
_SITE = "https://www.openslr.org/resources"
_PARTS = (
    ("dev-clean", 12, 337926286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    ("dev-other", 12, 314305928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    ("test-clean", 12, 346663984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    ("test-other", 12, 328757843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    ("train-clean-100", 12, 6387309499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    ("train-clean-360", 12, 23049477885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    ("train-other-500", 12, 30593501606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
    ("dev-clean-2", 31, 126046265, "176ec501490eced2d6c1f89f4f0ddc7dfe799e649e5322f8ba49fe3ff50c8012"),
    ("train-clean-5", 31, 332954390, "47805806c8b15f7549f3c51bd6b7da72ec0128a34d32830c8014a88658c0292d"),
)
_LANGUAGE_MODELS = (
    ("3-gram.pruned.3e-7", 13654242, "8f67ec741827742eee05799ab7605b50"),
    ("3-gram.pruned.1e-7", 34094057, "9a0f1325bcaf3a0f7b7be4be10823c2a"),
    ("3-gram", 759636181, "74cbb837e582378c26c602e1c8cbcb9c"),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """What can be downloaded: archives by the name of their part, the lexicon, language models by their name."""

    parts: Mapping[str, RemoteFile]
    lexicon: RemoteFile
    language_models: Mapping[str, RemoteFile]


OPENSLR = Release(
    parts={
        name: RemoteFile(f"{_SITE}/{resource}/{name}.tar.gz", size, f"sha256:{sha256}", "--corpus-dir")
        for name, resource, size, sha256 in _PARTS
    },
    lexicon=RemoteFile(
        f"{_SITE}/11/librispeech-lexicon.txt", 5627653, "md5:28f72663f6bfed7cd346283c064c315b", "--lexicon"
    ),
    language_models={
        name: RemoteFile(f"{_SITE}/11/{name}.arpa.gz", size, f"md5:{md5}", "--lm")
        for name, size, md5 in _LANGUAGE_MODELS
    },
)


@dataclass(frozen=True)
class DownloadResult:
    """The result of a download: where the lexicon, language models and corpus are, as far as they were requested."""

    places: tuple[Path, ...]
    fetched: int  # bytes
    ran: bool  # whether anything was fetched or unpacked

    def __str__(self) -> str:
        state = f"{human_bytes(self.fetched)} fetched, sums right" if self.ran else "there already"
        return f"{', '.join(map(str, self.places)) or 'nothing requested'}: {state}"


def download_librispeech(
    target: Path,
    parts: Sequence[str],
    *,
    lexicon: bool,
    language_models: Sequence[str],
    release: Release = OPENSLR,
) -> DownloadResult:
    """Downloads what is not in `target` yet, after logging what that takes; the module describes the layout.

    Args:
      parts: names such as "train-clean-100"; `release.parts` lists them.
      language_models: names such as "3-gram.pruned.3e-7".

    Raises:
      UserError: a name is unknown, the disk is too small, the network fails, a sum is wrong, an archive holds
        unexpected entries, or the folder of a part is there without its mark.
    """
    plan = make_plan(target, parts, lexicon=lexicon, language_models=language_models, release=release)
    log.info("%s", plan)
    if plan.disk_needed > plan.disk_free:
        raise UserError(
            f"{target}: {human_bytes(plan.disk_needed)} are needed and {human_bytes(plan.disk_free)} are free; free "
            "some space, ask for fewer parts, or give a folder on another disk."
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
                fetch(item.file, target)
            elif not item.done:
                archive = fetch(item.file, target)
                _unpack(archive, item.part, item.file, target)
                archive.unlink()
    places = dict.fromkeys(target / (CORPUS if item.part else item.file.name) for item in plan.items)
    return DownloadResult(tuple(places), plan.to_fetch, ran=not all(item.done for item in plan.items))


@dataclass(frozen=True)
class Item:
    """One requested file, and how much of it is there."""

    file: RemoteFile
    part: str | None  # its archive's part; None: a file that is used as it is
    done: bool = False
    there: int = 0  # bytes of it

    @property
    def to_fetch(self) -> int:
        return 0 if self.done else max(0, self.file.size - self.there)

    @property
    def unpacked(self) -> int:
        """Bytes of disk."""
        return round(_UNPACKED * self.file.size) if self.part else 0

    def __str__(self) -> str:
        state = f"{human_bytes(self.there)} of it there" if self.there else "to be fetched"
        if self.done:
            state = "there already"
        unpacked = f"{human_bytes(self.unpacked)} unpacked" if self.part else ""
        return f"{self.file.name:<28} {human_bytes(self.file.size):>8}  {unpacked:<17}  {self.file.checksum}  {state}"


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
                more += item.to_fetch + item.unpacked
                most = max(most, more)
                more -= item.file.size if item.part else 0
        return most

    def __str__(self) -> str:
        needed, free = human_bytes(self.disk_needed), human_bytes(self.disk_free)
        total = f"{human_bytes(self.to_fetch)} to fetch; {needed} of disk needed, archives and unpacked, {free} free"
        return "\n  ".join([f"{self.target}:", *map(str, self.items), total])


def make_plan(
    target: Path, parts: Sequence[str], *, lexicon: bool, language_models: Sequence[str], release: Release = OPENSLR
) -> Plan:
    """Looks at what is in `target`; arguments and errors as of `download_librispeech`. The small files come first."""
    _check_names("part of LibriSpeech", parts, release.parts)
    _check_names("language model of LibriSpeech", language_models, release.language_models)
    plain = [release.lexicon] if lexicon else []
    plain += [release.language_models[name] for name in dict.fromkeys(language_models)]
    items = [Item(file, None, (target / file.name).exists(), file.bytes_in(target)) for file in plain]
    for part in dict.fromkeys(parts):
        folder, file = target / CORPUS / part, release.parts[part]
        if folder.exists() and not (folder / COMPLETED).exists():
            raise UserError(
                f"{folder} is there, but it may not be whole (no {COMPLETED}); delete it to have it fetched, "
                f"or use it as it is: asr-kd prepare --corpus-dir {target / CORPUS}."
            )
        items.append(Item(file, part, folder.exists(), file.bytes_in(target)))
    existing = next(path for path in [target, *target.absolute().parents] if path.exists())
    return Plan(target, tuple(items), shutil.disk_usage(existing).free)


def disk_from_nothing(parts: Sequence[str]) -> tuple[int, int, int]:
    """Bytes of the parts' archives, of disk at the fullest moment, and of disk that they leave."""
    plan = Plan(Path(), tuple(Item(OPENSLR.parts[part], part) for part in parts), 0)
    return plan.to_fetch, plan.disk_needed, sum(item.unpacked for item in plan.items)


def _check_names(what: str, names: Sequence[str], known: Mapping[str, RemoteFile]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"there is no {what} called {name!r}; there are {', '.join(known)}.")


def _unpack(archive: Path, part: str, file: RemoteFile, target: Path) -> None:
    """Puts the archive's part, whole and marked, into target/LibriSpeech, and the makers' texts beside it."""
    temporary = target / f".{part}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write_members(archive, part, temporary)
        new, corpus = temporary / CORPUS, target / CORPUS
        if not (new / part).is_dir():
            raise UserError(
                f"{archive} holds no {CORPUS}/{part}; delete it, and give asr-kd prepare a copy with {file.option}."
            )
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
            progress_bar(f"unpacking {archive.name}", size_of(archive), "B", unit_scale=True) as bar,
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
