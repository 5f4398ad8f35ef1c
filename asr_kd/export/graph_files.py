"""What a decoder elsewhere gets beside a model: a graph, names for its output labels, and how it is searched."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.decoding.fst_io import Fst, to_kaldifst
from asr_kd.decoding.graph import Graph
from asr_kd.errors import UserError

SHERPA_BEAM = 16.0  # of sherpa-onnx's search
_JOINS = "_+|~^"  # the first that is in no word stands between the words of an arc that has several


@dataclass(frozen=True)
class Scores:
    """How log posteriors become scores.

    Attributes:
      log_priors: (C,) natural log.
      silence: senone of silence's last state.
      acoustic_scale, word_penalty, prior_scale, beam: of our own search.
      columns: (W,) the senone of each of the graph's; None: these are senones.
    """

    log_priors: np.ndarray
    silence: int
    acoustic_scale: float
    word_penalty: float = 0.0
    prior_scale: float = 1.0
    beam: float = SHERPA_BEAM
    columns: np.ndarray | None = None

    @property
    def factor(self) -> float:
        """The factor by which all costs for sherpa-onnx are multiplied, those of the graph and of the model."""
        return SHERPA_BEAM / self.beam

    @property
    def num_columns(self) -> int:
        return len(self.log_priors if self.columns is None else self.columns)


def write_fst(path: Path, fst: Fst) -> None:
    """Writes a transducer in OpenFst's binary format, vector and standard.

    Raises:
      OSError: the disk is full.
    """
    if not to_kaldifst(fst).write(str(path)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def write_words(path: Path, graph: Graph) -> str:
    """Each output label's word, or words joined by a sign that is in none, and its number.

    Returns:
      The sign; "" where no arc has several words.

    Raises:
      UserError: there are such arcs, and each sign is in some word.
    """
    free = [sign for sign in _JOINS if not any(sign in word for word in graph.words)]
    if not free and graph.sequences:
        raise UserError(f"each of {' '.join(_JOINS)} is in some word, and one must separate words in words.txt.")
    join = free[0] if graph.sequences else ""
    several = (join.join(graph.words[word - 1] for word in sequence) for sequence in graph.sequences)
    lines = (f"{name} {number}\n" for number, name in enumerate(["<eps>", *graph.words, *several]))
    path.write_text("".join(lines), encoding="utf-8")
    return join
