"""The results of a run, typed: what `exp/report/results.json` holds.

Rates of errors are called `wer` throughout; `Results.unit` says whether they are of words, characters or phones. `per`
is the rate of phones that are decoded beside words. A mapping by "set" has the scored sets as its keys: dev, on which
settings are chosen, then the test sets.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from asr_kd.evaluation.scoring import Unit, rate_name
from asr_kd.report.made_with import MadeWith
from asr_kd.report.mnist_results import MnistResults
from asr_kd.report.worth_results import Distillation, Ends, Metric, Resampled
from asr_kd.settings import STRICT

Role = Literal["direct", "teacher", "distilled", "control", "other"]


@dataclass(frozen=True, config=STRICT)
class ErrorCounts:
    """Sums over the utterances of a set and over the seeds of a system."""

    insertions: Annotated[int, Field(alias="ins")]
    deletions: Annotated[int, Field(alias="del")]
    substitutions: Annotated[int, Field(alias="sub")]
    words: int  # in the references, once for each seed


@dataclass(frozen=True, config=STRICT)
class Rates:
    """Error rates by set: errors over words, all seeds together."""

    wer: dict[str, float]
    wer_ci95: dict[str, Ends]
    errors: dict[str, ErrorCounts]


@dataclass(frozen=True, config=STRICT)
class PerSeed:
    """The measures of a system by set, one number for each seed.

    An ensemble has the numbers of each member alone; its error rates are those of the ensemble.
    """

    frame_accuracy: dict[str, list[float]]
    cross_entropy: dict[str, list[float]]
    wer: dict[str, list[float]]


@dataclass(frozen=True, config=STRICT)
class Scales:
    """The scales of the search, chosen on dev and used on every set."""

    acoustic_scale: float
    word_penalty: float
    prior_scale: float
    search_beam: float


@dataclass(frozen=True, config=STRICT)
class OutOfVocabulary:
    """Reference words that the decoder cannot recognise."""

    words: int
    rate: float


@dataclass(frozen=True, config=STRICT)
class LastEpoch:
    """Frame accuracies after the last epoch, mean over the models, where `best_epoch` is what dev chose."""

    train_accuracy: float
    dev_accuracy: float
    best_dev_accuracy: float


@dataclass(frozen=True, config=STRICT)
class PhoneRow:
    """What else is known of the phones of a system that were decoded beside its words: see `SystemRow.per`."""

    errors: dict[str, ErrorCounts]  # its `words` are phones
    per_seed: dict[str, list[float]]
    scales: Scales
    rtf: float  # on the main test set
    retried: dict[str, int]
    failed: dict[str, list[str]]


@dataclass(frozen=True, config=STRICT)
class SystemRow:
    """A system. Each number is a mean over its seeds; errors are sums over them."""

    name: str
    role: Role
    members: int  # models whose posteriors are averaged
    parameters: int  # of all members together, as bytes
    bytes: int
    frame_accuracy: dict[str, float]
    frame_accuracy_ci95: dict[str, Ends]
    cross_entropy: dict[str, float]  # nats
    wer: dict[str, float]
    wer_ci95: dict[str, Ends]
    errors: dict[str, ErrorCounts]
    rtf: float  # seconds of work per second of speech, on the main test set
    seeds: int
    senones: int
    tree: str  # "tied" or "monophone"
    train_fraction: float  # of the training utterances that it saw
    each: PerSeed
    reused_from: str  # the ensemble whose first members these models are; "": they were trained separately
    best_epoch: list[int]  # one a model
    scales: Scales
    retried: dict[str, int]  # utterances, over all seeds
    failed: dict[str, list[str]]
    oov: dict[str, OutOfVocabulary]
    last_epoch: LastEpoch | None = None
    with_silence: Rates | None = None  # of phones: the rates where silence counts as a phone
    # untranscribed set -> its frames, altered copies included, that it learnt from beside training
    extra: dict[str, int] = field(default_factory=dict)
    kind: str = ""  # of its models, with "+" between several; "": an older report did not say
    characters: Rates | None = None  # of words made of characters or pieces: the rates of their characters (CER)
    # of words made of phones: the rates of phones, decoded with a phone bigram and compared with the forced alignment
    per: dict[str, float] | None = None
    per_ci95: dict[str, Ends] | None = None
    phones: PhoneRow | None = None

    @property
    def extra_names(self) -> tuple[str, ...]:
        """The untranscribed sets that it learnt from."""
        return tuple(self.extra)

    @property
    def beside(self) -> Rates | None:
        """The rates that stand beside `wer`: of characters or of phones."""
        if self.per is None or self.per_ci95 is None or self.phones is None:
            return self.characters
        return Rates(self.per, self.per_ci95, self.phones.errors)

    @property
    def is_ensemble(self) -> bool:
        return self.members > 1


@dataclass(frozen=True, config=STRICT)
class AlignmentResults:
    """The forced alignment that everything is trained on, and how far its times are from references."""

    utterances: int
    failed: list[str]
    labels: str  # "forced", "words" or "manual"
    compared: int | None = None  # utterances whose times `asr-kd align --compare` compared
    words: dict[str, float] | None = None  # "boundaries", "within_20ms", ...: of the boundaries of words
    boundaries: dict[str, float] | None = None  # of those of phones


@dataclass(frozen=True, config=STRICT)
class CurvePoint:
    """The first k members of an ensemble, over all rotations of their order; those of several systems take turns."""

    members: int
    frame_accuracy: float
    range: Ends
    cross_entropy: float


@dataclass(frozen=True, config=STRICT)
class EnsemblePart:
    """A system whose models are members of an ensemble of systems."""

    name: str
    kind: str  # of its models
    members: int
    curve: dict[str, list[CurvePoint]]  # by set: its members alone


@dataclass(frozen=True, config=STRICT)
class Disagreement:
    """The share of frames on which two members of an ensemble of systems name different senones, means over pairs."""

    within: float | None  # of one system; null where each has one member
    across: float | None  # of two systems; null where there is one
    # parts x parts; null for a part of one member with itself
    pairs: list[list[float | None]]


@dataclass(frozen=True, config=STRICT)
class StoredTargetsResults:
    """What storing the soft targets of `distillation` cost; means over frames."""

    name: str
    frames: int
    bytes_per_frame: float
    full_bytes_per_frame: float  # of a full float16 distribution
    retained_mass: float
    kl: float  # KL(full || restored), nats
    entropy: float  # of the full distribution, nats
    entries: float


@dataclass(frozen=True, config=STRICT)
class SetSize:
    """A set of the corpus."""

    utterances: int
    minutes: float
    untranscribed: bool = False  # without transcripts: learnt from by soft targets alone, and not scored
    # of a set that was added to a finished run
    training_utterances: int = 0  # of its utterances, those that the systems were trained on
    sentences_in_lm_text: int = 0  # of its utterances, those whose sentence is in the language model's text


@dataclass(frozen=True, config=STRICT)
class DataResults:
    """What the corpus is, and what a reader must know of it before believing the numbers."""

    sets: dict[str, SetSize]
    not_speech: list[str]
    shared_speakers: list[str]  # of a test set, who speak in train or dev too
    guessed_pronunciations: int
    lm_sentences_left_out: int  # of the language model's text, as they are also said in dev or test
    notes: list[str] = field(default_factory=list)  # on the corpus as a whole, such as which speakers dev was drawn of


@dataclass(frozen=True, config=STRICT)
class RescoredRow:
    """A system's hypotheses, scored again with a larger language model."""

    name: str
    set: str
    lm: str
    first_pass_wer: float
    wer: float
    wer_ci95: Ends
    oracle: dict[str, float]  # n -> error rate if the best of the first n hypotheses were taken
    hypotheses: float  # a list's mean length
    cer: float | None = None  # where characters are counted beside words


@dataclass(frozen=True, config=STRICT)
class LeftOut:
    """An utterance that a stage could not use."""

    stage: str
    utterance: str
    reason: str


@dataclass(frozen=True, config=STRICT)
class PhoneSets:
    """Numbers of phones."""

    trained: int
    scored: int


@dataclass(frozen=True, config=STRICT)
class Confusions:
    """How often each pair of phones was aligned: [true, recognised, times]; null on one side only."""

    system: str
    set: str
    with_silence: bool
    counts: list[tuple[str | None, str | None, int]]


@dataclass(frozen=True, config=STRICT)
class Results:
    """All numbers of a report."""

    corpus: str
    unit: Unit
    sets: list[str]  # scored: dev, then the test sets
    metrics: list[Metric]  # that systems are compared by
    resampled: dict[str, Resampled]  # by set
    systems: list[SystemRow]
    alignment: AlignmentResults
    data: DataResults
    left_out: list[LeftOut]
    seed: int
    language: str = "en"  # of the transcripts, a BCP 47 tag
    distillation: Distillation | None = None  # of the config's first comparison
    comparisons: list[Distillation] = field(default_factory=list)  # the others
    seconds: dict[str, float] = field(default_factory=dict)  # by command
    memory: dict[str, float] = field(default_factory=dict)  # bytes at most
    ensemble: str | None = None  # the system that members_curve and disagreement are of
    members_curve: dict[str, list[CurvePoint]] = field(default_factory=dict)
    disagreement: dict[str, list[list[float]]] = field(default_factory=dict)
    parts: list[EnsemblePart] = field(default_factory=list)  # where `ensemble` is one of systems
    parts_disagreement: dict[str, Disagreement] = field(default_factory=dict)
    soft_targets: StoredTargetsResults | None = None
    rescored: list[RescoredRow] = field(default_factory=list)
    phones: PhoneSets | None = None
    confusions: Confusions | None = None
    mnist: MnistResults | None = None
    made_with: MadeWith | None = None
    # by set: utterances without a forced alignment, which no `per` counts, where there are any
    per_left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def test_sets(self) -> list[str]:
        """All but dev; dev itself where the recipe has no other."""
        return self.sets[1:] or self.sets

    @property
    def main_set(self) -> str:
        """The set that a figure shows where there is space for one."""
        return self.test_sets[0]

    @property
    def all_comparisons(self) -> list[Distillation]:
        return ([self.distillation] if self.distillation else []) + self.comparisons

    @property
    def rate(self) -> str:
        """What the rate of errors is called."""
        return rate_name(self.unit)

    @property
    def has_cer(self) -> bool:
        """Whether the rate of characters stands beside that of words."""
        return bool(self.systems) and all(row.characters is not None for row in self.systems)

    @property
    def has_per(self) -> bool:
        """Whether the rate of phones stands beside that of words."""
        return bool(self.systems) and all(row.per is not None for row in self.systems)

    @property
    def beside(self) -> str:
        """What the rate beside `rate` is called: "CER", "PER" or ""."""
        return "CER" if self.has_cer else "PER" if self.has_per else ""

    @property
    def unit_beside(self) -> str:
        """What it counts."""
        return {"CER": "character", "PER": "phone", "": ""}[self.beside]

    def row(self, name: str) -> SystemRow:
        """The row of a system."""
        return next(row for row in self.systems if row.name == name)

    def words_of(self, name: str) -> int:
        """Reference words (or phones) of a set."""
        row = self.systems[0]
        return row.errors[name].words // max(1, row.seeds)

    def phones_of(self, name: str) -> int:
        """Reference phones of a set, where there is a PER."""
        row = self.systems[0]
        return 0 if row.phones is None else row.phones.errors[name].words // max(1, row.seeds)

    def retried(self, name: str) -> dict[str, int]:
        """System -> utterances of a set that were decoded again with a wider beam, where there are any."""
        return {row.name: row.retried[name] for row in self.systems if row.retried[name]}

    @property
    def controls(self) -> list[SystemRow]:
        return [row for row in self.systems if row.role == "control"]

    @property
    def on_few_labels(self) -> list[SystemRow]:
        """The systems that saw a part of the training data, and those that they are compared with."""
        few = {row.name for row in self.systems if row.train_fraction < 1}
        names = {name for c in self.all_comparisons for name in (c.direct, c.distilled, c.teacher)
                 if few & {c.direct, c.distilled}}  # fmt: skip
        return [row for row in self.systems if row.name in few | names and row.last_epoch is not None]

    @property
    def groups(self) -> list[list[SystemRow]]:
        """The rows of each comparison, then the others; none appears twice, and no group is empty."""
        names: list[list[str]] = [[c.direct, c.teacher, c.distilled] for c in self.all_comparisons]
        names.append([row.name for row in self.systems])
        groups, done = [], set[str]()
        for group in names:
            groups.append([self.row(name) for name in dict.fromkeys(group) if name not in done])
            done |= set(group)
        return [group for group in groups if group]
