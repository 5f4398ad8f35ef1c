"""The folder that a recipe works in, with the names of what lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.errors import UserError
from asr_kd.io.stamp import identity, read_stamp

ALIGNER = "model"  # the flat start's folder in exp/align, beside those of the sets


@dataclass(frozen=True)
class Workspace:
    """The folder a recipe works in, with the names of what lies in it."""

    root: Path
    config_path: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def lang(self) -> Path:
        return self.data / "lang"

    @property
    def lm(self) -> Path:
        return self.data / "lm"

    def cuts(self, name: str) -> Path:
        return self.data / f"cuts_{name}.jsonl.gz"

    def cuts_stamp(self, name: str) -> Path:
        """The stamp of a set's cuts: sets are stamped one by one, so that one can be added later."""
        return self.data / f"cuts_{name}.stamp.json"

    def lexicon(self, name: str) -> Path:
        """Pronunciations of a test set's words, for `read_lang(work.lang, work.lexicon(name))`: data/lang has none."""
        return self.data / f"lexicon_{name}.txt"

    def frames(self, name: str) -> Path:
        return self.data / "frames" / name

    def exp(self, name: str) -> Path:
        """A folder of exp/, such as a system's."""
        return self.root / "exp" / name

    def aligner(self, number: int) -> Path:
        """The flat start's (0), or that of a round of realignment."""
        return self.exp("realign") / str(number) if number else self.exp("align") / ALIGNER

    def tree(self, kind: str) -> Path:
        """The decision tree of a kind of `SystemConfig.tree`."""
        return self.exp(_of_tree("tree", kind))

    def graph(self, kind: str) -> Path:
        """The decoding graph of that tree."""
        return self.exp(_of_tree("graph", kind))

    @property
    def phone_lm(self) -> Path:
        """The phone bigram."""
        return self.exp("phone_lm")

    def phone_graph(self, kind: str) -> Path:
        """The decoding graph of phones of that tree."""
        return self.exp(_of_tree("phone_graph", kind))

    def targets(self, name: str) -> Path:
        """Stored soft targets; the name is `TargetsConfig.name`."""
        return self.exp("targets") / name

    def decoded(self, system: str, name: str) -> Path:
        """What a system recognised in a set."""
        return self.exp("decode") / system / name

    def decoded_phones(self, system: str, name: str) -> Path:
        """The phones that a system recognised in a set, beside its words."""
        return self.exp("phone_decode") / system / name

    def nbest(self, system: str, name: str) -> Path:
        """Lists of what a system's lattices of a set hold."""
        return self.exp("nbest") / system / name

    def rescored(self, system: str, name: str, lm: str) -> Path:
        """The same, rescored; `lm` is the name of the larger language model's file without its endings."""
        return self.exp("rescored") / system / name / lm

    def command(self, name: str) -> str:
        """The command that makes a missing artefact, for error messages."""
        elsewhere = self.root.absolute() != default_root(self.config_path).absolute()
        more = f" --work-dir {self.root}" if elsewhere else ""
        if name.split()[0] == "prepare":
            more += " --corpus-dir DIR"  # where the corpus lies is not known here
        return f"asr-kd {name} --config {self.config_path}{more}"


def labels_of(tree: str) -> str:
    """The per-frame array of a FrameStore that holds the senones of a tree: "senones" or "senones_monophone"."""
    return _of_tree("senones", tree)


def _of_tree(name: str, tree: str) -> str:
    return name if tree == "tied" else f"{name}_{tree}"


def default_root(config_path: Path) -> Path:
    """The default work folder: the one above the config's conf/, else the current one."""
    folder = config_path.absolute().parent
    return folder.parent if folder.name == "conf" else Path.cwd()


def require(path: Path, work: Workspace, command: str) -> dict[str, Any]:
    """The stamp of an input; raises UserError that says which command makes it."""
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f"{path} is not there yet; make it first: {work.command(command)}")
    return stamp


def trained_identity(work: Workspace, system: str) -> str:
    """What stands for a trained system in the stamps of what is made with it; UserError where it is not there."""
    return identity(require(work.exp(system), work, f"train {system}"))
