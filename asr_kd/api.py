"""Calls of the public API that put several parts together: a model from its folder, decoding, word errors of a set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic import model_files
from asr_kd.acoustic.model import FrameModel
from asr_kd.decoding.decoder import Hypothesis, make_decoder, scaled_likelihoods
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.settings import DecodingConfig, chosen_backend
from asr_kd.evaluation.wer import WordErrors, pooled, word_errors


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> FrameModel:
    """A trained system (exp/<system>) as one model.

    Nothing beside its folder is read, but of an ensemble of other systems the folders that it names.

    `model.log_posteriors(features)` takes (T, D) normalised log-mel features and gives (T, C) natural-log posteriors
    over the senones; of several members, or seeds, the log of their mean.

    Raises:
      UserError: the folder holds no model, or a damaged one.
    """
    return model_files.load_model(Path(folder), device)


def decode(
    log_posteriors: Sequence[np.ndarray | torch.Tensor],
    graph: Graph,
    log_priors: np.ndarray,
    *,
    acoustic_scale: float,
    word_penalty: float = 0.0,
    decoder: str | None = None,
    settings: DecodingConfig | None = None,
) -> list[Hypothesis]:
    """The words of utterances, by a search through a decoding graph.

    Args:
      log_posteriors: (T, C) of each utterance, natural log, as `FrameModel.log_posteriors` gives them.
      graph: over the same C senones, see `read_graph`.
      log_priors: (C,) natural log of the senones' shares of the training frames: `Tree.log_priors()`.
      acoustic_scale, word_penalty: as chosen on dev.
      decoder: a name in `asr_kd.decoding.settings.BACKENDS`; None: the first of them that is installed.

    Raises:
      UserError: the decoder is not installed, or the posteriors have other senones than the graph.
    """
    settings, backend = settings or DecodingConfig(), chosen_backend(decoder)
    search = make_decoder(backend, graph, settings, acoustic_scale=acoustic_scale, word_penalty=word_penalty)
    arrays = (np.asarray(torch.as_tensor(array).cpu(), np.float32) for array in log_posteriors)
    return search.decode([scaled_likelihoods(array, log_priors, settings.prior_scale) for array in arrays])


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrors:
    """Word errors of a set of utterances, words separated by spaces; its `wer` is errors over reference words.

    Raises:
      ValueError: there are more of one than of the other.

    >>> wer(["A B C", "D"], ["A X C", "D E"])
    WordErrors(insertions=1, deletions=0, substitutions=1, words=4)
    >>> wer(["A B C", "D"], ["A X C", "D E"]).wer
    0.5
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"there are {len(references)} references and {len(hypotheses)} hypotheses")
    return pooled(word_errors(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True))
