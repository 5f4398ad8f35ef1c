"""Settings of the soft targets and of the loss that a distilled system learns with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from asr_kd.io.stamp import Stamp
from asr_kd.settings import STRICT, Count, Fraction, Positive


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class Loss:
    """A distillation loss.

    Attributes:
      function: "module:function" with the arguments and result of `asr_kd.distillation.loss.distillation_loss`.
      needs_all_entries: it needs the teachers' whole distribution, not its largest entries alone.
    """

    function: str
    needs_all_entries: bool = False


# What `targets.loss` can name. A new loss is a function like `distillation_loss`, and a line here.
LOSSES: dict[str, Loss] = {
    "kl": Loss("asr_kd.distillation.loss:distillation_loss"),
    "logits": Loss("asr_kd.distillation.loss:logit_matching", needs_all_entries=True),
}


@dataclass(frozen=True, config=STRICT)
class TargetsConfig:
    """The source of a system's soft targets, what is kept of them, and how they are learnt.

    `source` is called `from` in a config file: trained systems, whose distributions are averaged with equal weight, or
    a folder of another toolkit's posteriors (a name with a slash in it, relative to the config).
    """

    # a system, several, or a folder of imported targets
    source: Annotated[tuple[str, ...], BeforeValidator(_several, str | list[str]), Field(alias="from", min_length=1)]
    temperature: Positive = 2.0
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    keep_mass: Fraction = 0.99  # the smallest set of entries that holds this mass is stored
    max_entries: Count = 32
    online: bool = False  # run the teachers on the same augmented frames while training, instead of storing targets
    soft_weight: Fraction = 0.67  # alpha: weight of the soft term; the hard term has 1 - alpha
    # sets of `untranscribed`, whose frames are learnt with the soft term alone beside those of training
    extra: Annotated[tuple[str, ...], BeforeValidator(_several, str | list[str])] = ()
    loss: str = "kl"  # one of asr_kd.distillation.settings.LOSSES

    @property
    def imported(self) -> bool:
        """Whether they come from a folder that another toolkit filled."""
        return "/" in self.source[0]

    @property
    def name(self) -> str:
        """The name of the targets' folder: the teachers, the temperature, and what differs from the defaults."""
        parts = ["+".join(part.strip("./").replace("/", "_") for part in self.source), f"T{self.temperature:g}"]
        changed = {"mean": self.mean, "keep_mass": self.keep_mass, "max_entries": self.max_entries}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        parts += [f"{key}={value}" for key, value in changed.items() if value != defaults[key]]
        return ",".join(parts)

    def stamp(self, made_from: Mapping[str, str], seed: int) -> Stamp:
        """Returns the stamp of the store of these targets.

        Args:
          made_from: identities of the teachers, or digests of imported files, and of frames other than training's.
        """
        return Stamp("soft-targets", {"targets": self.stored}, made_from, seed, version=2)

    @property
    def stored(self) -> TargetsConfig:
        """The same, with what a store of targets does not depend on at its default."""
        return TargetsConfig(
            source=self.source,
            temperature=self.temperature,
            mean=self.mean,
            keep_mass=self.keep_mass,
            max_entries=self.max_entries,
        )

    def __post_init__(self) -> None:
        if len(self.source) > 1 and any("/" in source for source in self.source):
            raise ValueError("from: a folder of imported targets cannot be averaged with other teachers")
        if self.imported and self.online:
            raise ValueError("online: a folder of imported targets has no teachers to run")
        if len(set(self.source)) < len(self.source):
            raise ValueError(f"from: {', '.join(self.source)} names a teacher twice")
        if len(set(self.extra)) < len(self.extra):
            raise ValueError(f"extra: {', '.join(self.extra)} names a set twice")
        if self.extra and self.soft_weight == 0:
            raise ValueError("extra: nothing is learnt from untranscribed speech at soft_weight 0; raise it")
