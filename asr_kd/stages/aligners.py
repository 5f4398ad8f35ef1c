"""The aligners of stage 3: that of the flat start, then one for each round of realignment, each from the one before."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from asr_kd.acoustic.divergence import diverged_in
from asr_kd.acoustic.training import RunControl
from asr_kd.alignment.aligner import Aligner, load_aligner
from asr_kd.alignment.flat_start import flat_start
from asr_kd.alignment.given_labels import read_labels
from asr_kd.alignment.realignment import realign
from asr_kd.alignment.set_alignment import AlignedBlock
from asr_kd.alignment.topology import CannotAlignError
from asr_kd.alignment.transcripts import TranscribedFrames
from asr_kd.errors import UserError
from asr_kd.frames.features import frame_seconds
from asr_kd.io.folders import resuming_folder
from asr_kd.io.stamp import Stamp
from asr_kd.lang.lexicon import read_lang
from asr_kd.stages.align_stamps import AlignmentStamps
from asr_kd.workspace.cached_map import ARRAYS, cached_map, cached_rounds
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.executor import on_cluster
from asr_kd.workspace.work import Workspace

_ROUNDS = "rounds"  # folder of what the last round of the flat start returned
_BLOCKS = "blocks"  # folder of what a round of realignment has aligned
_CHECKPOINT = "checkpoint"  # of its net


@dataclass
class Aligners:
    """The aligners that a work folder has or is to have.

    Attributes:
      data: of each set.
      is_stale: whether a folder is missing or out of date.
      nj: threads of the search.
    """

    config: Config
    work: Workspace
    stamps: AlignmentStamps
    data: Mapping[str, TranscribedFrames]
    is_stale: Callable[[Path, Stamp], bool]
    nj: int

    def last(self) -> Aligner:
        """The one that aligns the sets; trained now where it is missing, with those before it that it needs.

        Raises:
          UserError: no utterance can be aligned, or training diverges.
        """
        return self._aligner(self.config.alignment.realign_rounds)

    def _aligner(self, number: int) -> Aligner:
        folder, stamp = self.work.aligner(number), self.stamps.aligner(number)
        if self.is_stale(folder, stamp):
            metadata: dict[str, Any] = {}
            before = self._aligner(number - 1) if number else None
            with resuming_folder(folder, stamp, metadata) as unfinished:
                started = time.perf_counter()
                advice = "lower alignment.realign.training.learning_rate"
                if before is None:  # there the rate follows from the size of the batches
                    advice = "lower alignment.batch_size, or set alignment.precision: float32"
                try:
                    with diverged_in(folder, advice):
                        aligner = self._trained(before, number, unfinished)
                except CannotAlignError as error:
                    raise UserError(f"{self.work.frames(TRAIN)}: {error}.") from None
                aligner.save(unfinished)
                metadata["notes"] = list(aligner.notes)
                metadata["seconds"] = round(time.perf_counter() - started, 1)
        for name in (_ROUNDS, _BLOCKS):  # not earlier: a run that is killed before resumes from them
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / _CHECKPOINT).unlink(missing_ok=True)
        return load_aligner(folder, beam=self.config.alignment.beam)

    @cached_property
    def _training_data(self) -> TranscribedFrames:
        if self.config.alignment.learn_from == "train":
            return self.data[TRAIN]
        lang = read_lang(self.work.lang, *(self.work.lexicon(name) for name in self.data))
        return TranscribedFrames.concatenated(list(self.data.values()), lang)

    def _trained(self, before: Aligner | None, number: int, unfinished: Path) -> Aligner:
        """Resumes from what a killed run has left in the folder."""
        return self._flat_start(unfinished) if before is None else self._realign(before, number, unfinished)

    def _flat_start(self, unfinished: Path) -> Aligner:
        settings, data = self.config.alignment, self._training_data
        labels = None
        if settings.labels == "from":
            # the flat start learns from no others
            ids = {name for name, unaltered in zip(data.frames.ids, data.unaltered, strict=True) if unaltered}
            shift = frame_seconds(self.config.corpus.sampling_rate)
            labels = read_labels(self.work.config_path.parent / settings.dir, ids, shift)
        resumed = partial(cached_rounds, folder=unfinished / _ROUNDS, codec=ARRAYS)
        return flat_start(data, settings, seed=self.config.seed, nj=self.nj, map_rounds=resumed, labels=labels)

    def _realign(self, before: Aligner, number: int, unfinished: Path) -> Aligner:
        rounds = self.config.alignment.realign_rounds
        label = "realign" if rounds == 1 else f"realign, round {number} of {rounds}"

        def resumed(align: Callable[[range], AlignedBlock], blocks: Any) -> Any:
            files = [unfinished / _BLOCKS / f"{block.start}.npz" for block in blocks]
            processes = self.nj if on_cluster() else 1
            return cached_map(align, blocks, files, ARRAYS, nj=processes, progress=f"{label}: align train")

        control = RunControl(
            seed=self.config.seed + number - 1,
            checkpoint=unfinished / _CHECKPOINT,
            digest=self.stamps.aligner(number).digest,
            label=f"{label}: train",
        )
        threads = 1 if on_cluster() else self.nj  # of a block
        return realign(before, self._training_data, self.config.alignment, control, nj=threads, map_blocks=resumed)
