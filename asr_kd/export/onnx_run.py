"""Runs exported models with onnxruntime, as any program outside of this package would."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.errors import UserError, first_line

try:
    import onnxruntime
except ImportError:
    raise UserError("running an ONNX model needs the package onnxruntime: pip install 'asr_kd[export]'.") from None

CHUNK = 20  # frames that a stream is fed at once where all of an utterance is there
_SEVERE = 3  # of onnxruntime's messages: errors


class _OtherForm(UserError):
    """A model of another form than the one that was asked for, or of none."""


class OnnxModel:
    """A model that `utterance_model` made, on the CPU.

    Raises:
      UserError: the file is missing, or no such model.

    Attributes:
      metadata: see `asr_kd.export.onnx_acoustic.Description`.
    """

    form = "utterance"

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _SEVERE
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no class in common
            raise UserError(f"{path} cannot be run: {first_line(error)}") from None
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if self.metadata.get("model_type") != f"asr_kd {self.form}":
            raise _OtherForm(f"{path} is no model of the form {self.form} that asr-kd export wrote.")
        self.num_dims, self.num_senones = (int(self.metadata[name]) for name in ("num_mel_bins", "num_senones"))

    def log_posteriors(self, features: np.ndarray) -> np.ndarray:
        """(T, D) log-mel energies of an utterance, not normalised -> (T, C) float32 natural-log posteriors.

        Raises:
          ValueError: they have another shape, or are not finite.
        """
        (log_posteriors,) = self._session.run(["log_posteriors"], {"features": self._checked(features)})
        return np.asarray(log_posteriors)

    def _checked(self, features: np.ndarray) -> np.ndarray:
        if features.ndim != 2 or not len(features) or features.shape[1] != self.num_dims:
            raise ValueError(f"features are {features.shape}, not (T, {self.num_dims}) with T > 0")
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")
        return np.ascontiguousarray(features, np.float32)


class OnnxStream(OnnxModel):
    """One stream of speech through a model that `streaming_model` made.

    >>> def listen(path, chunks):
    ...     stream = OnnxStream(path)
    ...     for chunk in chunks:  # (L, D) each
    ...         yield stream.accept(chunk)
    ...     yield stream.finish()
    """

    form = "streaming"

    def __init__(self, path: Path, threads: int = 1) -> None:
        super().__init__(path, threads)
        _, *state = self._session.get_inputs()
        dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        self._start = {entry.name: np.zeros(entry.shape, dtypes[entry.type]) for entry in state}
        self.restart()

    def restart(self) -> None:
        """Forgets all that was heard."""
        self._state, self._late = self._start, int(self.metadata["right_context"])
        self._last: np.ndarray | None = None

    def log_posteriors(self, features: np.ndarray) -> np.ndarray:
        """Returns the log posteriors of an utterance, as `OnnxModel.log_posteriors` does.

        The utterance is a stream of its own, in chunks of CHUNK frames.
        """
        self.restart()
        features = self._checked(features)
        parts = [self.accept(features[first : first + CHUNK]) for first in range(0, len(features), CHUNK)]
        return np.concatenate([*parts, self.finish()])

    def accept(self, features: np.ndarray) -> np.ndarray:
        """(L, D) more frames -> (L', C) log posteriors of what is certain now: in all `right_context` frames fewer.

        Raises:
          ValueError: see `OnnxModel.log_posteriors`.
        """
        features = self._checked(features)
        outputs: Any = self._session.run(None, {"features": features, **self._state})
        log_posteriors, self._state = outputs[0], dict(zip(self._state, outputs[1:], strict=True))
        self._last = features[-1:]
        dropped = min(self._late, len(log_posteriors))
        self._late -= dropped
        return np.asarray(log_posteriors[dropped:])

    def finish(self) -> np.ndarray:
        """The log posteriors of the last frames: the last one is repeated after the end. `restart` comes next."""
        late = int(self.metadata["right_context"])
        if self._last is None or not late:
            return np.zeros((0, self.num_senones), np.float32)
        return self.accept(np.repeat(self._last, late, axis=0))


def open_model(path: Path, threads: int = 1) -> OnnxModel:
    """A model of either form, by what its file says; raises as `OnnxModel`."""
    for form in (OnnxModel, OnnxStream):
        with contextlib.suppress(_OtherForm):
            return form(path, threads)
    raise UserError(f"{path} is no model that asr-kd export wrote.")
