"""Settings of each corpus; a corpus's class is chosen by `name` (`asr_kd.corpora.registry`)."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from asr_kd.corpora.audio import AudioFormat
from asr_kd.settings import STRICT, Count, Fraction, Natural

PhoneSet = Literal[61, 48, 39]


@dataclass(frozen=True, config=STRICT)
class CorpusConfig:
    """The corpus that the speech comes from, and what happens to an utterance that cannot be used."""

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
class HeldOut:
    """What a set takes from training: so many speakers, or a share of the utterances."""

    speakers: Natural = 0
    share: Fraction = 0.0  # whole speakers, of about this share of the utterances; where none is known, utterances

    def __post_init__(self) -> None:
        if bool(self.speakers) == bool(self.share):
            raise ValueError("give speakers or share, one of the two, above 0")


@dataclass(frozen=True, config=STRICT)
class UntranscribedConfig:
    """A set without transcripts: parts of the corpus, or utterances of training whose transcripts are hidden.

    The list of the parts may stand alone: {podcasts: [podcasts]} is {podcasts: {parts: [podcasts]}}.
    """

    parts: tuple[str, ...] = ()  # transcripts that they may have are not used
    speakers: Natural = 0  # so many of the training speakers, drawn by the config's seed
    share: Fraction = 0.0  # whole training speakers, of about this share of the utterances

    def __post_init__(self) -> None:
        if bool(self.parts) + bool(self.speakers) + bool(self.share) != 1:
            raise ValueError("give its parts, or how much of training it takes (speakers or share): one of the three")

    @property
    def hidden(self) -> HeldOut | None:
        """What it takes from training; None where it has parts of its own."""
        return None if self.parts else HeldOut(speakers=self.speakers, share=self.share)


@dataclass(frozen=True, config=STRICT)
class OwnSpeechConfig(CorpusConfig):
    """Speech that comes without an official split: sets can be drawn from training, by the config's seed."""

    dev: HeldOut | None = None  # take dev from training; sets.dev is then [], or a folder that is not there
    test: HeldOut | None = None  # likewise test


@dataclass(frozen=True, config=STRICT)
class FolderConfig(OwnSpeechConfig):
    """Own recordings: one folder a part, with audio and a file `text`, or a .txt beside each recording.

    Sets may also stand here: {name: folder, train: FOLDER, dev: {speakers: 3}}.
    """

    name: Literal["folder"] = "folder"
    folder_is_speaker: bool = False  # without utt2spk: the first folder below the part's is the speaker's


@dataclass(frozen=True, config=STRICT)
class TableConfig(OwnSpeechConfig):
    """Own recordings in tables, a row each; a set's parts are tables: train.tsv, train.csv (.gz or not).

    Sets may also stand here: {name: table, train: FILE, dev: ...}.
    """

    name: Literal["table"] = "table"
    # names of columns, as the first row has them; the defaults are Common Voice's
    audio: str = "path"
    text: str = "sentence"
    speaker: str = "client_id"  # "": speakers are not known
    id: str = ""  # of the utterance; "": the recording's name without its suffix
    clips: str = "clips"  # the folder that names of recordings are relative to; "": the corpus's own
    delimiter: Literal["", ",", ";", "\t", "|"] = ""  # between cells; "": a comma in .csv, else a tab


@dataclass(frozen=True, config=STRICT)
class CutsConfig(OwnSpeechConfig):
    """What lhotse has manifests of; the parts of a set are manifests in the corpus's folder.

    A part is the name of a CutSet, RECORDINGS+SUPERVISIONS, a folder of shards (shar), or what lhotse calls the part,
    as in librispeech_recordings_PART.jsonl.gz. Sets may also stand here: {name: cuts, train: a.jsonl.gz, dev: ...}.
    Without --corpus-dir, names are relative to the config's folder.
    """

    name: Literal["cuts"] = "cuts"
    text: str = "text"  # the field of a supervision that has its transcript; custom fields count too
    speaker: str = "speaker"  # the field that has its speaker


@dataclass(frozen=True, config=STRICT)
class KaldiConfig(OwnSpeechConfig):
    """Kaldi's data folders; the parts of a set are such folders: wav.scp and text, also segments and utt2spk.

    Sets may also stand here: {name: kaldi, train: FOLDER, dev: ...}.
    """

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
