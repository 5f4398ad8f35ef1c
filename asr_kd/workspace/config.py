"""Every setting of a recipe: frozen dataclasses <-> YAML; an unknown key, a wrong type or range is an error."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml

from asr_kd.errors import UserError


@dataclass(frozen=True)
class Range:
    """What a number may be."""

    least: float
    most: float = math.inf
    open: bool = False  # `least` itself is not allowed

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.open and value == self.least)

    def __str__(self) -> str:
        low = f"above {self.least:g}" if self.open else f"{self.least:g} or more"
        return low if self.most == math.inf else f"{low} and at most {self.most:g}"


Natural = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, open=True)]
Fraction = Annotated[float, Range(0, 1)]
Dropout = Annotated[float, Range(0, 0.99)]


@dataclass(frozen=True)
class CorpusConfig:
    """Where the speech comes from, and what happens to an utterance that cannot be used."""

    name: str = "prompts"  # a corpus that asr_kd.corpora knows
    sampling_rate: Count = 8000  # Hz; audio at another rate is an error, never resampled silently
    on_bad_utterance: Literal["fail", "skip"] = "fail"  # skip: leave it out, count it, list it in the report
    train_parts: tuple[str, ...] = ("train-clean-100",)  # librispeech: its folders that make up each set
    dev_parts: tuple[str, ...] = ("dev-clean",)
    test_parts: tuple[str, ...] = ("test-clean",)
    dev_speakers: Natural = 0  # librispeech: so many of the training speakers are dev's, beside its parts
    test_speakers: Natural = 0  # timit, as dev_speakers: where a copy has no TEST
    transcripts: Literal["words", "phones"] = "words"  # timit
    phone_set: Literal[61, 48, 39] = 48  # timit: what the phones of transcripts are mapped to
    scored_phones: Literal[61, 48, 39] = 39  # timit: what both sides are mapped to before errors are counted


@dataclass(frozen=True)
class LangConfig:
    """Lexicon and language model. Names of files are relative to the config file."""

    # what words are made of; phones need a lexicon; words: nothing smaller, which is right where the words are phones
    units: Literal["phones", "characters", "bpe", "words"] = "phones"
    bpe_size: Count = 100  # bpe: how many pieces
    lexicon: str = "lexicon.txt"  # words that cmudict lacks or says otherwise
    guess_pronunciations: bool = False  # of words that neither has, by letter-to-sound rules learnt from both
    # stops as closure and release, glottal stops before vowels (needs units: phones), for finer times of words; the
    # decoding graph gets all variants but does not know which begin after a pause: not measured for recognising words
    closures: bool = False
    lm: str = ""  # an ARPA file (.gz or not) to decode with; "": one is estimated
    lm_text: str = ""  # a sentence a line (.gz or not) to estimate from; "": the training transcripts
    vocabulary: Natural = 0  # the most frequent words of that text that can be recognised; 0: all
    ngram_order: Count = 3
    prune: NotNegative = 0.0  # n-grams whose loss raises the model's perplexity by less than this fraction go


@dataclass(frozen=True)
class FeaturesConfig:
    """Log-mel filterbanks, and the altered copies of the training set that are made with them."""

    num_mel_bins: Count = 40
    speeds: tuple[Positive, ...] = (1.0,)  # one copy of the training set per factor; 1.0 must be among them


@dataclass(frozen=True)
class AlignmentConfig:
    """GMM-free flat start (Senior et al. 2014), realignment and the phonetic decision tree."""

    hidden: tuple[Count, ...] = (128,)  # the flat start's small net
    context: Natural = 1  # frames on each side; a wide context memorises the equal alignment and stays there
    linear_rounds: Natural = 0  # of {linear discriminants, realign}, before the net; they forget the flat start sooner
    rounds: Count = 8  # of {one epoch, realign}
    batch_size: Count = 256  # frames a step of that net; 1024 takes less time and finds a little less
    subset_hours: Positive = 100.0  # flat start and tree use a random subset of at most this; the rest is only aligned
    # all: the flat start learns from dev and test too, held in memory, as who wants but times may; no recogniser must
    learn_from: Literal["train", "all"] = "train"
    leaves: Count = 400  # tied states wanted
    min_count: Count = 100  # frames per tied state
    optional_silence: bool = True  # between words and around them; false where the transcripts name every silence
    phases: Count = 1  # more: times of words and phones finer than a frame, by as many alignments; labels stay
    # a file beside the config: ms to move boundaries by, by kind; align --compare learns one from hand-made times
    shifts: str = ""
    # own: of the transcript as it is; words: where transcripts are phones, of the words through a lexicon instead;
    # manual: inside the phone times that the corpus's makers set by hand
    labels: Literal["own", "words", "manual"] = "own"
    beam: NotNegative = 0.0  # 0: exact Viterbi
    max_bad_fraction: Fraction = 0.05  # more utterances than this failing to align is an error


@dataclass(frozen=True)
class ModelConfig:
    """The fully connected net: hidden layers x width, ReLU; 20 past and 5 future frames at its input."""

    layers: Natural = 2
    width: Count = 256
    left_context: Natural = 20
    right_context: Natural = 5
    input_dropout: Dropout = 0.0
    hidden_dropout: Dropout = 0.0
    max_norm: NotNegative = 0.0  # bound on the norm of each unit's incoming weights; 0: none
    lda_dims: Natural = 0  # nets learn from so many linear discriminants of their input; 0: from it as it is


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast, and how a net is trained; one loop serves all of them."""

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Annotated[float, Range(0, 0.999)] = 0.9  # sgd only (Nesterov)
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    final_learning_rate: Fraction = 0.01  # as a fraction of learning_rate, at the last epoch
    batch_size: Count = 512
    epochs: Natural = 10
    patience: Natural = 0  # stop after this many epochs without a better dev frame accuracy; 0: run all epochs
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True)
class TeacherConfig:
    """The ensemble."""

    members: Count = 5
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class SoftTargetsConfig:
    """What is kept of the ensemble's distribution over tied states."""

    temperature: Positive = 2.0
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    out_of_fold: Natural = 0  # K > 1: K folds; each frame's targets come from the members that did not train on it
    keep_mass: Fraction = 0.99  # the smallest set of entries that holds this mass is stored
    max_entries: Count = 32


@dataclass(frozen=True)
class DistillationConfig:
    """How a student learns from the soft targets."""

    soft_weight: Fraction = 0.67  # alpha: weight of the soft term; the hard term has 1 - alpha
    loss: Literal["kl", "logits"] = "kl"
    hidden_dropout: Dropout | None = None  # while distilling, in place of the model's; soft targets regularise already
    lda_dims: Natural | None = None  # as well: what helps a net on hard targets need not help one on soft targets
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class StudentConfig:
    """One model trained twice: directly on the forced alignment, and distilled. Several seeds of each."""

    seeds: Count = 3
    share: Annotated[float, Range(0, 1, open=True)] = 1.0  # of the training utterances, drawn by the recipe's seed
    # true: the direct nets are the ensemble's first ones where both are trained alike, as the paper trains them
    direct_of_ensemble: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    direct: TrainingConfig = field(default_factory=TrainingConfig)
    distilled: DistillationConfig = field(default_factory=DistillationConfig)

    @property
    def distilled_model(self) -> ModelConfig:
        """The same net, with what is set for it while it is distilled."""
        own = {name: getattr(self.distilled, name) for name in ("hidden_dropout", "lda_dims")}
        return dataclasses.replace(self.model, **{name: value for name, value in own.items() if value is not None})


def takes_members(student: StudentConfig, teacher: TeacherConfig) -> bool:
    """Whether the direct nets are members of the ensemble: the config asks for it, and their settings are the same.

    With `patience` a member may be trained for longer than it would be alone: until no member gains any more.
    """
    alike = (student.model, student.direct) == (teacher.model, teacher.training)
    return student.direct_of_ensemble and alike and student.share == 1 and student.seeds <= teacher.members


@dataclass(frozen=True)
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
    silence_probability: Annotated[float, Range(0, 0.999)] = 0.5  # of one after each word; 0: only where SIL is a word


@dataclass(frozen=True)
class EvaluationConfig:
    """Confidence intervals."""

    bootstrap_samples: Count = 10000


@dataclass(frozen=True)
class Config:
    """A whole recipe."""

    seed: Natural = 1
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    lang: LangConfig = field(default_factory=LangConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    soft_targets: SoftTargetsConfig = field(default_factory=SoftTargetsConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    small: StudentConfig | None = None  # a second pair: what a device would run
    few: StudentConfig | None = None  # a pair that sees only a share of the utterances: see asr-kd fewshot
    monophone: bool = True  # train and decode a control on untied context-independent states
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


T = TypeVar("T")


def load_config(path: Path) -> Config:
    """Reads a YAML file.

    Raises:
      UserError: the file cannot be read, is no YAML mapping, has an unknown key or a value of the wrong type or range.
    """
    return from_mapping(Config, load_yaml(path), str(path))


def with_settings(config: T, settings: Mapping[str, Any], where: str = "command line") -> T:
    """A copy with other values of some keys, each written as in YAML with dots ("student.seeds"); None leaves a key.

    Raises:
      UserError: an unknown key, or a value of the wrong type or range.
    """
    raw = to_mapping(config)
    for path, value in settings.items():
        if value is None:
            continue
        *parents, key = path.split(".")
        at = raw
        for parent in parents:
            if not isinstance(at, dict) or parent not in at:
                raise UserError(f"{where}: there is no setting {path!r}.")
            at = at[parent]
        if not isinstance(at, dict):
            raise UserError(f"{where}: there is no setting {path!r}: what is above it is not set in the config.")
        at[key] = value
    return from_mapping(type(config), raw, where)


class _TwiceError(yaml.YAMLError):
    """A mapping has a key twice."""


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of a key's values without a word; here a key that is given twice is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                raise _TwiceError(f"{key.value!r} in line {line} stands in line {seen[key.value]} already")
            seen[key.value] = line
        return node


def load_yaml(path: Path) -> Any:
    """Plain data; an empty file is an empty mapping.

    Raises:
      UserError: the file cannot be read, is not YAML, or has a key twice.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: the config cannot be read ({error.strerror}); give one with --config.") from None
    except _TwiceError as error:
        raise UserError(f"{path}: {error}; delete one of them.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}.") from None
    return {} if raw is None else raw


def from_mapping(cls: type[T], raw: Any, where: str) -> T:
    """Builds a config dataclass from plain data; `where` names the file and key for the error."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a mapping of settings, found {raw!r}.")
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {}
    for key, value in raw.items():
        if key not in hints:
            raise UserError(f"{where}: unknown key {key!r}; known here: {', '.join(sorted(hints))}.")
        values[key] = _convert(hints[key], value, f"{where}: {key}")
    return cls(**values)


def to_mapping(config: Any) -> Any:
    """Plain data (dicts, lists, numbers, strings) that `from_mapping` reads back to the same config."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_mapping(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_mapping(item) for item in config]
    return config


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        number, allowed = _convert(arguments[0], value, where), arguments[1]
        if number not in allowed:
            raise UserError(f"{where} must be {allowed}, not {value!r}.")
        return number
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{where} must be one of {', '.join(map(repr, arguments))}, not {value!r}.")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where} must be a list, not {value!r}.")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        advice = " (YAML reads 1e-3 as text: write 1.0e-3)" if hint is float and isinstance(value, str) else ""
        raise UserError(f"{where} must be {_NAMES[hint]}, not {value!r}{advice}.")
    return value


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
