"""The decoders that `--decoder` can name. A new one is a file with a `Decoder`, and a line here.

A class is named by a string, so that the commands load no decoder before it is needed.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass

from asr_kd.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
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
        "3.10), or a wheel for your torch from https://k2-fsa.github.io/k2/installation; --decoder kaldi needs no k2",
    ),
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
