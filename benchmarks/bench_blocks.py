"""How long training waits for the features of a set that is larger than memory: the share of its time.

    python benchmarks/bench_blocks.py [--frames 1500000] [--block 250000] [--width 384] [--layers 3]

A set of drawn features on disk is read block by block; a net is trained on it once with the next block loaded by
another thread and once without. What counts is how long a block of frames takes to load against how long it takes to
train on it, not its size: a block of real training is 33.5 million frames.

Measured with --frames 900000 --block 150000 (six blocks) on two cores with avx512_bf16: 40,900 frames a second and
1.5 % of the time waited without, 40,500 and 0.2 % with it. So features are loaded at 2.8 million frames a second: a net
that takes more than that in a second waits for them in any case.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.frames.store import FrameStore, FrameStoreWriter, StoredUtterance
from asr_kd.frames.windows import BlockedFrames
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags, disable_malloc_trim

DIMS, LENGTH, SENONES = 40, 1200, 1000


class Timed(BlockedFrames):
    """Notes the seconds that are waited for blocks."""

    waited = 0.0
    ahead = True

    def expect(self, blocks: Sequence[int]) -> None:
        if self.ahead:
            super().expect(blocks)

    def _block(self, block: int):  # type: ignore[no-untyped-def]
        started = time.perf_counter()
        try:
            return super()._block(block)
        finally:
            self.waited += time.perf_counter() - started


def drawn_store(folder: Path, frames: int) -> FrameStore:
    rng = np.random.default_rng(0)
    stamp = Stamp("features", {}, {})
    with replacing_folder(folder / "frames", stamp) as unfinished, FrameStoreWriter(unfinished, DIMS) as writer:
        for number in range(frames // LENGTH):
            utterance = StoredUtterance(f"u{number}", "all", "", LENGTH / 100)
            writer.append(utterance, rng.normal(size=(LENGTH, DIMS)).astype(np.float16))
    return FrameStore.open(folder / "frames")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("frames", 1_500_000), ("block", 250_000), ("width", 384), ("layers", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    choose_mkl_code_path(cpu_flags())
    disable_malloc_trim()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        store = drawn_store(Path(folder), options.frames)
        labels = np.random.default_rng(1).integers(0, SENONES, store.num_frames)
        settings = DnnConfig(layers=options.layers, width=options.width)
        for ahead in (False, True):
            windows = Timed(store, settings.context, block_frames=options.block)
            windows.ahead = ahead
            model = build_model(settings, num_dims=DIMS, num_senones=SENONES, seeds=[1])
            started = time.perf_counter()
            criterion = HardTargets(labels, torch.device("cpu"))
            config = TrainingConfig(batch_size=1024, epochs=1)
            fit(model, TrainingData(windows), criterion, config, RunControl(seed=1))
            seconds = time.perf_counter() - started
            how = "loaded ahead" if ahead else "loaded when they are due"
            print(
                f"blocks {how}: {store.num_frames / seconds:,.0f} frames/s, waits {windows.waited:.2f} s of "
                f"{seconds:.1f} ({windows.waited / seconds:.1%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
