"""How fast context windows are gathered, against ways that were tried and against a plain copy of as many bytes.

    python benchmarks/bench_windows.py [--frames 300000] [--device cpu] [--threads 2]

Measured with torch 1.13.1 on two shared cores of an AMD EPYC, GB/s written (best of 30 rounds):

    batch                                 512   1024   2560
    WindowedFrames, float32                54     57     51
    WindowedFrames, float16           43     46     41
    clamped numbers, index_select           -     15     24
    float16 gathered as 16-bit numbers      -     11     11
    plain copy (the floor)                 71     80     80

(-: the cores were taken by others in that row.) One thread, batch 1024: 30, 25, 14, 6, 44.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from asr_kd.frames.source import ArrayFrames, Context
from asr_kd.frames.windows import WindowedFrames

LEFT, RIGHT, DIMS, LENGTH = 20, 5, 40, 300  # LENGTH: frames of an utterance


def seconds(call: Callable[[], object], device: str, rounds: int = 30, calls: int = 10) -> float:
    """Of one call: the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    source = ArrayFrames([rng.normal(size=(LENGTH, DIMS)) for _ in range(options.frames // LENGTH)])
    full = WindowedFrames(source, Context(LEFT, RIGHT), device=options.device)
    half = WindowedFrames(source, Context(LEFT, RIGHT), device=options.device, dtype=torch.float16)
    plain = torch.from_numpy(source.normalised(0, len(source.ids))).to(options.device)
    starts = torch.arange(full.num_frames, device=options.device)
    first, steps = starts // LENGTH * LENGTH, torch.arange(-LEFT, RIGHT + 1, device=options.device)
    width = full.context.width * DIMS
    halves = half._frames.as_strided((half._windows.shape[0], width), (DIMS, 1))
    spare = torch.randn(64, 2560 * width // 64, device=options.device)
    for batch in (512, 1024, 2560):
        numbers = torch.randint(0, full.num_frames, (batch,))  # on the host
        frames = numbers.to(options.device)

        def clamped(frames: torch.Tensor = frames, batch: int = batch) -> torch.Tensor:
            low = first[frames][:, None]
            rows = torch.minimum(torch.maximum(frames[:, None] + steps, low), low + LENGTH - 1)
            return plain.index_select(0, rows.view(-1)).view(batch, -1)

        assert torch.equal(clamped(), full.inputs(numbers).flatten(1))
        ways: dict[str, Callable[[], object]] = {
            "WindowedFrames, float32": lambda n=numbers: full.inputs(n),  # type: ignore[misc]
            "WindowedFrames, float16": lambda n=numbers: half.inputs(n),  # type: ignore[misc]
            "clamped numbers, index_select": clamped,
            "float16 gathered as 16-bit numbers": lambda f=frames: halves[half._starts[f]].float(),  # type: ignore[misc]
            "plain copy (the floor)": lambda b=batch: spare.view(-1)[: b * width].clone(),  # type: ignore[misc]
        }
        for name, call in ways.items():
            took = seconds(call, options.device)
            written = batch * width * 4
            print(
                f"{batch:5d}  {name:36s} {took * 1e3:7.3f} ms {written / 1e6:5.1f} MB  {written / took / 1e9:6.1f} GB/s"
            )


if __name__ == "__main__":
    main()
