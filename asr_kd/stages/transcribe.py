"""`asr-kd transcribe`: own recordings to words, by a trained system or by an exported recogniser."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_kd.corpora.audio import BadAudio
from asr_kd.errors import UserError, printable, some_of
from asr_kd.io.files import read_lines, replacing_file
from asr_kd.io.progress import progress_bar
from asr_kd.runtime.folder import RecogniserFiles
from asr_kd.runtime.recogniser import Recogniser, RecogniserSettings
from asr_kd.runtime.transcript import CAPTIONS, CONFIDENT, FORMATS, Transcript
from asr_kd.stages.decode_context import decode_context
from asr_kd.stages.export_search import words_search
from asr_kd.stages.new_speech import normalisation_of
from asr_kd.workspace.config import DEV, Config
from asr_kd.workspace.executor import parallel_map
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

Answer = tuple[Path, Transcript | BadAudio]


@dataclass(frozen=True)
class Recordings:
    """What is recognised.

    Attributes:
      paths: of whole recordings; "-" is standard input.
      speakers: of each path; those of one speaker are normalised together. None: each alone.
      channel: of files with several, from 0.
    """

    paths: tuple[Path, ...]
    speakers: tuple[str, ...] | None = None
    channel: int | None = None

    def without(self, paths: Collection[Path]) -> Recordings:
        """The others."""
        places = [number for number, path in enumerate(self.paths) if path not in paths]
        speakers = None if self.speakers is None else tuple(self.speakers[place] for place in places)
        return Recordings(tuple(self.paths[place] for place in places), speakers, self.channel)

    @property
    def groups(self) -> list[list[int]]:
        """Numbers of the recordings that are normalised together."""
        if self.speakers is None:
            return [[number] for number in range(len(self.paths))]
        groups: dict[str, list[int]] = {}
        for number, speaker in enumerate(self.speakers):
            groups.setdefault(speaker, []).append(number)
        return list(groups.values())


def recogniser_files(config: Config, work: Workspace, system: str | None = None) -> RecogniserFiles:
    """A trained system as a recogniser; of several seeds its first model.

    Args:
      system: None: the distilled one of the config's first comparison.

    Raises:
      UserError: the system was not decoded on dev yet, or parts do not fit together.
    """
    if system is None:
        if not config.compare:
            raise UserError(f"{work.config_path} compares no systems; name one with --system.")
        system = config.compare[0].distilled
    config.system(system)
    # nothing is written: commands that use this do not lock the work folder
    search = words_search(decode_context(config, work, (DEV,), "native", 1), system)
    settings = RecogniserSettings(
        sampling_rate=config.corpus.sampling_rate,
        num_mel_bins=config.features.num_mel_bins,
        acoustic_scale=search.settings.acoustic_scale,
        word_penalty=search.settings.word_penalty,
        running_seconds=config.features.running_seconds,
        decoding=search.settings.decoding,
        channel=config.corpus.audio_format.channel,
    )
    members = sum(config.answering(system).values())
    normalisation = normalisation_of(config, work, system)
    model = search.model
    return RecogniserFiles(model.folder, members, model.tree, model.graph, work.lang, normalisation, settings)


def transcribe(
    files: RecogniserFiles, recordings: Recordings, *, nj: int = 1, confidence: bool = False
) -> Iterator[Answer]:
    """Yields (path, its words, or what is wrong with the recording), in the order given.

    Args:
      nj: processes, each of which takes the recordings of one speaker after the other.
      confidence: see `Recogniser.transcribe`.
    """
    groups = recordings.groups
    shards = [[recordings.paths[number] for number in group] for group in groups]
    results = parallel_map(partial(_Worker.answer, _Worker(files, recordings.channel, confidence)), shards, nj=nj)
    waiting: dict[int, Transcript | BadAudio] = {}
    following = 0
    for group, answers in zip(groups, results, strict=True):
        waiting.update(zip(group, answers, strict=True))
        while following in waiting:
            yield recordings.paths[following], waiting.pop(following)
            following += 1


def transcribe_to(
    files: RecogniserFiles,
    recordings: Recordings,
    form: str,
    output: Path | None,
    *,
    nj: int = 1,
    skip_existing: bool = False,
    echo: Callable[..., Any],
) -> list[Path]:
    """Prints what is recognised, recording by recording, or writes a file for each; what cannot be used is logged.

    Args:
      form: of FORMATS.
      output: a folder, which is made; None: everything goes to `echo`.
      skip_existing: leave recordings out whose file is in `output` already.
      echo: as click.echo.

    Returns:
      The recordings that cannot be used.

    Raises:
      UserError: two recordings would have one file, or several recordings one stream of captions.
    """
    if not recordings.paths:
        raise UserError("no recording given; name one or more audio files, or - for standard input.")
    targets = _targets(recordings.paths, output, form)
    if output is None and form in CAPTIONS and len(recordings.paths) > 1:
        raise UserError("captions of several recordings need a file for each; name a folder with --output.")
    if output is not None:
        _make(output)
        if skip_existing:
            recordings = recordings.without({path for path, target in targets.items() if target.exists()})
        _check_no_transcripts({path: targets[path] for path in recordings.paths})
    bad = []
    with progress_bar(None if output is None else "transcribing", len(recordings.paths), "file") as bar:
        for path, answer in transcribe(files, recordings, nj=nj, confidence=form in CONFIDENT):
            bar.update()
            name = printable(str(path))
            if isinstance(answer, BadAudio):
                log.warning("%s", printable(str(answer)))
                bad.append(path)
                continue
            for start, end in answer.lost:
                log.warning("%s: no words from %.2f to %.2f s: the search came to no end", name, start, end)
            text = FORMATS[form](name, answer)
            if output is None:
                echo(text, nl=False)
                continue
            with replacing_file(targets[path]) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return bad


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); name another folder with --output.") from None


def _targets(paths: Sequence[Path], output: Path | None, form: str) -> dict[Path, Path]:
    """The file of each recording; where there is none, what CTM calls it.

    Raises:
      UserError: several have the same.
    """
    suffix = {"text": "txt"}.get(form, form)
    folder = Path() if output is None else output
    targets = {path: folder / f"{'stdin' if path == Path('-') else path.stem}.{suffix}" for path in paths}
    counts = Counter("_".join(str(t).split()) if form == "ctm" else str(t) for t in targets.values())
    if (output is not None or form == "ctm") and (twice := sorted(t for t, count in counts.items() if count > 1)):
        raise UserError(f"several recordings would be {printable(twice[0])}; transcribe them apart, or rename one.")
    return targets


def _check_no_transcripts(targets: Mapping[Path, Path]) -> None:
    """Raises UserError where a file would replace one of the recording's name beside it: perhaps its transcript."""
    for path, target in targets.items():
        if target.suffix == ".txt" and target.exists() and target.resolve().parent == path.resolve().parent:
            raise UserError(
                f"{printable(str(target))} is beside its recording, and may be a transcript by hand: it is not "
                "replaced; name another folder with --output."
            )


@dataclass
class _Worker:
    """What a process has loaded."""

    files: RecogniserFiles
    channel: int | None
    confidence: bool
    recogniser: Recogniser | None = None

    def answer(self, paths: Sequence[Path]) -> list[Transcript | BadAudio]:
        """Returns the transcript of each recording of one speaker, or why it cannot be used."""
        if self.recogniser is None:
            self.recogniser = self.files.load()
        answers: dict[int, Transcript | BadAudio] = {}
        good = []

        def readable() -> Iterator[NDArray[np.float32]]:
            assert self.recogniser is not None
            for number, path in enumerate(paths):
                try:
                    samples = self.recogniser.read(path, self.channel)
                except BadAudio as error:
                    answers[number] = error
                    continue
                good.append(number)
                yield samples

        transcripts = self.recogniser.transcribe_group(readable(), confidence=self.confidence)
        answers |= dict(zip(good, transcripts, strict=True))
        return [answers[number] for number in range(len(paths))]


def speakers_of(paths: Sequence[Path], utt2spk: Path) -> tuple[str, ...]:
    """The speaker of each recording, by lines "NAME SPEAKER" of Kaldi's utt2spk.

    NAME is the recording as the command line has it, or its file's name, with its ending or without.

    Raises:
      UserError: the file cannot be read, a line is wrong, or a recording is missing.
    """
    speakers: dict[str, str] = {}
    for number, line in read_lines(utt2spk, "name the file that says who speaks in which recording"):
        fields = line.split()
        if len(fields) != 2:
            raise UserError(
                f"{utt2spk}:{number}: expected NAME SPEAKER, found {line.strip()[:60]!r}; correct the line."
            )
        speakers[fields[0]] = fields[1]
    answers = [_speaker(path, speakers) for path in paths]
    if missing := [printable(str(path)) for path, speaker in zip(paths, answers, strict=True) if speaker is None]:
        raise UserError(f"{utt2spk} has no speaker of {some_of(missing)}; add a line NAME SPEAKER for each.")
    return tuple(speaker for speaker in answers if speaker is not None)


def _speaker(path: Path, speakers: Mapping[str, str]) -> str | None:
    names = (str(path), path.name, path.stem)
    return next((speakers[name] for name in names if name in speakers), None)
