"""Settings of the search, and the grids from which dev chooses the scales."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT, Count, Natural, NotNegative, Positive


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
