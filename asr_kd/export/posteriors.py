"""Posteriors of utterances in the files of other toolkits: numpy's .npz, and Kaldi's .ark and .scp.

A folder holds `<utterance-id>.npz`, each with one array `log_posteriors` or `posteriors`; or `*.ark` of binary Kaldi
matrices or sparse posteriors, or `*.scp` that say where such objects lie. A matrix is (T, C): one row for each frame,
of natural-log posteriors or of posteriors. Sparse posteriors are pairs of a senone and its posterior, frame by frame.

Shapes:  T frames of an utterance, C senones.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import kaldi_native_io
import numpy as np

from asr_kd.errors import UserError
from asr_kd.export.kaldi_archives import entries_of_archive, is_sparse, read_sparse
from asr_kd.io.files import DAMAGED_ARRAYS
from asr_kd.io.kaldi_tables import file_of, script_entries

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

    Args:
      num_senones: C, for who reads sparse posteriors; matrices say theirs.

    Raises:
      UserError: the folder is missing, has no such file, or has one that is damaged.

    Attributes:
      files: all that is read, also what an .scp names outside the folder.
    """

    def __init__(self, folder: Path, num_senones: int = 0) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder")
        self.folder, self._num_senones = folder, num_senones
        self._archives, scripts = sorted(folder.glob("*.ark")), sorted(folder.glob("*.scp"))
        self.files = [*sorted(folder.rglob("*.npz")), *self._archives, *scripts]
        if not self.files:
            raise UserError(f"{folder} has no .npz, .ark or .scp file")
        self._of_scripts = dict(chain.from_iterable(map(script_entries, scripts)))
        inside = {file.resolve() for file in self.files}
        named = {file_of(where) for where in self._of_scripts.values()}
        self.files += sorted({file.resolve() for file in named if file.exists()} - inside)

    @cached_property
    def _objects(self) -> dict[str, str]:
        """Utterance -> "file:offset" of its matrix or sparse posteriors."""
        if self._of_scripts:  # an .scp says where the objects of its .ark lie
            return self._of_scripts
        return {name: f"{file}:{offset}" for file in self._archives for name, offset in entries_of_archive(file)}

    def __contains__(self, utterance: str) -> bool:
        return utterance in self._objects or self._npz(utterance).exists()

    def read(self, utterance: str) -> np.ndarray:
        """(T, C) float32 natural-log posteriors; each row sums to one in the exponential."""
        where = self._objects.get(utterance)
        if where is None:
            file = self._npz(utterance)
            matrix, is_log = _read_npz(file)
            return _log_posteriors(matrix, is_log, f"{file}")
        if is_sparse(where):
            return _log_posteriors(read_sparse(where, self._num_senones), False, f"{where} ({utterance})")
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
