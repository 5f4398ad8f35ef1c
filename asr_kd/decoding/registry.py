"""The decoders that `--decoder` can name. A new one is a file with a `Decoder`, and a line here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """A decoder.

    Attributes:
      decoder: "module:Class" of an `asr_kd.decoding.decoder.Decoder`.
      package: what must be installed for it.
      lattices: whether it keeps lattices, which `--rescore-lm` needs.
    """

    decoder: str
    package: str
    lattices: bool = False


BACKENDS: dict[str, Backend] = {
    "k2": Backend("asr_kd.decoding.k2_decoder:K2Decoder", package="k2", lattices=True),
    "kaldi": Backend("asr_kd.decoding.kaldi_decoder:KaldiDecoder", package="kaldi_decoder"),
}
