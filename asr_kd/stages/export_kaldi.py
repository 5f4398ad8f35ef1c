"""`asr-kd export --format kaldi`: the decoding graph, with all that a decoder elsewhere needs to search it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from asr_kd.alignment.tree import Tree, read_tree
from asr_kd.decoding.graph import Graph, read_graph
from asr_kd.decoding.kaldi_decoder import decoding_fst
from asr_kd.export.graph_files import write_fst, write_words
from asr_kd.export.kaldi import write_log_priors, write_phones, write_tree
from asr_kd.io.folders import resuming_folder
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.lang.lexicon import Lang, read_lang, write_lexicon
from asr_kd.stages.decode import decode_stamp
from asr_kd.stages.decode_context import decode_context
from asr_kd.stages.export_folder import KALDI, README, STEP, export_folder, write_readme
from asr_kd.stages.export_search import Search, words_search
from asr_kd.workspace.config import DEV, Config
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KaldiResult:
    """What was written."""

    folder: Path
    ran: bool

    def __str__(self) -> str:
        return f"{'exported to' if self.ran else 'already in'} {self.folder}; {README} says how it is searched"


def export_kaldi(config: Config, work: Workspace, system: str, folder: Path) -> KaldiResult:
    """Writes HCLG, words, priors, tree, phones, lexicon, and a README with the scales that dev chose for the system.

    Raises:
      UserError: an earlier stage has not run, or the folder holds other files.
    """
    config.system(system)
    folder = export_folder(folder)
    search = words_search(decode_context(config, work, (DEV,), "kaldi", 1), system)
    stamp = _stamp(search)
    reason = stale_reason(folder, stamp)
    if reason is None:
        return KaldiResult(folder, False)
    log.info("exporting %s: %s", system, reason)
    with resuming_folder(folder, stamp) as partial:
        _write(partial, search, read_tree(search.model.tree), read_graph(search.model.graph), read_lang(work.lang))
    return KaldiResult(folder, True)


def _stamp(search: Search) -> Stamp:
    settings = {
        "form": KALDI,
        "system": search.task.system,
        "scales": [search.settings.acoustic_scale, search.settings.word_penalty],
        "decoding": search.context.decoding,
    }
    inputs = {"graph": search.task.inputs["graph"]}  # which is of lexicon, language model and tree
    inputs[f"words of {DEV}"] = decode_stamp(search.context, search.task, DEV).digest
    return Stamp(STEP, settings, inputs)


def _write(folder: Path, search: Search, tree: Tree, graph: Graph, lang: Lang) -> None:
    fst = decoding_fst(graph, search.settings.word_penalty)
    write_fst(folder / "HCLG.fst", fst)
    join = write_words(folder / "words.txt", graph)
    write_log_priors(folder / "log_priors.txt", tree.log_priors())
    write_tree(folder / "tree.txt", tree)
    write_phones(folder / "phones.txt", lang.phones)
    write_lexicon(folder / "lexicon.txt", {word: lang.spell(word) for word in lang.words})
    decoding = search.settings.decoding
    retries = [(beam, 10 * decoding.max_active) for beam in decoding.retry_beams]
    write_readme(
        folder,
        "kaldi_folder",
        search=search,
        dev=DEV,
        tree=tree,
        fst=fst,
        join=join,
        tries=repr([(decoding.search_beam, decoding.max_active), *retries]),
        retries=" or ".join(f"{beam:g}" for beam in decoding.retry_beams),
    )
