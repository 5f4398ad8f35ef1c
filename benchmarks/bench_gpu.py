"""How busy training keeps a GPU: frames a second and the share of its bf16 peak, for the paper's net.

    python benchmarks/bench_gpu.py [--config recipes/librispeech/conf/paper.yaml] [--members 1,10] [--peak 312]

The peak is that of dense bf16 products in TFLOP/s, from the maker's data sheet; an A100's unless it is given. The nets
are those of the config's teacher, trained by the package's own loop on drawn frames: windows are gathered, dropout
drawn, the loss and its gradient taken and the optimiser stepped as in real training.
`hard` learns from states, `soft` from a store of 32 entries a frame, which is read while the GPU works.

`asr-kd plan` assumes 35 % of the peak. Not measured yet: no GPU was at hand. With --device cpu the script itself can be
tried anywhere: --frames 3000 --members 1 --senones 50 --width 64.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from bench_training import LENGTH, soft_criterion

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.frames.source import ArrayFrames
from asr_kd.frames.windows import WindowedFrames
from asr_kd.stages.plan import GPU_TFLOPS
from asr_kd.stages.plan_models import SystemPlan
from asr_kd.workspace.config import SystemConfig
from asr_kd.workspace.config_files import load_config

CONFIG = Path(__file__).parents[1] / "recipes" / "librispeech" / "conf" / "paper.yaml"


def measure(plan: SystemPlan, options: argparse.Namespace, folder: Path) -> None:
    """Prints a line for hard and for soft targets."""
    device, rng = torch.device(options.device), np.random.default_rng(0)
    source = ArrayFrames([rng.normal(size=(LENGTH, plan.num_dims)) for _ in range(options.frames // LENGTH)])
    labels = rng.integers(0, plan.num_senones, source.num_frames)
    windows = WindowedFrames(source, plan.system.model.context, device=device)
    store = folder / str(plan.system.num_models)
    store.mkdir()
    criteria = {
        "hard": HardTargets(labels, device),
        "soft": soft_criterion(store, labels, plan.num_senones, device),
    }
    for kind, criterion in criteria.items():
        model = build_model(
            plan.system.model,
            num_dims=plan.num_dims,
            num_senones=plan.num_senones,
            seeds=list(range(plan.system.num_models)),
        ).to(device)
        training = dataclasses.replace(plan.system.training, epochs=3, patience=0, learning_rate=1e-6)
        rows = fit(model, TrainingData(windows), criterion, training, RunControl(seed=1)).rows
        speed = max(float(row["frames_per_second"]) for row in rows[1:])  # the first epoch warms up
        flops = plan.costs.training_flops * plan.system.num_models * speed
        share = f"  {flops / options.peak / 1e12:6.1%} of {options.peak:g} TFLOP/s"
        memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
        print(
            f"{plan.system.num_models:3} members, {kind}: {speed:10,.0f} frames/s  {flops / 1e12:8.2f} TFLOP/s{share}"
            f"  {memory:.1f} GB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--members", default="1,10", help="numbers of members, separated by commas")
    parser.add_argument("--frames", type=int, default=600_000)
    parser.add_argument("--senones", type=int, help="[default: the config's]")
    parser.add_argument("--width", type=int, help="of the layers  [default: the config's]")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak", type=float, default=GPU_TFLOPS, help="TFLOP/s of dense bf16 products")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu tries the script alone")
    config = load_config(options.config)
    teacher = next(iter(config.systems.values()))
    model = dataclasses.replace(teacher.model, **({"width": options.width} if options.width else {}))
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(f"{name}, torch {torch.__version__}, {options.config.name}: {model}, batch {teacher.training.batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        for members in options.members.split(","):
            system = SystemConfig(model=model, members=int(members), training=teacher.training)
            senones = options.senones or config.alignment.leaves
            plan = SystemPlan("teacher", system, config.features.num_mel_bins, senones)
            measure(plan, options, Path(folder))


if __name__ == "__main__":
    main()
