"""Posteriors of utterances in the files of other toolkits: numpy's .npz, and Kaldi's .ark and .scp.

A folder holds `<utterance-id>.npz`, each with one array `log_posteriors` or `posteriors`; or `*.ark` of binary Kaldi
matrices, or `*.scp` that say where such matrices lie. A matrix is (T, C): one row for each frame, of natural-log
posteriors or of posteriors.

Shapes:  T frames of an utterance, C senones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

import kaldi_native_io
import numpy as np

from asr_kd.errors import UserError
from asr_kd.io.files import DAMAGED_ARRAYS
from asr_kd.io.kaldi_tables import file_of, read_token, script_entries

Format = Literal["npz", "ark"]
ARK = "posteriors.ark"
_TOLERANCE = 0.02  # by which a row of posteriors may miss a sum of one: compressed matrices and float16 are rounded


def write_posteriors(folder: Path, utterances: Iterable[tuple[str, np.ndarray]], form: Format) -> int:
    """Writes (utterance id, (T, C) log posteriors) into an existing folder.

    Returns:
      The number of utterances.
    """
    count = 0
    if form == "npz":
        for name, log_posteriors in utterances:
            file = folder / f"{name}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)  # ids may have a slash
            np.savez(file, log_posteriors=log_posteriors.astype(np.float32))
            count += 1
        return count
    with kaldi_native_io.FloatMatrixWriter(f"ark:{folder / ARK}") as writer:
        for name, log_posteriors in utterances:
            writer.write(name, np.ascontiguousarray(log_posteriors, np.float32))
            count += 1
    return count


class PosteriorFolder:
    """Reads a folder of posteriors, one utterance at a time.

    Raises:
      UserError: the folder is missing, has no such file, or has one that is damaged.

    Attributes:
      files: all that is read, also what an .scp names outside the folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder")
        self.folder = folder
        self._archives, scripts = sorted(folder.glob("*.ark")), sorted(folder.glob("*.scp"))
        self.files = [*sorted(folder.rglob("*.npz")), *self._archives, *scripts]
        if not self.files:
            raise UserError(f"{folder} has no .npz, .ark or .scp file")
        self._of_scripts = dict(chain.from_iterable(map(script_entries, scripts)))
        inside = {file.resolve() for file in self.files}
        named = {file_of(where) for where in self._of_scripts.values()}
        self.files += sorted({file.resolve() for file in named if file.exists()} - inside)

    @cached_property
    def _matrices(self) -> dict[str, str]:
        """Utterance -> "file:offset" of its matrix."""
        if self._of_scripts:  # an .scp says where the matrices of its .ark lie
            return self._of_scripts
        return {name: f"{file}:{offset}" for file in self._archives for name, offset in _entries_of_archive(file)}

    def __contains__(self, utterance: str) -> bool:
        return utterance in self._matrices or self._npz(utterance).exists()

    def read(self, utterance: str) -> np.ndarray:
        """(T, C) float32 natural-log posteriors; each row sums to one in the exponential."""
        where = self._matrices.get(utterance)
        if where is None:
            file = self._npz(utterance)
            matrix, is_log = _read_npz(file)
            return _log_posteriors(matrix, is_log, f"{file}")
        try:
            matrix = np.array(kaldi_native_io.FloatMatrix.read(where).numpy())
        except RuntimeError:
            raise UserError(f"{where}: the matrix of {utterance} cannot be read") from None
        return _log_posteriors(matrix, bool(matrix.size and matrix.max() <= 0), f"{where} ({utterance})")

    def _npz(self, utterance: str) -> Path:
        return self.folder / f"{utterance}.npz"


def _read_npz(file: Path) -> tuple[np.ndarray, bool]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for name in ("log_posteriors", "posteriors"):
                if name in arrays:
                    return arrays[name], name == "log_posteriors"
            names = ", ".join(arrays.files) or "none"
    except DAMAGED_ARRAYS as error:
        raise UserError(f"{file} is damaged, or no .npz file ({error})") from None
    raise UserError(f"{file} has no array log_posteriors or posteriors; its arrays: {names}")


def _log_posteriors(matrix: np.ndarray, is_log: bool, where: str) -> np.ndarray:
    """Checked, and normalised exactly."""
    if matrix.ndim != 2 or 0 in matrix.shape or not np.issubdtype(matrix.dtype, np.floating):
        raise UserError(f"{where} has shape {matrix.shape} of {matrix.dtype}, not frames x senones of floats")
    values = matrix.astype(np.float64)
    if not is_log:
        if not (values >= 0).all():  # also where one is NaN
            raise UserError(f"{where}: posteriors must be numbers of at least 0")
        with np.errstate(divide="ignore"):
            values = np.log(values)
    if np.isnan(values).any() or (values == np.inf).any():
        raise UserError(f"{where}: a log posterior is NaN or infinite")
    log_sums = np.logaddexp.reduce(values, axis=1, keepdims=True)
    if not (np.abs(np.expm1(log_sums)) <= _TOLERANCE).all():
        frame = int(np.argmax(np.abs(log_sums)))
        total = float(np.exp(log_sums[frame, 0]))
        raise UserError(f"{where}: the posteriors of frame {frame} sum to {total:.4g}, not to 1")
    return (values - log_sums).astype(np.float32)


def _entries_of_archive(file: Path) -> Iterator[tuple[str, int]]:
    """(utterance, offset of its matrix) of a binary Kaldi archive, without reading the matrices."""
    size = file.stat().st_size
    with file.open("rb") as archive:
        while name := read_token(archive):
            offset = archive.tell()
            try:
                archive.seek(_bytes_of_matrix(archive), 1)
            except (KeyError, struct.error):
                raise UserError(f"{file}: at {name} (byte {offset}) there is no binary Kaldi matrix") from None
            if archive.tell() > size:
                raise UserError(f"{file} ends within the matrix of {name}")
            yield name, offset


def _bytes_of_matrix(archive: BinaryIO) -> int:
    """Reads a matrix's header, as in Kaldi's kaldi-matrix.cc and compressed-matrix.cc; returns the size of the rest."""
    if archive.read(2) != b"\0B":
        raise KeyError("text")
    kind = read_token(archive)
    if kind in ("FM", "DM"):
        _, rows, _, columns = struct.unpack("<bibi", archive.read(10))
        return int(rows * columns * {"FM": 4, "DM": 8}[kind])
    _, _, rows, columns = struct.unpack("<ffii", archive.read(16))
    bytes_per_entry, bytes_per_column = {"CM": (1, 8), "CM2": (2, 0), "CM3": (1, 0)}[kind]
    return int(rows * columns * bytes_per_entry + columns * bytes_per_column)
