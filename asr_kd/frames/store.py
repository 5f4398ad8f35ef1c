"""All features of a set as one memory-mapped array, with every per-frame array of the same numbering beside it.

A folder `data/frames/<set>/` holds `features.npy` (N, D) float16, raw log-mel energies; `utterances.jsonl`, one line
per utterance in the order of the frames; `cmvn.npz`, the set's `Normalisation`; `stamp.json`; and, per attached array
(the senones of the frames are one), `<name>.npy` with `<name>.stamp.json`. Features are stored raw, so that the mean of
a speaker can be computed over any subset; models see `normalised` ones.

Shapes:  N frames of the set, D mel bins, U utterances, G normalisation groups, T frames of an utterance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig, check_features
from asr_kd.frames.normalisation import CMVN, Normalisation, SetStatistics
from asr_kd.io.append_log import AppendLog, reserve_header, write_header
from asr_kd.io.files import DAMAGED_ARRAYS, read_json_lines, replacing_file
from asr_kd.io.stamp import Stamp, another_here, read_stamp


def copy_name(utterance_id: str, speed: float, warp: float = 1.0) -> str:
    """The id of an utterance's copy at another speed, or with a warped frequency axis.

    >>> copy_name("a", 0.9), copy_name("a", 1.0, 1.1), copy_name("a", 1.0)
    ('a_sp0.9', 'a_vt1.1', 'a')
    """
    at_speed = utterance_id if speed == 1.0 else f"{utterance_id}_sp{speed:g}"
    return at_speed if warp == 1.0 else f"{at_speed}_vt{warp:g}"


class FrameStoreError(UserError):
    """A store, or an array of it, is missing or damaged, or does not belong to the features."""


class FrameStore:
    """The frames of a set, read only; arrays may be attached (a `FrameSource`).

    Attributes:
      ids: utterance ids in the order of the frames; of altered copies see `copy_name`.
      offsets: (U + 1,) int64; utterance u owns the frames offsets[u]:offsets[u + 1].
      features: (N, D) float16 memory map, raw log-mel.
      groups: (U,) int32, normalisation group: speaker, speed and warp; the utterance itself where no speaker is known.
      normalisation: of the groups.
      speeds, warps: (U,) float32, 1.0 for unaltered. texts: transcripts. durations: (U,) float64, seconds.
      references: what recognised words are compared with: the transcripts, unless the cuts have something else.
      digest: of the store's stamp.
    """

    def __init__(self, folder: Path, rows: list[dict[str, Any]], features: np.memmap, normalisation: Normalisation):
        self.folder = folder
        self.features: np.ndarray = features
        self.ids: list[str] = [row["id"] for row in rows]
        self.texts: list[str] = [row["text"] for row in rows]
        self.references: list[str] = [row.get("reference", row["text"]) for row in rows]
        self.offsets = np.concatenate([[0], np.cumsum([row["frames"] for row in rows], dtype=np.int64)])
        self.groups = np.array([row["group"] for row in rows], dtype=np.int32)
        self.speeds = np.array([row["speed"] for row in rows], dtype=np.float32)
        self.warps = np.array([row.get("warp", 1.0) for row in rows], dtype=np.float32)
        self.durations = np.array([row["duration"] for row in rows], dtype=np.float64)
        self.normalisation = normalisation
        self.digest = ""
        self._index = {utterance_id: u for u, utterance_id in enumerate(self.ids)}

    @classmethod
    def open(cls, folder: Path) -> FrameStore:
        """Raises FrameStoreError where the store is missing, damaged, or its parts do not fit together."""
        stamp = read_stamp(folder)
        if stamp is None:
            raise FrameStoreError(f"{folder} holds no features.")
        try:
            rows = read_json_lines(folder / "utterances.jsonl")
            features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
            with np.load(folder / CMVN, allow_pickle=False) as file:
                normalisation = Normalisation.of_arrays({name: file[name] for name in file if name != "names"})
            store = cls(folder, rows, features, normalisation)
            store._check()
        except FileNotFoundError as error:
            raise FrameStoreError(f"{error.filename} is missing: the store is damaged; delete {folder}.") from None
        except DAMAGED_ARRAYS as error:
            raise FrameStoreError(f"the store {folder} is damaged; delete it ({error}).") from None
        store.digest = stamp["digest"]
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the folder itself, and the same store or none."""
        return _same_store, (self.folder, self.digest)

    def _check(self) -> None:
        if self.features.ndim != 2 or self.features.dtype != np.float16:
            raise ValueError("features.npy is not a float16 matrix")
        if len(self.features) != self.offsets[-1]:
            rows = f"utterances.jsonl has {self.offsets[-1]}"
            raise ValueError(f"features.npy has {len(self.features)} frames, {rows}")
        self.normalisation.check(self.num_dims)
        if len(self.ids) == 0 or self.groups.min() < 0 or self.groups.max() >= len(self.means):
            raise ValueError("cmvn.npz and utterances.jsonl do not fit together")
        if len(self._index) != len(self.ids):
            raise ValueError("utterances.jsonl names an utterance twice")

    @property
    def originals(self) -> list[str]:
        """(U,) ids; an altered copy has the id of its original."""
        copies = zip(self.ids, self.speeds, self.warps, strict=True)
        return [name.removesuffix(copy_name("", speed, warp)) for name, speed, warp in copies]

    @property
    def unaltered(self) -> np.ndarray:
        """(U,) bool: False for altered copies."""
        unaltered: np.ndarray = (self.speeds == 1.0) & (self.warps == 1.0)
        return unaltered

    @property
    def unwarped(self) -> np.ndarray:
        """(U,) int64, the utterance that has the same times: of a warped copy the one that is not, else itself."""
        names = zip(self.originals, self.speeds, strict=True)
        return np.array([self.index(copy_name(original, speed)) for original, speed in names])

    @property
    def means(self) -> np.ndarray:
        """(G, D) float32 mean of each group."""
        return self.normalisation.means

    @property
    def scale(self) -> np.ndarray:
        """(D,) float32, 1 / standard deviation over the training set."""
        return self.normalisation.scale

    @property
    def num_frames(self) -> int:
        return len(self.features)

    @property
    def num_dims(self) -> int:
        return int(self.features.shape[1])

    def spread(self, count: int) -> list[int]:
        """The numbers of so many utterances, or of all where there are fewer, spread over the set."""
        return [int(u) for u in np.unique(np.linspace(0, len(self.ids) - 1, count).astype(int))]

    def span(self, utterance: int) -> slice:
        """The frame numbers of an utterance."""
        return slice(int(self.offsets[utterance]), int(self.offsets[utterance + 1]))

    def index(self, utterance_id: str) -> int:
        """The number of an utterance; FrameStoreError where the set has none of this id."""
        try:
            return self._index[utterance_id]
        except KeyError:
            raise FrameStoreError(
                f"{self.folder} has no utterance {utterance_id}: are the features out of date?"
            ) from None

    def normalised(self, first: int, end: int | None = None) -> np.ndarray:
        """(T, D) float32: (x - mean) * scale, of utterance `first`, or of all from `first` up to `end`."""
        end = first + 1 if end is None else end
        start = int(self.offsets[first])
        frames = self.features[start : int(self.offsets[end])].astype(np.float32)
        for u in range(first, end):
            part = frames[int(self.offsets[u]) - start : int(self.offsets[u + 1]) - start]
            self.normalisation.apply(part, int(self.groups[u]))
        return frames

    def attach(self, name: str, blocks: Iterable[np.ndarray], dtype: Any, stamp: Stamp) -> None:
        """Writes a per-frame array (N,) as `<name>.npy` with its stamp; an older one is replaced as a whole.

        Raises:
          FrameStoreError: the blocks together do not have one entry per frame.
        """
        if name in ("features", "cmvn") or not name.isidentifier():
            raise ValueError(f"{name!r} cannot name a per-frame array")
        stamp_file = self.folder / f"{name}.stamp.json"
        with replacing_file(self.folder / f"{name}.npy") as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=(self.num_frames,))
            length = 0
            for block in blocks:
                array[length : length + len(block)] = block[: max(0, self.num_frames - length)]
                length += len(block)
            if length != self.num_frames:
                raise FrameStoreError(
                    f"{self.folder}: {name} has {length} entries but the store has {self.num_frames} frames: it was "
                    "made from other features."
                )
            array.flush()
            # without its stamp an array counts as missing: a kill between the two writes never pairs new with old
            stamp_file.unlink(missing_ok=True)
        with replacing_file(stamp_file) as temporary:
            stamp.write(temporary, {"frames": self.digest, "length": self.num_frames})

    def array(self, name: str) -> np.memmap:
        """An attached per-frame array, read only; FrameStoreError where it is missing or of other features."""
        stamp, file = self.array_stamp(name), self.folder / f"{name}.npy"
        if stamp is None or not file.exists():
            raise FrameStoreError(f"{self.folder} has no {name}: {file} is missing.")
        try:
            array: np.memmap = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise FrameStoreError(f"{file} is damaged ({error}); delete it.") from None
        if len(array) != self.num_frames or stamp["metadata"].get("frames") != self.digest:
            raise FrameStoreError(
                f"{file} ({len(array)} entries, of features {stamp['metadata'].get('frames')}) does not belong to "
                f"{self.folder} ({self.num_frames} frames, features {self.digest})."
            )
        return array

    def array_stamp(self, name: str) -> dict[str, Any] | None:
        """The stamp of an attached array; None where there is no such array."""
        if not (self.folder / f"{name}.npy").exists():
            return None
        return read_stamp(self.folder / f"{name}.stamp.json")


@dataclass(frozen=True)
class StoredUtterance:
    """What a store knows of an utterance besides its frames.

    Attributes:
      group: utterances of the same group share one mean.
      duration: seconds.
      speed, warp: of an altered copy.
      reference: what recognised words are compared with, where that is not `text`.
    """

    id: str
    group: str
    text: str
    duration: float
    speed: float = 1.0
    warp: float = 1.0
    reference: str | None = None


class FrameStoreWriter:
    """Writes a store into an existing folder, utterance by utterance; only one of them is ever in memory.

    Statistics are summed in float64 over what is stored (after rounding to float16). Leave the `with` block to
    finish; the caller writes the folder's stamp (`asr_kd.io.folders.resuming_folder` does).

    In a folder that a killed writer has left, writing resumes at its last commit.

    Args:
      training: normalisation of the training set; None: this is the training set.
      config: how this set is normalised; None: the defaults.
    """

    def __init__(
        self,
        folder: Path,
        num_dims: int,
        training: Normalisation | None = None,
        config: FeaturesConfig | None = None,
    ):
        self.folder, self.num_dims = folder, num_dims
        self.num_frames = self.num_utterances = 0
        self.note: Any = None  # of the caller's last commit
        self._statistics = SetStatistics(num_dims, config or FeaturesConfig(), training)
        self._log = AppendLog(folder, ["features.npy", "utterances.jsonl"])
        self._features, self._rows = self._log.files.values()
        committed = self._log.note
        if committed is None:
            reserve_header(self._features)
            return
        self.num_frames, self.num_utterances = committed["frames"], committed["utterances"]
        self.note = committed["note"]
        self._statistics.restore(committed)

    def commit(self, note: Any) -> None:
        """Commits what is written so far if a commit is due, with a note of the caller (plain data)."""
        self._log.commit_if_due(
            lambda: {
                "frames": self.num_frames,
                "utterances": self.num_utterances,
                "note": note,
                **self._statistics.note(),
            }
        )

    def append(self, utterance: StoredUtterance, features: np.ndarray) -> None:
        """Adds an utterance.

        Args:
          features: (T, D), raw log-mel; stored as float16.

        Raises:
          UserError: see `check_features`.
        """
        if features.ndim != 2 or features.shape[1] != self.num_dims:
            raise ValueError(f"{utterance.id}: features are {features.shape}, not (T, {self.num_dims})")
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(features, dtype="<f2")
        check_features(utterance.id, stored)
        number = self._statistics.add(utterance.group, stored.astype(np.float64))
        self._features.write(stored.tobytes())
        row = {"id": utterance.id, "frames": len(stored), "group": number}
        row |= {"speed": utterance.speed, "duration": utterance.duration}
        row |= {} if utterance.warp == 1.0 else {"warp": utterance.warp}
        row |= {"text": utterance.text}
        row |= {} if utterance.reference is None else {"reference": utterance.reference}
        self._rows.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.num_frames += len(stored)
        self.num_utterances += 1

    def __enter__(self) -> FrameStoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
                self._log.finish()
        finally:
            self._log.close()

    def _finish(self) -> None:
        if self.num_frames == 0:
            raise UserError(f"{self.folder.name.strip('.').partition('.')[0]}: the set has no usable utterance.")
        write_header(self._features, np.dtype("<f2"), (self.num_frames, self.num_dims))
        np.savez(self.folder / CMVN, **self._statistics.arrays())


def store_bytes(frames: int, utterances: int, config: FeaturesConfig) -> int:
    """About how much disk a store takes, before anything is attached; no utterance shares its group in the worst case.

    Args:
      utterances: altered copies included.
    """
    dims, tables = config.num_mel_bins, 2 if config.variance == "speaker" else 1  # of means and scales
    return frames * dims * 2 + utterances * (300 + 4 * dims * tables)


def _same_store(folder: Path, digest: str) -> FrameStore:
    store = FrameStore.open(folder)
    if store.digest != digest:
        raise another_here(folder, store.digest, digest)
    return store
