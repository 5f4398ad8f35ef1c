"""`asr-kd export --format sherpa`: a folder that sherpa-onnx runs as it is, and what it answered on dev and tests."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr_kd.alignment.tree import read_tree
from asr_kd.decoding.graph import Graph, compile_graph, read_graph
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import rate_name
from asr_kd.export.graph_files import write_fst, write_words
from asr_kd.export.onnx_acoustic import Description
from asr_kd.export.onnx_graph import save
from asr_kd.export.onnx_models import check_writers
from asr_kd.export.quantise import quantise_dynamic
from asr_kd.export.sherpa import offline_model, online_model, sherpa_fst, write_tokens
from asr_kd.export.sherpa_run import RULE
from asr_kd.export.spelling import Spelling, spelling_of, write_rule
from asr_kd.frames.features import FRAME_SHIFT, LOW_FREQ
from asr_kd.io.files import read_json, write_json
from asr_kd.io.folders import resuming_folder
from asr_kd.io.formatting import text_table
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.lang.ngram import read_arpa
from asr_kd.stages.decode import decode_stamp
from asr_kd.stages.decode_context import chosen_sets, decode_context
from asr_kd.stages.decoding_graph import check_space, language_model_of
from asr_kd.stages.export_folder import RESULT, SHERPA, STEP, export_folder, write_readme
from asr_kd.stages.export_posteriors import answering_model
from asr_kd.stages.export_search import Search, scores_of, words_search
from asr_kd.stages.new_speech import inputs_of, normalisation_of
from asr_kd.stages.sherpa_measure import OWN, OWN_RUNNING, Package, Recording, measure, own_search_of, recordings_of
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import open_frames
from asr_kd.workspace.work import Workspace, trained_identity

log = logging.getLogger(__name__)

MODELS = ("model.onnx", "model.int8.onnx", "streaming.onnx", "streaming.int8.onnx")
_VERSION = 6  # raise it when the same parts give another package
_GRAPH, _CACHE = "HLG.fst", "measured"
_LETTERS = ("characters", "bpe")  # lang.units of which words are spelled
_EXAMPLES, _LONGEST = 3, 15.0  # recordings in the package; seconds of one, where there are shorter ones


@dataclass(frozen=True)
class SherpaOptions:
    """What is written and measured.

    Attributes:
      chunk: frames that a stream takes at once.
      sets: that are measured beside dev; empty: all that are scored.
      allow_pipes: run the commands that cuts name for audio.
    """

    chunk: int = 20
    sets: tuple[str, ...] = ()
    nj: int = 1
    allow_pipes: bool = False


@dataclass(frozen=True)
class Row:
    """What a model of the package answered, or our own.

    Attributes:
      bytes: of its file; None: it is no file of the package.
      rates: set -> error rate. characters: the same of characters, where these are counted beside words.
      same: share of the utterances with the words of our search with kaldi-decoder, with the same beam and mean.
      empty: utterances without words.
      rtf: seconds of one thread by seconds of speech, search included.
    """

    name: str
    bytes: int | None
    rates: dict[str, float]
    same: float | None = None
    empty: int | None = None
    rtf: float | None = None
    characters: dict[str, float] = field(default_factory=dict)

    def cells(self, in_characters: Sequence[str]) -> list[str]:
        """Returns the cells of a table's row; the sets in which characters are counted have a column for them."""
        size = "" if self.bytes is None else f"{self.bytes / 1e6:.2f}"
        same = "" if self.same is None else f"{self.same:.1%}"
        empty, speed = ("" if value is None else value for value in (self.empty, self.rtf and f"{1 / self.rtf:.1f}"))
        rates = [f"{rate:.2%}" for rate in self.rates.values()]
        rates += [f"{self.characters[name]:.2%}" if name in self.characters else "" for name in in_characters]
        return [self.name, size, *rates, same, str(empty), str(speed)]


@dataclass(frozen=True)
class SherpaResult:
    """What was written; `result` is what export.json has."""

    folder: Path
    ran: bool
    result: dict[str, Any]

    def __str__(self) -> str:
        first = f"{'exported to' if self.ran else 'already in'} {self.folder}"
        return "\n".join([first, "", text_table(self.table), "", *self.notes])

    @property
    def rows(self) -> list[Row]:
        return [Row(**row) for row in self.result["models"]]

    @property
    def table(self) -> list[list[str]]:
        """A head, and a line for each row."""
        in_characters = list(self.rows[-1].characters)
        rates = [f"{name} {self.result['rate']}" for name in self.rows[0].rates]
        rates += [f"{name} {rate_name('character')}" for name in in_characters]
        head = ["model", "MB", *rates, "same words", "no words", "speed"]
        return [head, *(row.cells(in_characters) for row in self.rows)]

    @property
    def notes(self) -> list[str]:
        """The notes below the table."""
        processes = self.result["processes"]
        beside = f", {processes} processes side by side" if processes > 1 else ""
        return [
            "same words: as our own search with kaldi-decoder, at the package's beam and the model's mean",
            f"speed: with search, times real time on one thread{beside}",
        ]


def export_sherpa(config: Config, work: Workspace, system: str, folder: Path, options: SherpaOptions) -> SherpaResult:
    """Writes models, graph, tokens, words, three recordings of a test set and a README with what they give.

    Raises:
      UserError: an earlier stage has not run, the folder holds other files, or the extra `export` is not installed.
    """
    check_writers(config.system(name).model.kind for name in config.answering(system))
    folder = export_folder(folder)
    names = tuple(dict.fromkeys((DEV, *chosen_sets(config, work, options.sets))))
    search = words_search(decode_context(config, work, names, None, options.nj), system)
    stores, audio_format = search.context.stores, config.corpus.audio_format
    sets = {
        name: recordings_of(work, store, name, audio_format, allow_pipes=options.allow_pipes)
        for name, store in stores.items()
    }
    stamp = _stamp(config, work, search, options)
    reason = stale_reason(folder, stamp)
    if reason is None:
        return _read_result(folder)
    log.info("exporting %s: %s", system, reason)
    with resuming_folder(folder, stamp) as partial:
        package = _write(partial, config, work, search, options)
        rows = list(_rows(package, search, sets, options.nj))
        result = {
            "system": system,
            "rate": rate_name(search.context.scoring.unit),
            "processes": options.nj,
            "models": [asdict(row) for row in rows],
        }
        write_json(partial / RESULT, result)
        examples = next((sets[name] for name in names if name != DEV), sets[DEV])
        _write_readme(package, examples, SherpaResult(folder, True, result))
        shutil.rmtree(partial / _CACHE)  # last: nothing is measured twice
    return SherpaResult(folder, True, result)


def _read_result(folder: Path) -> SherpaResult:
    advice = f"delete {folder} and export again"
    result = SherpaResult(folder, False, read_json(folder / RESULT, dict, advice))
    try:
        str(result)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{folder / RESULT} is damaged; {advice}.") from None
    return result


def _stamp(config: Config, work: Workspace, search: Search, options: SherpaOptions) -> Stamp:
    system = search.task.system
    settings = {
        "form": SHERPA,
        "system": system,
        "models": sum(config.answering(system).values()),
        "chunk": options.chunk,
        "scales": [search.settings.acoustic_scale, search.settings.word_penalty],
        "decoding": search.context.decoding,
        "running_seconds": config.features.running_seconds,
    }
    inputs = {"model": trained_identity(work, system)}
    inputs |= {"train frames": open_frames(work, TRAIN).digest, "graph": search.task.inputs["graph"]}
    for name in search.context.stores:
        inputs[f"words of {name}"] = decode_stamp(search.context, search.task, name).digest
    return Stamp(STEP, settings, inputs | inputs_of(config, work, system), version=_VERSION)


def _write(folder: Path, config: Config, work: Workspace, search: Search, options: SherpaOptions) -> Package:
    """Everything but recordings and README."""
    system = search.task.system
    spelling, graph = _spelled(config, work, search)
    model, scores = answering_model(config, work, system), scores_of(search)
    if spelling is None:
        write_tokens(folder / "tokens.txt", (f"s{senone}" for senone in range(model.num_senones)))
    else:
        write_tokens(folder / "tokens.txt", spelling.names)
        write_rule(folder / RULE, spelling)
        scores = replace(scores, columns=spelling.senones) if spelling.has_own_graph else scores
    normalisation = normalisation_of(config, work, system)
    origin = {"model": search.task.inputs["model"]}
    description = Description(system, config.corpus.sampling_rate, config.features.running_seconds, origin)
    save(offline_model(model, normalisation, scores, description), folder / MODELS[0])
    save(online_model(model, normalisation, scores, description, chunk=options.chunk), folder / MODELS[2])
    for whole, small in (MODELS[:2], MODELS[2:]):
        quantise_dynamic(folder / whole, folder / small)
    write_fst(folder / _GRAPH, sherpa_fst(graph, scores))
    return Package(
        folder,
        config.corpus.audio_format,
        config.features.num_mel_bins,
        join=write_words(folder / "words.txt", graph),
        sign=spelling.sign if spelling else "",
        chunk=options.chunk,
        ahead=model.context.right,
        model=search.model,
        search=search.settings,
        normalisation=normalisation,
        running_seconds=config.features.running_seconds,
    )


def _spelled(config: Config, work: Workspace, search: Search) -> tuple[Spelling | None, Graph]:
    """How sherpa-onnx's text is spelled, None where words are not made of letters; and the graph of these columns.

    Where units become two that graph is compiled here: decoding has no use for it.
    """
    spelling = None
    if config.lang.units in _LETTERS:
        spaces = not search.context.scoring.unspaced
        spelling = spelling_of(read_lang(work.lang), read_tree(search.model.tree), spaces=spaces)
    if spelling is None or not spelling.has_own_graph:
        return spelling, read_graph(search.model.graph)
    check_space(work, search.model.graph)
    arpa = read_arpa(language_model_of(work))
    return spelling, compile_graph(spelling.lang, arpa, spelling.tree, config.decoding.silence_probability)


def _rows(package: Package, search: Search, sets: dict[str, list[Recording]], nj: int) -> Iterator[Row]:
    """Yields the table's rows: the system as decoded, our own search with the package's means, and each model."""
    cache = package.folder / _CACHE
    cache.mkdir(exist_ok=True)
    decoded = {name: search.context.read_summary(search.task.system, name)["wer_per_seed"][0] for name in sets}
    yield Row("asr-kd decode", None, decoded)
    own: dict[str, dict[str, list[list[str]]]] = {}
    models = (OWN, OWN_RUNNING, *MODELS)
    audio = sum(recording.seconds for recordings in sets.values() for recording in recordings)
    for model, answers in zip(models, measure(package, sets, models, cache, nj), strict=True):
        words = {name: answer.words for name, answer in answers.items()}
        if model not in MODELS:
            own[model] = words
        ours = own[own_search_of(model) if model in MODELS else model]
        pairs = [pair for name in sets for pair in zip(words[name], ours[name], strict=True)]
        yield Row(
            model,
            (package.folder / model).stat().st_size if model in MODELS else None,
            {name: search.errors(name, words[name]) for name in sets},
            sum(answer == expected for answer, expected in pairs) / max(1, len(pairs)),
            sum(not answer for answer, _ in pairs),
            sum(answer.seconds for answer in answers.values()) / audio,
            {name: rate for name in sets if (rate := search.character_errors(name, words[name])) is not None},
        )


def _write_readme(package: Package, recordings: Sequence[Recording], result: SherpaResult) -> None:
    """README.md, and the recordings that it speaks of."""
    folder, rate = package.folder, package.audio_format.sampling_rate
    (folder / "test_wavs").mkdir(exist_ok=True)
    examples = _examples(recordings)
    wavs = [f"test_wavs/{number}.wav" for number in range(len(examples))]
    for wav, samples in zip(wavs, package.samples(examples), strict=True):
        soundfile.write(folder / wav, samples, rate, subtype="PCM_16")
    written = [soundfile.read(folder / wav, dtype="float32")[0] for wav in wavs]
    write_readme(
        folder,
        "sherpa_package",
        result=result,
        package=package,
        offline=_expected(package, MODELS[0], wavs, written),
        streaming=_expected(package, MODELS[2], wavs, written),
        low_freq=f"{LOW_FREQ:g}",
        latency=round(1000 * FRAME_SHIFT * (package.chunk + package.ahead)),
        version=importlib.metadata.version("sherpa-onnx"),
        graph_bytes=(folder / _GRAPH).stat().st_size,
        spelled=package.sign != "",
        sign=package.sign,
    )


def _expected(package: Package, model: str, wavs: Sequence[str], samples: Sequence[np.ndarray]) -> list[dict[str, str]]:
    """What the README promises of each recording."""
    recogniser, names = package.recogniser(model), package.names()
    rows = []
    for wav, each in zip(wavs, samples, strict=True):
        answer = recogniser.recognise(each)
        words = " ".join(word for number in answer.words for word in names[number])
        numbers = " ".join(map(str, answer.words))
        rows.append({"wav": wav, "numbers": numbers, "words": words, "text": answer.text})
    return rows


def _examples(recordings: Sequence[Recording]) -> list[Recording]:
    """Returns some utterances of ordinary length, spread over the set's lengths."""
    by_length = sorted(recordings, key=lambda recording: recording.seconds)
    short = [recording for recording in by_length if recording.seconds <= _LONGEST] or by_length[:_EXAMPLES]
    places = np.unique(np.linspace(0, len(short) - 1, _EXAMPLES + 2).round().astype(int)[1:-1])
    return [short[place] for place in places]
