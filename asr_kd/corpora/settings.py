"""Settings of each corpus; a corpus's class is chosen by `name` (`asr_kd.corpora.registry`)."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from asr_kd.corpora.audio import AudioFormat
from asr_kd.settings import STRICT, Count, Natural

PhoneSet = Literal[61, 48, 39]


@dataclass(frozen=True, config=STRICT)
class CorpusConfig:
    """Where the speech comes from, and what happens to an utterance that cannot be used."""

    name: str
    sampling_rate: Count = 16000  # Hz; audio at another rate is an error, unless `resample` is true
    resample: bool = False  # convert audio at another rate (torchaudio.functional.resample); prepare counts it
    channel: Natural | None = None  # of recordings with several channels, from 0; none: they are an error
    on_bad_utterance: Literal["fail", "skip"] = "fail"  # skip: leave it out, count it, list it in the report

    @property
    def audio_format(self) -> AudioFormat:
        """What audio is read as."""
        return AudioFormat(self.sampling_rate, self.resample, self.channel)


@dataclass(frozen=True, config=STRICT)
class FolderConfig(CorpusConfig):
    """Own recordings: one folder a part, with audio and a file `text`."""

    name: Literal["folder"] = "folder"


@dataclass(frozen=True, config=STRICT)
class CutsConfig(CorpusConfig):
    """What lhotse has manifests of; the parts of a set are manifests in the corpus's folder.

    A part is the name of a CutSet, RECORDINGS+SUPERVISIONS, a folder of shards (shar), or what lhotse calls the part,
    as in librispeech_recordings_PART.jsonl.gz. Sets may also stand here: {name: cuts, train: a.jsonl.gz, dev: ...}.
    """

    name: Literal["cuts"] = "cuts"
    text: str = "text"  # the field of a supervision that has its transcript; custom fields count too
    speaker: str = "speaker"  # the field that has its speaker


@dataclass(frozen=True, config=STRICT)
class KaldiConfig(CorpusConfig):
    """Kaldi's data folders; the parts of a set are such folders: wav.scp and text, also segments and utt2spk."""

    name: Literal["kaldi"] = "kaldi"


@dataclass(frozen=True, config=STRICT)
class PromptsConfig(CorpusConfig):
    """Asterisk's English telephone prompts."""

    name: Literal["prompts"] = "prompts"
    sampling_rate: Count = 8000


@dataclass(frozen=True, config=STRICT)
class LibriSpeechConfig(CorpusConfig):
    """LibriSpeech; the parts of a set are its folders (train-clean-100, ...)."""

    name: Literal["librispeech"] = "librispeech"
    dev_speakers: Natural = 0  # take so many of the training speakers for dev, in addition to its parts


@dataclass(frozen=True, config=STRICT)
class TimitConfig(CorpusConfig):
    """TIMIT; sets are chosen by speaker."""

    name: Literal["timit"] = "timit"
    dev_speakers: Natural = 0
    test_speakers: Natural = 0  # where a copy has no TEST
    transcripts: Literal["words", "phones"] = "words"
    phone_set: PhoneSet = 48  # what the phones of transcripts are mapped to
    scored_phones: PhoneSet = 39  # what both sides are mapped to before errors are counted
