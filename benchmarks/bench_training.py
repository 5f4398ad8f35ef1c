"""How far a training step is from the bare matrix products that it cannot do without.

    python benchmarks/bench_training.py [--members 5] [--layers 2] [--width 320] [--batch 1024] [--threads 2] ...
    python benchmarks/bench_training.py --digits --members 1 --width 1200 --batch 256

The floor: the products of forward and backward pass alone (three per layer, two for the first, whose input needs no
gradient), of the same shapes, in the same number format, on tensors that are already there. The loop does them and
gathers windows, draws dropout, takes the loss and its gradient, and steps the optimiser. `hard` trains on states,
`soft` on a store of soft targets as `asr-kd soft-targets` writes it (32 entries a frame). With --digits the examples
are images of 784 pixels, with dropout on the input too, as the MNIST teacher has them. With --lda-dims the first layer
is as wide as that, and the loop computes the discriminants besides, once for all members. With --tdnn the model is
the time-delay net of that width, on chunks of 100 frames; its floor is not measured.

Measured with torch 1.13.1 on two AVX2 cores of an AMD EPYC, so in float32: milliseconds a step, medians of five rounds
(digits: three), version 0.1 and this one in turn:

    options                                               floor      0.1   0.2
    --members 4 --layers 3 --width 384 --states 1000       91  hard  115   114  (1.25 times the floor)
      --dropout 0.1 --batch 512 --frames 20000                 soft  123   120  (1.32)
    --digits --members 1 --width 1200 --batch 256          26  hard   38    42  (1.62)

The digits' step is slower since kernels that each won less than a tenth of a step went: bias, ReLU and dropout in one
pass, and the max-norm (see bench_kernels.py).

The rest was measured with 0.1 only. With avx512_bf16, in bfloat16: the first command 34.5 for the products alone, 46.9
hard (1.36 times), 51.0 soft (1.48 times); --members 3 --layers 3 --width 384 --states 1000 43.2, 58.7 (1.36 times) and
61.4 (1.42 times); the digits 8.2, 13.0 and 13.6 (1.58 and 1.66 times). With batches as small as theirs weights weigh
more: a step moves 32 bytes of each, 77 MB. With AVX2, --lda-dims 700 changed nothing (94.8 and 94.1 ms a step of the
four nets). With MKL_DEBUG_CPU_TYPE=0, the code path that MKL 2020.0 takes on an AMD processor by itself
(`asr_kd/kernels/process.py`), three nets took 450 (floor), 553 and 532, and 144, 168 and 165 otherwise.

Where a step of the tdnn goes (256 wide, dilations 1 1 2 3 3 3, dropout, 1000 senones, 10 chunks of 150 frames, float32,
one AVX2 core, beside other work; torch.profiler's self times, with oneDNN's own gradients): convolutions 69 %, products
of the output layer 11, batch norm 3.3, the loss 2.9, residual sums 2, copies 2, ReLU 1.6, dropout masks 1.5, the
optimiser below 1, assembling the batch 0.2. Own gradients of the convolutions (time_convolution.py) took 327 to 349 ms
of processor time a step instead of 382 to 392; a bottleneck of 96 channels 223, 4 of them for the constraint, and a
front end of 16 and 32 channels 460 (336 without either).
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.criteria import Criterion, HardTargets
from asr_kd.acoustic.lda import random_transform
from asr_kd.acoustic.model import FrameModel, build_model, compute_dtype
from asr_kd.acoustic.settings import DnnConfig, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, truncate
from asr_kd.distillation.targets import DistillationCriterion, StoredTargets
from asr_kd.frames.source import ArrayFrames, Context
from asr_kd.frames.windows import WindowedFrames, Windows
from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags, disable_malloc_trim

LENGTH = 300  # frames of an utterance


def floor_seconds(members: int, sizes: list[int], batch: int, dtype: torch.dtype, steps: int) -> float:
    """Of the matrix products of one step; turned inputs are laid out beforehand, as products take longer otherwise."""
    layers = [
        (torch.randn(members, batch, a).to(dtype), torch.randn(members, a, batch).to(dtype),
         torch.randn(members, a, b).to(dtype), torch.randn(members, batch, b).to(dtype))
        for a, b in itertools.pairwise(sizes)
    ]  # fmt: skip
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(steps):
            for number, (inputs, turned, weight, gradient) in enumerate(layers):
                torch.bmm(inputs, weight)
                torch.bmm(turned, gradient)
                if number:
                    torch.bmm(gradient, weight.transpose(1, 2))
        best = min(best, (time.perf_counter() - started) / steps)
    return best


def step_seconds(model: FrameModel, windows: Windows, criterion: Criterion, batch: int) -> float:
    """Of one step of the loop: the mean over an epoch, best of three."""
    config = TrainingConfig(batch_size=batch, epochs=1)
    best = float("inf")
    for _ in range(3):
        progress = fit(model, TrainingData(windows), criterion, config, RunControl(seed=1))
        best = min(best, progress.rows[-1]["seconds"] / progress.step)
    return best


def soft_criterion(
    folder: Path,
    labels: np.ndarray,
    num_senones: int,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> Criterion:
    rng = torch.Generator().manual_seed(0)
    writer = SoftTargetWriter(folder, num_senones, np.full(num_senones, 1 / num_senones, np.float32), exact=False)
    for _ in range(len(labels) // LENGTH):
        logits = 2.0 * torch.randn(LENGTH, num_senones, generator=rng)
        writer.append(truncate(logits.log_softmax(-1), keep_mass=0.99, max_entries=32))
    writer.close()
    store = SoftTargetStore(folder, temperature=2.0, num_frames=len(labels), device=device)
    return DistillationCriterion(StoredTargets(store), labels, soft_weight=0.5, device=device)


class Pixels:
    """Images in memory, in place of windows of speech."""

    context = Context(0, 0)

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels, self.offsets = torch.from_numpy(pixels), np.array([0, len(pixels)])

    def inputs(self, frames: torch.Tensor, length: int = 1) -> torch.Tensor:
        return self._pixels[frames].float().div(255).unsqueeze(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("members", 5), ("layers", 2), ("width", 320), ("states", 400), ("batch", 1024),
                        ("frames", 60_000), ("threads", 2)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--lda-dims", type=int, default=0)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--tdnn", action="store_true", help="the time-delay net of that width, in place of the dnn")
    options = parser.parse_args()
    choose_mkl_code_path(cpu_flags())
    disable_malloc_trim()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        if options.digits:
            digits(options)
        else:
            speech(options, Path(name))


def speech(options: argparse.Namespace, folder: Path) -> None:
    rng = np.random.default_rng(0)
    source = ArrayFrames([rng.normal(size=(LENGTH, 40)) for _ in range(options.frames // LENGTH)])
    labels = rng.integers(0, options.states, source.num_frames)
    criteria = {
        "hard": HardTargets(labels, torch.device("cpu")),
        "soft": soft_criterion(folder, labels, options.states),
    }
    if options.tdnn:
        tdnn = TdnnConfig(width=options.width, dropout=options.dropout)
        measure(options, tdnn, WindowedFrames(source, tdnn.context), 40, options.states, criteria, None)
        return
    dnn = DnnConfig(
        layers=options.layers, width=options.width, hidden_dropout=options.dropout, lda_dims=options.lda_dims
    )
    measure(options, dnn, WindowedFrames(source, dnn.context), 40, options.states, criteria, floor_of(options, dnn, 40))


def digits(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    labels, pixels = rng.integers(0, 10, options.frames), rng.integers(0, 256, (options.frames, 784))
    dnn = DnnConfig(
        layers=options.layers,
        width=options.width,
        left_context=0,
        right_context=0,
        input_dropout=0.1,
        hidden_dropout=0.3,
        max_norm=3.0,
    )
    windows, criteria = Pixels(pixels.astype(np.uint8)), {"hard": HardTargets(labels, torch.device("cpu"))}
    measure(options, dnn, windows, 784, 10, criteria, floor_of(options, dnn, 784, num_outputs=10))


def floor_of(options: argparse.Namespace, dnn: DnnConfig, num_dims: int, num_outputs: int | None = None) -> float:
    """Seconds of the products of one step, printed."""
    dtype = compute_dtype("auto", torch.device("cpu"))
    num_inputs = dnn.lda_dims or num_dims * dnn.context.width
    sizes = [num_inputs, *[options.width] * options.layers, num_outputs or options.states]
    floor = floor_seconds(options.members, sizes, options.batch, dtype, 20)
    pairs = list(itertools.pairwise(sizes))
    flops = 2 * options.members * options.batch * (3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1])
    print(f"{options.members} x {sizes}, batch {options.batch}, {options.threads} threads, {dtype}")
    print(f"products alone  {floor * 1e3:7.2f} ms a step  {flops / floor / 1e9:6.0f} GFLOP/s")
    return floor


def measure(
    options: argparse.Namespace,
    settings: DnnConfig | TdnnConfig,
    windows: Windows,
    num_dims: int,
    num_senones: int,
    criteria: Mapping[str, Criterion],
    floor: float | None,
) -> None:
    for kind, criterion in criteria.items():
        transform = random_transform(num_dims * settings.context.width, getattr(settings, "lda_dims", 0))
        seeds = list(range(options.members))
        model = build_model(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds, transform=transform)
        seconds = step_seconds(model, windows, criterion, options.batch)
        share = "" if floor is None else f"  {seconds / floor:.2f} of the floor"
        print(f"loop, {kind}      {seconds * 1e3:7.2f} ms a step  {options.batch / seconds:8.0f} examples/s{share}")


if __name__ == "__main__":
    main()
