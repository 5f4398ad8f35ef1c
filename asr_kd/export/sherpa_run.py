"""Runs a package for sherpa-onnx with sherpa-onnx, as its README says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.errors import UserError
from asr_kd.frames.features import LOW_FREQ

try:
    import sherpa_onnx.lib._sherpa_onnx as sherpa  # the options that are needed here are in no function of its Python
except ImportError:
    raise UserError("a package for sherpa-onnx needs sherpa-onnx: pip install 'asr_kd[export]'.") from None

RULE = "text.fst"  # where `text` is what was said
_TAKEN_AT_ONCE = 0.2  # seconds


def is_of_streams(model: str) -> bool:
    """Whether that file of a package takes speech while it is spoken."""
    return model.startswith("streaming")


@dataclass(frozen=True)
class Answer:
    """What was said.

    Attributes:
      words: numbers of words, as words.txt has them.
      text: what was said where words are made of letters; else names of states.
    """

    words: list[int]
    text: str


class SherpaRecogniser:
    """One model of a package, on one thread.

    Args:
      folder: the package.
      model: name of the file.
      sampling_rate, num_mel_bins: of the features. max_active: of the search.
      tail: seconds of silence after a stream, for its last frames.
    """

    def __init__(
        self, folder: Path, model: str, *, sampling_rate: int, num_mel_bins: int, max_active: int, tail: float = 0.5
    ) -> None:
        features = sherpa.FeatureExtractorConfig(
            sampling_rate=sampling_rate, feature_dim=num_mel_bins, low_freq=LOW_FREQ, high_freq=0.0
        )
        tokens, graph, path = str(folder / "tokens.txt"), str(folder / "HLG.fst"), str(folder / model)
        rules = str(folder / RULE) if (folder / RULE).exists() else ""
        self._tail = tail
        self._rate, self.streams = sampling_rate, is_of_streams(model)
        if self.streams:
            kind = sherpa.OnlineZipformer2CtcModelConfig(model=path)
            config = sherpa.OnlineRecognizerConfig(
                feat_config=features,
                model_config=sherpa.OnlineModelConfig(zipformer2_ctc=kind, tokens=tokens, num_threads=1),
                ctc_fst_decoder_config=sherpa.OnlineCtcFstDecoderConfig(graph=graph, max_active=max_active),
                rule_fsts=rules,
                enable_endpoint=False,
                decoding_method="greedy_search",
            )
            self._recogniser = sherpa.OnlineRecognizer(config)
        else:
            config = sherpa.OfflineRecognizerConfig(
                feat_config=features,
                model_config=sherpa.OfflineModelConfig(
                    tdnn=sherpa.OfflineTdnnModelConfig(model=path), tokens=tokens, num_threads=1
                ),
                ctc_fst_decoder_config=sherpa.OfflineCtcFstDecoderConfig(graph=graph, max_active=max_active),
                rule_fsts=rules,
            )
            self._recogniser = sherpa.OfflineRecognizer(config)

    def recognise(self, samples: np.ndarray, rate: int | None = None) -> Answer:
        """(n,) float32 samples of an utterance in [-1, 1] -> what sherpa-onnx answers.

        Args:
          rate: of the samples; sherpa-onnx resamples those of another than the features'. None: theirs.
        """
        result = self._result(samples, self._rate if rate is None else rate)
        return Answer(list(result.words), result.text)

    def _result(self, samples: np.ndarray, rate: int) -> Any:
        stream = self._recogniser.create_stream()
        if not self.streams:
            stream.accept_waveform(rate, samples)
            self._recogniser.decode_stream(stream)
            return stream.result
        ended = np.concatenate([samples, np.zeros(round(self._tail * rate), np.float32)])
        step = round(_TAKEN_AT_ONCE * rate)
        for first in range(0, len(ended), step):
            stream.accept_waveform(rate, ended[first : first + step])
            self._decode(stream)
        stream.input_finished()
        self._decode(stream)
        return self._recogniser.get_result(stream)

    def _decode(self, stream: object) -> None:
        while self._recogniser.is_ready(stream):
            self._recogniser.decode_stream(stream)
