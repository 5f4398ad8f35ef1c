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

from tqdm import tqdm

from asr_kd.corpora.openslr_files import OPENSLR, Release
from asr_kd.corpora.transfer import RemoteFile, byte_bar, fetch, partial_file, size_of
from asr_kd.errors import UserError
from asr_kd.io.files import full_disk_is_an_error

CORPUS = "LibriSpeech"  # the one folder that the archives hold
COMPLETED = ".completed"  # marks a part as whole; lhotse's downloader leaves a file of this name too
# FLAC hardly shrinks in gzip; the rest is what 4 KiB blocks add to files of 220 KB
_UNPACKED = 1.05  # bytes on disk per byte of archive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DownloadResult:
    """Where the downloads are; None and () for what was not requested."""

    corpus_dir: Path | None
    lexicon: Path | None
    language_models: tuple[Path, ...]
    fetched: int  # bytes
    ran: bool  # whether anything was fetched or unpacked

    def __str__(self) -> str:
        places = [self.corpus_dir, self.lexicon, *self.language_models]
        state = f"{_in_words(self.fetched)} fetched, sums right" if self.ran else "there already"
        return f"{', '.join(str(path) for path in places if path) or 'nothing requested'}: {state}"


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
            f"{target}: {_in_words(plan.disk_needed)} are needed and {_in_words(plan.disk_free)} are free; free some "
            "space, ask for fewer parts, or give a folder on another disk."
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
    return DownloadResult(
        corpus_dir=target / CORPUS if parts else None,
        lexicon=target / release.lexicon.name if lexicon else None,
        language_models=tuple(target / release.language_models[name].name for name in language_models),
        fetched=plan.to_fetch,
        ran=not all(item.done for item in plan.items),
    )


@dataclass(frozen=True)
class Item:
    """One requested file, and how much of it is there."""

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
        unpacked = f"{_in_words(_UNPACKED * self.file.size)} unpacked" if self.part else ""
        return f"{self.file.name:<28} {_in_words(self.file.size):>7}  {unpacked:<16}  {self.file.checksum}  {state}"


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
                f"{folder} is there, but it may not be whole (no {COMPLETED}); delete it to have it fetched, "
                f"or use it as it is with --corpus-dir {target / CORPUS}."
            )
        items.append(_look(release.parts[part], target, part, folder))
    existing = next(path for path in [target, *target.absolute().parents] if path.exists())
    return Plan(target, tuple(items), shutil.disk_usage(existing).free)


def disk_from_nothing(parts: Sequence[str], release: Release = OPENSLR) -> tuple[int, int, int]:
    """Bytes of the parts' archives, of disk at the fullest moment, and of disk that they leave."""
    items = tuple(Item(release.parts[part], part, False, 0) for part in parts)
    fetched = sum(item.to_fetch for item in items)
    return fetched, Plan(Path(), items, 0).disk_needed, round(_UNPACKED * fetched)


def _check_names(what: str, names: Sequence[str], known: Mapping[str, RemoteFile]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"there is no {what} called {name!r}; there are {', '.join(known)}.")


def _look(file: RemoteFile, target: Path, part: str | None, result: Path) -> Item:
    there = size_of(target / file.name) or size_of(partial_file(target, file))
    return Item(file, part, done=result.exists(), there=there)


def _in_words(size: float) -> str:
    return str(tqdm.format_sizeof(size, "B"))


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
            byte_bar(f"unpacking {archive.name}", size_of(archive)) as bar,
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
