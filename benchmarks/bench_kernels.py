"""What each numba kernel wins of a whole training step: the step with all kernels, and with this one in torch.

    python benchmarks/bench_kernels.py [--case speech|mnist] [--precision float32|bfloat16] [--rounds 15] [--threads 2]

A step is a batch's forward and backward pass, the optimiser and max-norm, on inputs that are already there. The two
kinds of steps alternate; medians are compared, of elapsed time and, for busy machines, of processor time. The speech
case: four nets of 3 x 384, 1000 senones, batches of 512, dropout 0.1, max-norm. The MNIST case: one net of 2 x 1200,
dropout on the input too, max-norm, batches of 128.

A kernel that wins less than a tenth of a step in its best case is not worth its code. With torch 1.13.1 on two AVX2
cores of an AMD EPYC, the win of a step in float32, elapsed / processor time (--rounds 11; mnist: 15):

    kernel                speech          mnist
    adamw                 6 / 8 %         15 / 13 %    stays
    soft_cross_entropy    17 / 16 %       0 / 0 %      stays
    cross_entropy         7 / 7 %         2 / -4 %     stays
    dropout_mask          5 / 6 %         9 / 9 %      stays
    all of them, hard     19 / 19 %       23 / 21 %
    all of them, soft     25 / 24 %       23 / 21 %

With avx512_bf16, in bfloat16 (--rounds 9; mnist: 11), with other work of low priority beside it:

    kernel                speech          mnist
    adamw                 10 / 10 %       20 / 23 %
    soft_cross_entropy    15 / 17 %       2 / 1 %
    cross_entropy         8 / 8 %         1 / 1 %
    dropout_mask          12 / 11 %       10 / 5 %
    all of them, hard     27 / 27 %       26 / 26 %
    all of them, soft     30 / 30 %       28 / 26 %

By that rule cross_entropy would go. It stays, since a step may not become 3 % slower either, and it wins 8.

These went. Measured beside other work, elapsed / processor time, or processor time alone where elapsed times scattered:

    relu_dropout          1 / 1 %         - / 3 %      by itself 3.9 ms against 3.9, in bfloat16 6.5 against 3.0
    clip_column_norms_    1 / 2 %         - / 5 %
    ensemble_log_mean     - / 0 %         - / 0 %      by itself 10 ms against 14 of a step of 220
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags, disable_malloc_trim

choose_mkl_code_path(cpu_flags())  # before torch is loaded, as the commands do
disable_malloc_trim()

import torch  # noqa: E402

from asr_kd.acoustic.member_linear import ShadowWeights  # noqa: E402
from asr_kd.acoustic.model import build_model, has_bfloat16  # noqa: E402
from asr_kd.acoustic.rng import StepRng  # noqa: E402
from asr_kd.acoustic.settings import DnnConfig  # noqa: E402
from asr_kd.kernels.optimizer import adamw  # noqa: E402
from asr_kd.kernels.softmax import cross_entropy, soft_cross_entropy  # noqa: E402
from asr_kd.kernels.switch import KERNELS, VARIABLE  # noqa: E402

CPU = torch.device("cpu")
SOFT = frozenset({"soft_cross_entropy"})


def speech(precision: str) -> dict[str, Callable[[int], None]]:
    """Steps by name."""
    settings = DnnConfig(layers=3, width=384, hidden_dropout=0.1, max_norm=3.0)
    return _steps(settings, precision, dims=40, classes=1000, members=4, batch=512)


def mnist(precision: str) -> dict[str, Callable[[int], None]]:
    """Steps by name."""
    settings = DnnConfig(
        layers=2, width=1200, left_context=0, right_context=0, input_dropout=0.1, hidden_dropout=0.3, max_norm=3.0
    )
    return _steps(settings, precision, dims=784, classes=10, members=1, batch=128)


def _steps(
    settings: DnnConfig, precision: str, *, dims: int, classes: int, members: int, batch: int
) -> dict[str, Callable[[int], None]]:
    torch.manual_seed(0)
    model = build_model(settings, num_dims=dims, num_senones=classes, seeds=list(range(members))).train()
    model.precision = precision  # type: ignore[assignment]
    shadows = ShadowWeights(model, model.compute_dtype)
    shadows.__enter__()
    optimizers = {
        where: _optimizer(where, model, shadows) for where in ("numba", "torch")
    }  # both exist throughout: only one of them steps
    inputs = torch.randn(batch, settings.context.width, dims)
    senones = torch.randint(classes, (batch,))
    targets = (3 * torch.randn(batch, classes)).log_softmax(-1)
    weights = torch.full((batch,), 1 / batch)

    def step(number: int, soft: bool) -> None:
        logits = model(inputs, StepRng(0, number, CPU))
        if soft:
            loss = soft_cross_entropy(
                logits, targets, senones, soft_weights=weights, hard_weights=weights, temperature=2.0
            ).loss
        else:
            loss = cross_entropy(logits, senones, weights.expand(members, -1))[0]
        enabled = os.environ[VARIABLE].split(",")
        optimizer = optimizers["numba" if "adamw" in enabled else "torch"]
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
        model.apply_constraints()

    return {"hard": lambda number: step(number, False), "soft": lambda number: step(number, True)}


def _optimizer(where: str, model: torch.nn.Module, shadows: ShadowWeights) -> torch.optim.Optimizer:
    os.environ[VARIABLE] = where
    return adamw(model.parameters(), lr=1e-4, weight_decay=0.0, copies=shadows.copies)


Times = tuple[float, float]  # milliseconds of a step: elapsed, and of the processor (all threads together)


def timed(step: Callable[[int], None], enabled: frozenset[str], number: int) -> Times:
    """One step with these kernels in numba."""
    os.environ[VARIABLE] = ",".join(sorted(enabled)) or "torch"
    elapsed, busy = time.perf_counter(), time.process_time()
    step(number)
    return 1000 * (time.perf_counter() - elapsed), 1000 * (time.process_time() - busy)


def compare(step: Callable[[int], None], other: frozenset[str], rounds: int) -> tuple[Times, Times]:
    """Medians: with all kernels, and with `other` alone."""
    times: tuple[list[Times], list[Times]] = ([], [])
    for number in range(-2, rounds):
        for which, enabled in enumerate((KERNELS, other)):
            spent = timed(step, enabled, number + 2)
            if number >= 0:  # the first two warm up, and compile
                times[which].append(spent)
    elapsed_and_busy = [tuple(statistics.median(column) for column in zip(*rows)) for rows in times]
    return elapsed_and_busy[0], elapsed_and_busy[1]  # type: ignore[return-value]


def line(name: str, with_it: Times, without: Times) -> str:
    shares = [100 * (b - a) / b for a, b in zip(with_it, without)]
    return (
        f"  {name:20} elapsed {with_it[0]:7.1f} instead of {without[0]:7.1f} ms ({shares[0]:5.1f} %), "
        f"processor {with_it[1]:7.1f} instead of {without[1]:7.1f} ms ({shares[1]:5.1f} %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("speech", "mnist"), default="speech")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    emulated = options.precision == "bfloat16" and not has_bfloat16("cpu")
    print(f"{options.case}, {options.precision}{' (emulated: its products are slow)' if emulated else ''}")
    steps = {"speech": speech, "mnist": mnist}[options.case](options.precision)
    used = {"hard": KERNELS - SOFT, "soft": SOFT}  # the others cost the same in both
    for targets, step in steps.items():
        print(targets)
        print(line("all", *compare(step, frozenset(), options.rounds)), flush=True)
        for kernel in sorted(used[targets]):
            print(line(kernel, *compare(step, KERNELS - {kernel}, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
