"""How far a training step is from the bare matrix products that it cannot do without.

    python benchmarks/bench_training.py [--members 5] [--layers 2] [--width 320] [--batch 1024] [--threads 2] ...
    python benchmarks/bench_training.py --digits --members 1 --width 1200 --batch 256

The floor: the products of forward and backward pass alone (three per layer, two for the first, whose input needs no
gradient), of the same shapes, in the same number format, on tensors that are already there. The loop does them and
gathers windows, draws dropout, takes the loss and its gradient, and steps the optimiser. `hard` trains on states,
`soft` on a store of soft targets as `asr-kd soft-targets` writes it (32 entries a frame). With --digits the examples
are images of 784 pixels, shifted at random, with dropout on the input too, as the MNIST teacher has them. With
--lda-dims the first layer is as wide as that, and the loop makes the discriminants besides, once for all members.

Measured with torch 1.13.1 on two cores of an AMD EPYC, milliseconds a step.

With avx512_bf16: the first command 34.5 for the products alone, 46.9 hard (1.36 times), 51.0 soft (1.48 times); with
--members 3 --layers 3 --width 384 --states 1000 43.2, 58.7 (1.36 times) and 61.4 (1.42 times); the digits 8.2 and 13.0,
8.2 and 13.6 (1.58 and 1.66 times), on one core 15.6 and 22.3 (1.43 times); with --members 3 --width 800, the students,
13.2 and 20.4 (1.55 times). Without turned inputs laid out beforehand, as autograd has it, the digits' products take 9.1
to 9.5. With batches as small as theirs the weights weigh more: a step moves 32 bytes of each, 77 MB.

With AVX2 only, so in float32: the first command 103, 103 (1.00 times) and 105 (1.02 times; the loop does the first
layer's products of all members at once, the floor one by one); the digits 18.9 and 26.5 (1.40 times). Four nets as
above, with --dropout 0.1 too, 142, 163 (1.14 times) and 178 (1.25 times). With --batch 512 --frames 20000 as well,
medians of three runs: four nets 67.9, 82.9 (1.22 times) and 89.4 (1.32 times); three 68.6, 62.6 and 65.4: the threads
share the last net's products, which they do not in the floor. The version before took, turn about on the same
machine, 84.3 and 87.8 for the four, 66.1 and 69.1 for the three: it had torch's own passes for hard targets, bias,
ReLU and dropout, and copied the first layer's weights in each step; for the digits 30.6, one run each. On another day,
turn about and medians of three too, four nets took 94.8 hard as above and 94.1 with --lda-dims 700. With
MKL_DEBUG_CPU_TYPE=0, the code path that MKL 2020.0 takes on an AMD processor by itself (`asr_kd/processor.py`), three
nets took 450, 553 and 532, and 144, 168 and 165 otherwise.
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

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.lda import made_up_transform
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.precision import compute_dtype
from asr_kd.acoustic.training import Augment, Examples, Objective, fit
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, truncate
from asr_kd.distillation.targets import DistillationObjective, StoredTargets
from asr_kd.frames.store import write_store
from asr_kd.frames.windows import WindowedFrames
from asr_kd.mnist.data import SIDE, Digits
from asr_kd.mnist.images import Images, Shift
from asr_kd.workspace.config import ModelConfig, TrainingConfig

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


def step_seconds(
    model: AcousticModel, examples: Examples, objective: Objective, batch: int, augment: Augment | None
) -> float:
    """Of one step of the loop: the mean over an epoch, best of three."""
    settings = TrainingConfig(batch_size=batch, epochs=1)
    best = float("inf")
    for _ in range(3):
        progress = fit(model, examples, objective, settings, seed=1, augment=augment)
        best = min(best, progress.rows[-1]["seconds"] / progress.step)
    return best


def soft_objective(folder: Path, states: np.ndarray, num_states: int, device: torch.device) -> Objective:
    rng = torch.Generator().manual_seed(0)
    writer = SoftTargetWriter(folder, num_states, np.full(num_states, 1 / num_states, np.float32), exact=False)
    for _ in range(len(states) // LENGTH):
        logits = 2.0 * torch.randn(LENGTH, num_states, generator=rng)
        writer.append(truncate(logits.log_softmax(-1), keep_mass=0.99, max_entries=32))
    writer.close()
    store = SoftTargetStore(folder, temperature=2.0, num_frames=len(states), device=device)
    return DistillationObjective(StoredTargets(store), states, soft_weight=0.5, loss="kl", device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("members", 5), ("layers", 2), ("width", 320), ("states", 400), ("batch", 1024),
                        ("frames", 60_000), ("threads", 2)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--lda-dims", type=int, default=0)
    parser.add_argument("--digits", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as name:
        if options.digits:
            digits(options, device)
        else:
            speech(options, device, Path(name))


def speech(options: argparse.Namespace, device: torch.device, folder: Path) -> None:
    rng = np.random.default_rng(0)
    utterances = [(f"u{k}", rng.normal(size=(LENGTH, 40))) for k in range(options.frames // LENGTH)]
    states = rng.integers(0, options.states, len(utterances) * LENGTH)
    shape = ModelConfig(
        layers=options.layers, width=options.width, hidden_dropout=options.dropout, lda_dims=options.lda_dims
    )
    store = write_store(folder / "frames", utterances, groups=["all"] * len(utterances))
    examples = WindowedFrames(store, left=shape.left_context, right=shape.right_context)
    (folder / "soft").mkdir()
    objectives = {
        "hard": HardTargets(states, device),
        "soft": soft_objective(folder / "soft", states, options.states, device),
    }
    compare(options, shape, examples, examples.num_inputs, options.states, objectives, None)


def digits(options: argparse.Namespace, device: torch.device) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, options.frames)
    images = Images(Digits(rng.integers(0, 256, (options.frames, SIDE * SIDE)).astype(np.uint8), labels), device)
    shape = ModelConfig(layers=options.layers, width=options.width, input_dropout=0.1, hidden_dropout=0.3, max_norm=3.0)
    compare(options, shape, images, SIDE * SIDE, 10, {"hard": HardTargets(labels, device)}, Shift(2))


def compare(
    options: argparse.Namespace,
    shape: ModelConfig,
    examples: Examples,
    num_inputs: int,
    num_classes: int,
    objectives: Mapping[str, Objective],
    augment: Augment | None,
) -> None:
    dtype = compute_dtype("auto", torch.device("cpu"))
    sizes = [shape.lda_dims or num_inputs] + [options.width] * options.layers + [num_classes]
    floor = floor_seconds(options.members, sizes, options.batch, dtype, 20)
    pairs = list(itertools.pairwise(sizes))
    flops = 2 * options.members * options.batch * (3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1])
    print(f"{options.members} x {sizes}, batch {options.batch}, {options.threads} threads, {dtype}")
    print(f"products alone  {floor * 1e3:7.2f} ms a step  {flops / floor / 1e9:6.0f} GFLOP/s")
    for kind, objective in objectives.items():
        transform = made_up_transform(num_inputs, shape.lda_dims)
        model = AcousticModel(shape, num_inputs, num_classes, list(range(options.members)), transform)
        took = step_seconds(model, examples, objective, options.batch, augment)
        print(
            f"loop, {kind}      {took * 1e3:7.2f} ms a step  {flops / took / 1e9:6.0f} GFLOP/s  "
            f"{options.batch / took:8.0f} examples/s  {took / floor:.2f} of the floor"
        )


if __name__ == "__main__":
    main()
