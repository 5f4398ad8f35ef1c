"""Settings of the search, the grids from which dev chooses the scales, and the decoders that `--decoder` can name.

A new decoder is a file with a `Decoder`, and an entry in BACKENDS. A class is named by a string, so that the commands
load no decoder before it is needed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from asr_kd.errors import UserError
from asr_kd.settings import STRICT, Count, Natural, NotNegative, Positive

log = logging.getLogger(__name__)


@dataclass(frozen=True, config=STRICT)
class DecodingConfig:
    """Beams, and the grids from which dev chooses the scales."""

    search_beam: Positive = 20.0
    output_beam: Positive = 8.0
    min_active: Natural = 30
    max_active: Count = 3000  # bounds the time where a small acoustic scale makes the beam wide
    retry_beams: tuple[Positive, ...] = (40.0, 80.0)  # for utterances that come back empty
    acoustic_scales: tuple[Positive, ...] = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
    word_penalties: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)  # added to the score of each word
    prior_scale: NotNegative = 1.0
    # of a silence after each word; 0: silence only where SIL is a word of the transcripts
    silence_probability: Annotated[float, Field(ge=0, le=0.999)] = 0.5
    # decode phones with a phone bigram beside the words, where words are made of phones: the phone error rate (PER)
    phones: bool = True
    phone_acoustic_scales: tuple[Positive, ...] = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)  # the grids for phones
    phone_penalties: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)  # added to the score of each phone

    def for_words(self) -> DecodingConfig:
        """Returns the settings with those that concern phones alone at their defaults: no words depend on them."""
        names = ("phones", "phone_acoustic_scales", "phone_penalties")
        return dataclasses.replace(self, **{name: getattr(DecodingConfig, name) for name in names})

    def for_phones(self) -> DecodingConfig:
        """Returns the settings with the grids for phones in place of those for words.

        Silence is a token of the phone bigram.
        """
        return dataclasses.replace(
            self.for_words(),
            acoustic_scales=self.phone_acoustic_scales,
            word_penalties=self.phone_penalties,
            silence_probability=0.0,
        )


@dataclasses.dataclass(frozen=True)
class Backend:
    """A decoder.

    Attributes:
      decoder: "module:Class" of an `asr_kd.decoding.decoder.Decoder`.
      package: what must be installed for it.
      lattices: it keeps lattices (`LatticeDecoder`), from which n-best lists are made.
      hint: how the package is installed, as the end of a sentence.
    """

    decoder: str
    package: str
    lattices: bool = False
    hint: str = "install the package that it needs"

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


# in order of preference
BACKENDS: dict[str, Backend] = {
    "k2": Backend(
        "asr_kd.decoding.k2_decoder:K2Decoder",
        package="k2",
        lattices=True,
        hint="install the k2 of requirements.lock with `pip install --require-hashes -r requirements.lock` (Python "
        "3.10), or a wheel for your torch from https://k2-fsa.github.io/k2/installation; --decoder native needs no k2",
    ),
    "native": Backend("asr_kd.decoding.native_decoder:NativeDecoder", package="numba", lattices=True),
    "kaldi": Backend(
        "asr_kd.decoding.kaldi_decoder:KaldiDecoder",
        package="kaldi_decoder",
        hint="install it with pip install kaldi-decoder",
    ),
}


def backend_named(name: str) -> Backend:
    """Raises UserError where no back end has this name."""
    if name not in BACKENDS:
        raise UserError(f"there is no decoder {name!r}; there are: {', '.join(BACKENDS)}.")
    return BACKENDS[name]


def chosen_backend(name: str | None) -> str:
    """The name given, or that of the first back end that is installed, which is logged.

    Raises:
      UserError: there is no such back end, or none is installed.
    """
    if name is not None:
        backend_named(name)
        return name
    for first, backend in BACKENDS.items():
        if backend.installed:
            log.info("decoding with %s; --decoder names another decoder", first)
            return first
    hints = "; or ".join(f"{name}: {backend.hint}" for name, backend in BACKENDS.items())
    raise UserError(f"no decoder is installed: {hints}.")
