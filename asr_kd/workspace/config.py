"""The config of a whole recipe: what it trains (`systems`), what it scores (`sets`), and each package's settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator
from pydantic.dataclasses import dataclass

from asr_kd.acoustic.settings import AnyModel, DnnConfig, TrainingConfig
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.corpora.registry import CORPORA
from asr_kd.corpora.settings import CorpusConfig, PromptsConfig, TimitConfig, UntranscribedConfig
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.distillation.settings import LOSSES, TargetsConfig
from asr_kd.errors import UserError
from asr_kd.evaluation.bootstrap import EvaluationConfig
from asr_kd.frames.features import FeaturesConfig
from asr_kd.lang.settings import LangConfig
from asr_kd.settings import STRICT, ChosenByName, Count, Natural, Seed, Share, to_mapping
from asr_kd.workspace.work import ALIGNER

TRAIN, DEV = "train", "dev"  # the set that everything is learnt from, and the one that settings are chosen on
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME = 100  # characters; file systems take 255 bytes, of which endings need some
_RESERVED = {  # folders of exp/ that are no system's
    *("align", "align_compare", "decode", "graph", "graph_monophone", "log", "nbest", "realign", "report"),
    *("rescored", "sweep", "targets", "tree", "tree_monophone"),
    *("phone_lm", "phone_graph", "phone_graph_monophone", "phone_decode"),
}


def _count_or_names(value: object) -> int | tuple[str, ...]:
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f"must be a whole number, at least 1, or a list of systems, not {value!r}")


Members = Annotated[int | tuple[str, ...], PlainValidator(_count_or_names, Count | list[str])]
AnyCorpus = Annotated[CorpusConfig, ChosenByName(CORPORA, key="name", default="prompts")]


def _with_parts_alone(value: object) -> object:
    """A list as a mapping; the parts as a tuple, which pydantic is strict about after this."""
    entries = {"parts": value} if isinstance(value, list) else value
    if isinstance(entries, dict) and isinstance(parts := entries.get("parts"), list):
        return entries | {"parts": tuple(parts)}
    return entries


Untranscribed = Annotated[UntranscribedConfig, BeforeValidator(_with_parts_alone, list[str] | UntranscribedConfig)]


@dataclass(frozen=True, config=STRICT)
class SystemConfig:
    """Anything that is trained: an ensemble, a single model, or one model several times from other seeds.

    Where `members` names other systems, nothing is trained: all their models, of any kind, answer as one ensemble.
    """

    model: AnyModel = field(default_factory=DnnConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    # of an ensemble, whose posteriors are averaged: how many, or a list of systems whose models are its members
    members: Members = 1
    seeds: Count = 1  # the same model trained from several seeds: each is scored alone, the report gives the mean
    targets: TargetsConfig | None = None  # the soft targets that it is distilled from; none: hard labels only
    train_fraction: Share = 1.0  # of the training utterances, drawn by the recipe's seed
    folds: Natural = 0  # of an ensemble, K > 1: member m does not train on fold m modulo K, but makes its soft targets
    tree: Literal["tied", "monophone"] = "tied"  # monophone: untied, context-independent states
    reuse: str = ""  # copy the first members of this ensemble, which has the same settings, instead of training

    def __post_init__(self) -> None:
        if isinstance(self.members, tuple):
            _check_joined(self)
            return
        if self.members > 1 and self.seeds > 1:
            raise ValueError("members and seeds exclude each other: an ensemble has members, a single model seeds")
        if self.folds == 1 or (self.folds > 1 and self.members < self.folds):
            raise ValueError(f"folds must be 0, or at least 2 and at most members ({self.members}), not {self.folds}")
        if self.folds and self.train_fraction < 1:
            raise ValueError("folds are of all utterances: leave out folds or train_fraction")
        if self.reuse and self.targets:
            raise ValueError("reuse is for models that learn from hard labels: leave out reuse or targets")
        if self.folds and (self.reuse or self.targets):
            raise ValueError(
                "folds is for models that are trained on hard labels: leave out folds, or reuse and targets"
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """The systems whose models are its members; none where it is trained itself."""
        return self.members if isinstance(self.members, tuple) else ()

    @property
    def num_models(self) -> int:
        """Nets in its folder: an ensemble's members, or one per seed; those of its parts are in theirs."""
        return 0 if isinstance(self.members, tuple) else max(self.members, self.seeds)

    @property
    def is_ensemble(self) -> bool:
        return self.members != 1

    @property
    def stored_targets(self) -> TargetsConfig | None:
        """The system's soft targets where they are stored; None where it has none, or its teachers run online."""
        return None if self.targets is None or self.targets.online else self.targets

    @property
    def teachers(self) -> tuple[str, ...]:
        """The systems that must be trained before it."""
        sources = self.targets.source if self.targets and not self.targets.imported else ()
        return (*sources, *([self.reuse] if self.reuse else ()), *self.parts)


def _check_joined(system: SystemConfig) -> None:
    others = ("model", "training", "seeds", "targets", "train_fraction", "folds", "reuse")
    given = to_mapping(system, changed_only=True)
    if set_here := [key for key in others if key in given]:
        raise ValueError(
            f"members names systems, which have settings of their own: leave out {' and '.join(set_here)}, or give "
            "members a number"
        )
    if len(set(system.parts)) < len(system.parts):
        raise ValueError(f"members: {', '.join(system.parts)} names a system twice")


@dataclass(frozen=True, config=STRICT)
class Comparison:
    """Which systems show what distilling was worth: the same model on hard labels, distilled, and its teacher."""

    direct: str
    distilled: str
    teacher: str


@dataclass(frozen=True, config=STRICT)
class Config:
    """A whole recipe."""

    seed: Seed = 1
    corpus: AnyCorpus = field(default_factory=PromptsConfig)
    # set -> the corpus's parts that make it up; all but train and dev are only scored
    sets: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {TRAIN: ("train",), DEV: ("dev",), "test": ("test",)}
    )
    # set -> the parts that make it up, or what it takes of training; systems learn from it by targets: {extra: SET}
    untranscribed: dict[str, Untranscribed] = field(default_factory=dict)
    lang: LangConfig = field(default_factory=LangConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    systems: dict[str, SystemConfig] = field(default_factory=dict)
    compare: tuple[Comparison, ...] = ()
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _check_sets(self.sets)
        _check_untranscribed(self.untranscribed, self.sets)
        if (self.alignment.labels == "from") != bool(self.alignment.dir):
            raise ValueError("alignment: labels: from and dir, the folder of these labels, need each other")
        for name, system in self.systems.items():
            _check_system(name, system, self.systems)
            _check_extra(name, system, self)
        list(_in_order_of_dependence(self.systems))
        _check_stores(self.systems)
        for number, comparison in enumerate(self.compare):
            for role, name in dataclasses.asdict(comparison).items():
                if name not in self.systems:
                    raise ValueError(f"compare[{number}].{role}: there is no system {name!r}")
            if comparison.direct == comparison.distilled:
                raise ValueError(f"compare[{number}]: {comparison.direct} cannot be both direct and distilled")
            if self.systems[comparison.distilled].targets is None:
                raise ValueError(
                    f"compare[{number}].distilled: {comparison.distilled} is not distilled: it has no targets"
                )

    @property
    def scored_sets(self) -> tuple[str, ...]:
        """dev, on which scales are chosen, and the sets that are only scored."""
        return (DEV, *(name for name in self.sets if name not in (TRAIN, DEV)))

    @property
    def all_parts(self) -> dict[str, tuple[str, ...]]:
        """Set -> the corpus's parts that make it up; of sets without transcripts too."""
        return self.sets | {name: of_set.parts for name, of_set in self.untranscribed.items()}

    @property
    def trees(self) -> tuple[str, ...]:
        """The trees that are needed: "tied", and "monophone" where a system is trained on untied states."""
        monophone = any(system.tree == "monophone" for system in self.systems.values())
        return ("tied", "monophone") if monophone else ("tied",)

    @property
    def decodes_phones(self) -> bool:
        """Whether phones are decoded beside words: where words are made of phones, and transcripts are words."""
        phones_as_words = isinstance(self.corpus, TimitConfig) and self.corpus.transcripts == "phones"
        return self.decoding.phones and self.lang.units == "phones" and not phones_as_words

    def system(self, name: str) -> SystemConfig:
        """Raises UserError where the config has none of this name."""
        if name not in self.systems:
            known = ", ".join(self.systems) or "none"
            raise UserError(f"there is no system {name!r} in the config; it has: {known}.")
        return self.systems[name]

    def in_training_order(self) -> list[str]:
        """The systems, each after those that it learns from."""
        return list(_in_order_of_dependence(self.systems))

    def answering(self, name: str) -> dict[str, int]:
        """The systems in whose folders the models are that answer together for this one, and how many: the first ones.

        Of a system with several seeds it is one model; of one that names its parts, all models of these.
        """
        system = self.system(name)
        if isinstance(system.members, tuple):
            return {part: self.systems[part].num_models for part in system.members}
        return {name: system.members}

    def teachers(self) -> list[str]:
        """The systems on hard labels that others learn from, in order of dependence."""
        needed = {name for system in self.systems.values() if not system.parts for name in system.teachers}
        needed |= {part for name in needed for part in self.systems[name].parts}
        hard = {name for name in needed if self.systems[name].targets is None}
        # an ensemble of distilled systems comes after them
        return [name for name in self.in_training_order() if name in hard and hard.issuperset(self.systems[name].parts)]


def _check_sets(sets: Mapping[str, Any]) -> None:
    for name in (TRAIN, DEV):
        if name not in sets:
            raise ValueError(f"sets must have {TRAIN} and {DEV}; {name} is missing")
    for name in sets:
        _check_name(name, "sets")


def _check_name(name: str, key: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"{key}: {name!r} cannot name a set: use letters, digits, '.', '_' and '-'")
    _check_file_name(name, key)
    if name == ALIGNER:
        raise ValueError(f"{key}: {name!r} cannot name a set: exp/align/{name} is the aligner")


def _check_file_name(name: str, where: str) -> None:
    """Raises ValueError where a folder of this name cannot be, or could be taken for a file of the work folder."""
    if name.endswith((".json", ".yaml")) or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"{where}: {name!r} cannot be a name: it may have {_LONGEST_NAME} characters, and not end in .json or .yaml"
        )


def _check_untranscribed(untranscribed: Mapping[str, UntranscribedConfig], sets: Mapping[str, Any]) -> None:
    set_of = {part: name for name, parts in sets.items() for part in parts}
    for name, of_set in untranscribed.items():
        _check_name(name, "untranscribed")
        if name in sets:
            raise ValueError(f"untranscribed.{name}: there is a set {name} under sets: too; give this one another name")
        for part in of_set.parts:
            if part in set_of:
                raise ValueError(
                    f"untranscribed.{name}: the part {part} is in the set {set_of[part]} too; leave one out (hide "
                    f"transcripts of training by {name}: {{share: 0.5}})"
                )
            set_of[part] = name


def _check_extra(name: str, system: SystemConfig, config: Config) -> None:
    for extra in system.targets.extra if system.targets else ():
        if extra in config.untranscribed:
            continue
        known = ", ".join(config.untranscribed) or "none"
        advice = f"name speech without transcripts there ({extra}: [PART]); it has {known}"
        if extra in config.sets:
            advice = (
                f"{extra} is one of sets:, which have transcripts; to learn from its speech alone move it to "
                f"untranscribed: (it is then not scored)"
            )
        if extra == TRAIN:
            advice = "every system learns from train already"
        raise ValueError(f"systems.{name}.targets.extra: there is no set {extra!r} under untranscribed:; {advice}")


def _check_system(name: str, system: SystemConfig, systems: Mapping[str, SystemConfig]) -> None:
    where = f"systems.{name}"
    if not NAME.fullmatch(name) or name in _RESERVED or name.endswith(".members"):
        raise ValueError(f"{where}: this cannot name a system: use letters, digits, '.', '_' and '-', and no name of "
                         f"another folder of exp/ ({', '.join(sorted(_RESERVED))}, SYSTEM.members)")  # fmt: skip
    _check_file_name(name, "systems")
    for part in system.parts:
        if part not in systems:
            raise ValueError(f"{where}.members: there is no system {part!r}")
    for teacher in system.teachers:
        if teacher not in systems:
            key = "reuse" if teacher == system.reuse else "targets.from"
            raise ValueError(
                f"{where}.{key}: there is no system {teacher!r}; a folder of imported targets is written with a "
                f"slash (./{teacher})"
            )
        if systems[teacher].tree != system.tree:
            raise ValueError(f"{where}: it has tree: {system.tree}, but {teacher} has tree: {systems[teacher].tree}")
    if system.targets is not None and system.targets.loss not in LOSSES:
        known = ", ".join(map(repr, LOSSES))
        raise ValueError(f"{where}.targets.loss must be one of {known}, not {system.targets.loss!r}")
    _check_parts(where, system.parts, systems)
    if system.reuse:
        source = systems[system.reuse]
        if (reason := why_not_reused(system, source)) is not None:
            raise ValueError(f"{where}.reuse: {system.reuse} {reason}")


def _check_parts(where: str, parts: tuple[str, ...], systems: Mapping[str, SystemConfig]) -> None:
    """Raises ValueError where the models of some systems cannot be the members of one ensemble."""
    trained_as: dict[str, str] = {}  # a system with models of its own -> the part whose models they are
    for part in parts:
        if systems[part].parts:
            raise ValueError(
                f"{where}.members: {part} is itself an ensemble of systems: name its own members in its place"
            )
        other = trained_as.setdefault(systems[part].reuse or part, part)
        if other != part:
            raise ValueError(f"{where}.members: {other} and {part} have the same models; leave out one of them")
    if parts and sum(systems[part].num_models for part in parts) < 2:
        raise ValueError(f"{where}.members: {parts[0]} is a single model, no ensemble")


def why_not_reused(system: SystemConfig, source: SystemConfig) -> str | None:
    """Why the models of a system cannot be the first members of another; None where they can."""
    if source.parts:
        return "is an ensemble of systems: reuse one of these"
    if source.targets is not None:
        return "is distilled; only models on hard labels can be reused"
    if any(getattr(system, key) != getattr(source, key) for key in ("model", "training", "train_fraction")):
        return "is not trained alike: model and training must be the same"
    if system.num_models > source.num_models or source.folds:
        return f"must have no folds and at least {system.num_models} members"
    return None


def _check_stores(systems: Mapping[str, SystemConfig]) -> None:
    """Systems share a store of soft targets by its name: it must mean the same for all of them."""
    users: dict[str, str] = {}
    for name, system in systems.items():
        if (targets := system.stored_targets) is None:
            continue
        other = users.setdefault(targets.name, name)
        theirs = systems[other].stored_targets
        if theirs is not None and theirs.stored != targets.stored:
            raise ValueError(
                f"systems.{name}.targets: other soft targets than those of {other} would have the same folder, "
                f"exp/targets/{targets.name}; rename the folder or the teacher that they come from"
            )


def _in_order_of_dependence(systems: Mapping[str, SystemConfig]) -> Iterator[str]:
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            raise ValueError(f"systems: {' -> '.join((*path[path.index(name) :], name))} learn from each other")
        if name not in done:
            for teacher in systems[name].teachers:
                yield from visit(teacher, (*path, name))
            done.append(name)
            yield name

    for name in systems:
        yield from visit(name, ())
