"""How an exported system is searched: with the graph that it was decoded with, and the scales that dev chose for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asr_kd.alignment.topology import SIL
from asr_kd.alignment.tree import read_tree
from asr_kd.errors import UserError
from asr_kd.evaluation.wer import characters, pooled, word_errors
from asr_kd.export.graph_files import Scores
from asr_kd.stages.decode_context import DecodeContext, DecodeTask, phone_context, phone_task, task_of
from asr_kd.stages.decode_worker import SearchSettings, TrainedModel
from asr_kd.workspace.config import DEV
from asr_kd.workspace.work import require

WORDS, PHONES = "words", "phones"


@dataclass(frozen=True)
class Search:
    """How words or phones are searched for, with the scales that dev chose for the system."""

    context: DecodeContext
    task: DecodeTask
    settings: SearchSettings

    @property
    def model(self) -> TrainedModel:
        """What answers: of several seeds the first."""
        return self.task.models[0]

    def errors(self, name: str, hypotheses: Sequence[Sequence[str]]) -> float:
        """The error rate of a set's hypotheses; an utterance whose reference is not known does not count."""
        return self._rate(name, hypotheses, self.context.scoring.scored)

    def character_errors(self, name: str, hypotheses: Sequence[Sequence[str]]) -> float | None:
        """The same of characters; None where these are not counted beside words."""
        return self._rate(name, hypotheses, characters) if self.context.scoring.characters else None

    def _rate(
        self, name: str, hypotheses: Sequence[Sequence[str]], scored: Callable[[Sequence[str]], list[str]]
    ) -> float:
        pairs = zip(self.context.references(name), hypotheses, strict=True)
        total = pooled(word_errors(scored(r), scored(h)) for r, h in pairs if r is not None)
        return total.errors / max(1, total.words)


def searches_of(context: DecodeContext, system: str) -> dict[str, Search]:
    """WORDS, and PHONES where these are decoded.

    Raises:
      UserError: the system's present models were not decoded on dev.
    """
    searches = {WORDS: words_search(context, system)}
    if context.config.decodes_phones:
        of_phones = phone_context(context)
        task = phone_task(of_phones, searches[WORDS].task, may_compile=False)
        searches[PHONES] = _search(of_phones, task)
    return searches


def words_search(context: DecodeContext, system: str) -> Search:
    """Returns the search for words alone; see `searches_of`."""
    return _search(context, task_of(context.config, context.work, system, may_compile=False))


def _search(context: DecodeContext, task: DecodeTask) -> Search:
    work, command = context.work, f"decode --system {task.system} --set {DEV}"
    folder = context.folder(task.system, DEV)
    decoded = require(folder, work, command)
    for name in ("model", "graph"):
        if decoded["inputs"].get(name) != task.inputs[name]:
            raise UserError(
                f"{folder} was decoded with another {name} than there is now, so the scales that it chose may not fit; "
                f"decode again: {work.command(command)}"
            )
    summary = context.read_summary(task.system, DEV)
    return Search(context, task, context.search(summary["acoustic_scale"], summary["word_penalty"]))


def scores_of(search: Search) -> Scores:
    """Returns how log posteriors become scores, as the system is decoded."""
    tree, decoding = read_tree(search.model.tree), search.settings.decoding
    return Scores(
        tree.log_priors(),
        silence=int(tree.tables[SIL, -1, SIL, SIL]),
        acoustic_scale=search.settings.acoustic_scale,
        word_penalty=search.settings.word_penalty,
        prior_scale=decoding.prior_scale,
        beam=decoding.search_beam,
    )
