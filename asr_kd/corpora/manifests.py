"""lhotse's manifests: which files make up a part, and the cuts or supervisions in them, each with its place.

A part is the name of a CutSet, "RECORDINGS+SUPERVISIONS", a folder of shards (shar) or of manifests, or lhotse's name
of a part: train for librispeech_cuts_train.jsonl.gz, or for its _recordings_train and _supervisions_train.
"""

from __future__ import annotations

import copy
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as shape

from asr_kd.errors import UserError, some_of
from asr_kd.io.files import open_text
from asr_kd.settings import Count, first_error

_ENDS = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".yaml")
_FIX = "write it again with lhotse"


@dataclass(frozen=True)
class Manifests:
    """The files of a part, one of three kinds.

    Attributes:
      cuts: of a CutSet; of each shard.
      recordings: empty, or of the same number as the supervisions.
      archives: of each shard's audio: a tar, or a manifest.
    """

    cuts: tuple[Path, ...] = ()
    recordings: tuple[Path, ...] = ()
    supervisions: tuple[Path, ...] = ()
    archives: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        return [*self.cuts, *self.recordings, *self.supervisions, *self.archives]


def find_manifests(root: Path, part: str) -> Manifests:
    """The files of a part.

    Raises:
      UserError: there are none, or more than one of a kind.
    """
    if "+" in part:
        both = [root / name.strip() for name in part.split("+", 1)]
        return Manifests(recordings=(both[0],), supervisions=(both[1],))
    path = root / part
    if path.is_file():
        return Manifests(cuts=(path,))
    if path.is_dir() and (shards := _shards(path)):
        return shards
    folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
    if (cuts := _named(folder, "cuts", name)) is not None:
        return Manifests(cuts=(cuts,))
    recordings, supervisions = (_named(folder, kind, name) for kind in ("recordings", "supervisions"))
    if recordings and supervisions:
        return Manifests(recordings=(recordings,), supervisions=(supervisions,))
    present = sorted(file.name for file in folder.glob("*") if file.name.endswith(_ENDS)) if folder.is_dir() else []
    raise UserError(
        f"{root}: there is no manifest {part!r}, nor recordings and supervisions of this name; {folder} has "
        f"{some_of(present) or 'none'}: name one of them under sets:, as FILE or RECORDINGS+SUPERVISIONS."
    )


def _named(folder: Path, kind: str, part: str) -> Path | None:
    """The manifest that lhotse would give this name: [corpus_]kind[_part], or the part alone for cuts."""
    ends = tuple(f"{kind}{'_' * bool(part)}{part}{end}" for end in _ENDS)
    alone = tuple(f"{part}{end}" for end in _ENDS) if kind == "cuts" and part else ()
    matches = sorted(
        path
        for path in (folder.glob("*") if folder.is_dir() else ())
        if path.name in (*ends, *alone) or path.name.endswith(tuple(f"_{end}" for end in ends))
    )
    if len(matches) > 1:
        raise UserError(
            f"{folder}: {some_of([path.name for path in matches])} could all be meant by {part or folder.name!r}; name "
            "one of them under sets: by its file name."
        )
    return matches[0] if matches else None


def _shards(folder: Path) -> Manifests | None:
    cuts = sorted(path for path in folder.glob("cuts.*") if ".jsonl" in path.suffixes)
    if not cuts:
        return None
    archives = sorted(folder.glob("recording.*"))
    if len(archives) not in (0, len(cuts)):
        raise UserError(
            f"{folder}: there are {len(cuts)} shards of cuts, but {len(archives)} of recordings; copy the folder again."
        )
    return Manifests(cuts=tuple(cuts), archives=tuple(archives))


def read_items(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a manifest as plain data, each with its place (file:line or file:entry), for messages.

    Raises:
      UserError: the file is missing or damaged, or an entry is no mapping.
    """
    with open_text(path, "the manifest", _FIX) as file:
        try:
            if ".jsonl" in path.suffixes:
                items: Iterator[Any] = (json.loads(line) for line in file)
            else:
                content = yaml.safe_load(file) if path.suffix == ".yaml" else json.load(file)
                items = iter(content if isinstance(content, list) else [content])
            number = 0
            for number, item in enumerate(items, 1):
                if not isinstance(item, dict):
                    raise UserError(f"{path}:{number}: this is no entry of a manifest; {_FIX}.")
                yield f"{path}:{number}", item
        except (json.JSONDecodeError, yaml.YAMLError) as error:
            place = f"{path}:{number + 1}" if ".jsonl" in path.suffixes else str(path)
            reason = getattr(error, "msg", None) or str(error).splitlines()[0]
            raise UserError(f"{place}: this cannot be read ({reason}); {_FIX}.") from None


_SHAPE = ConfigDict(strict=True, allow_inf_nan=False)  # other keys than those that are read here are lhotse's business


@shape(config=_SHAPE)
class _Source:
    type: str
    channels: list[int]
    source: str


@shape(config=_SHAPE)
class _Recording:
    id: str | int
    sources: list[_Source]
    sampling_rate: Count
    num_samples: int
    duration: float
    transforms: list[dict[str, Any]] | None = None


@shape(config=_SHAPE)
class _Supervision:
    id: str | int
    recording_id: str | int
    start: float
    duration: float
    channel: int | list[int] = 0
    custom: dict[str, Any] | None = None


@shape(config=_SHAPE)
class _Cut:
    id: str | int
    type: str
    start: float
    duration: float
    channel: int | list[int]
    recording: _Recording | None = None
    supervisions: list[_Supervision] | None = None


_SHAPES: dict[str, type[Any]] = {"recording": _Recording, "supervision": _Supervision, "cut": _Cut}


def check_item(where: str, data: Mapping[str, Any], kind: str) -> None:
    """Checks an entry of a manifest.

    Args:
      kind: of _SHAPES.

    Raises:
      UserError: a value is of the wrong type, or lhotse cannot read the entry.
    """
    from lhotse.serialization import deserialize_item

    try:
        TypeAdapter(_SHAPES[kind]).validate_json(json.dumps(data))
        deserialize_item(copy.deepcopy(dict(data)))
    except pydantic.ValidationError as error:
        reason = first_error(error, _SHAPES[kind])
    except Exception as error:  # lhotse raises errors of any class at an entry that is malformed
        reason = (str(error).strip() or repr(error)).splitlines()[0][:100]
    else:
        return
    raise UserError(f"{where}: this is no {kind} of lhotse's ({reason}); write the manifest again with lhotse.")


def shard_recordings(archive: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Cut -> its recording as plain data; None where the shard has none. Audio in a tar is named by its place there.

    Raises:
      UserError: the archive is damaged, compressed, or not of lhotse's form.
    """
    if archive.suffix != ".tar":
        for where, item in read_items(archive):
            if "cut_id" not in item:
                raise UserError(f"{where}: this entry has no cut_id; {_FIX}.")
            yield str(item["cut_id"]), item.get("recording")
        return
    try:
        with tarfile.open(archive, "r:") as tar:
            members = iter(tar)
            for audio in members:
                entry = next(members, None)
                content = tar.extractfile(entry) if entry is not None else None
                if entry is None or content is None:
                    raise UserError(f"{archive}: {audio.name} has no manifest beside it; {_FIX}.")
                recording = None if audio.name.endswith(".nodata") else json.load(content)
                if recording is not None:
                    recording["sources"][0] |= {"type": "shar", "source": f"{archive}:{audio.offset_data}:{audio.size}"}
                yield audio.name.rsplit(".", 1)[0], recording
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else repr(error)
        raise UserError(
            f"{archive}: this is no whole tar archive of lhotse's form ({reason}); unpack it if it is compressed, or "
            "copy it again."
        ) from None
