"""Speech and transcripts on disk -> checked lhotse CutSets, with their lexicon and language model."""

from asr_kd.corpora.prepare import PrepareResult, prepare

__all__ = ["PrepareResult", "prepare"]
