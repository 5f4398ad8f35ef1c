"""Where the time of recognising goes on one core: features, net and search, by each program that can do it.

    python benchmarks/bench_runtime.py --model RECOGNISER [--package SHERPA] [--most 60] [--decoder NAME] RECORDING...

RECOGNISER was written by `asr-kd export SYSTEM DIR --format recogniser`, SHERPA by the same with `--format sherpa`: its
offline model and sherpa-onnx do all three steps in one. Each step is run once before it is timed, and gets the same
recordings one after the other. "share" is of features, the first net and the first search together.

The net's floor are its products: a multiplication and an addition for each weight and frame. A processor with AVX2 does
32 of these in a cycle, about 90 GFLOP/s at 2.8 GHz. onnxruntime's rows normalise too.

Measured with the distilled 3 x 384 net of recipes/librispeech's mini.yaml (1.16 M parameters, a graph of 5.9 M arcs,
beam 11, at most 4,500 active states) on 30 recordings of test-clean, on one core of an AMD EPYC with avx512_bf16 and
nothing beside it:

    30 recordings, 226.9 s of speech; one thread
    step      program                          times real time   share  note
    features  lhotse                                    3911.5    1.6%
    net       torch 1.13.1+cu117                         449.7   14.3%  104.1 GFLOP/s
    net       onnxruntime float32                        405.3   15.9%  93.8 GFLOP/s
    net       onnxruntime int8                          1018.6    6.3%  235.8 GFLOP/s
    search    native                                      76.6   84.0%  601 words
    search    kaldi                                       26.7  241.2%  601 words
    search    k2                                          36.9  174.3%  602 words
    features, first net, first search: 64.4 times real time

The demo's nets (recipes/prompts, seed 1, the beams of its config), every fourth recording of its test set, with other
work of low priority beside them; first the small net, then the larger one's rows that differ most:

    40 recordings, 84.4 s of speech; one thread
    step      program                          times real time   share  note
    features  lhotse                                    5605.4    2.0%
    net       torch 1.13.1+cu117                        1087.2   10.3%  45.5 GFLOP/s
    net       onnxruntime float32                       1698.9    6.6%  71.0 GFLOP/s
    net       onnxruntime int8                          3110.2    3.6%  130.0 GFLOP/s
    search    native                                     127.7   87.7%  188 words
    search    kaldi                                       34.0  329.2%  188 words
    search    k2                                          35.8  312.5%  188 words
    all       sherpa-onnx model.onnx                      33.4  335.4%  distilled-small, 188 words
    all       sherpa-onnx model.int8.onnx                 32.2  347.5%  distilled-small, 188 words
    features, first net, first search: 112.0 times real time

    net       torch 1.13.1+cu117                         718.6   21.4%  83.9 GFLOP/s
    search    native                                     203.0   75.8%  189 words
    all       sherpa-onnx model.onnx                      50.1  306.9%  distilled, 189 words
    features, first net, first search: 153.8 times real time

With other programs beside the LibriSpeech net its search suffers most, as it waits for memory: native 50.5, kaldi 14.6,
k2 28.3 and 42.8 in all, in a run beside two others.

Nothing puts recordings or pieces of them together in batches. With `--decoder native --most 40` (283.7 s of test-clean,
other programs beside it) torch computes eight recordings at once more slowly than one by one, and the net's share
bounds what any batch could save:

    net               one by one   eight at once   share   without any net
    distilled-small        460.4           369.0    8.6%    1.09 times faster
    distilled, 3 x 384     439.3           345.2   11.6%    1.13 times faster
"""

from __future__ import annotations

import argparse
import os

from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags

os.environ.setdefault("OMP_NUM_THREADS", "1")
choose_mkl_code_path(cpu_flags())  # before torch is loaded, as the commands do

# isort: split
import importlib.util  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

import asr_kd  # noqa: E402
from asr_kd.decoding.decoder import make_decoder  # noqa: E402
from asr_kd.decoding.settings import BACKENDS  # noqa: E402
from asr_kd.export.onnx_acoustic import Description, utterance_model  # noqa: E402
from asr_kd.export.onnx_graph import save  # noqa: E402
from asr_kd.export.onnx_run import OnnxModel  # noqa: E402
from asr_kd.export.quantise import quantise_dynamic  # noqa: E402
from asr_kd.runtime.recogniser import Recogniser  # noqa: E402

Row = tuple[str, str, float, str]  # step, program, seconds, note

_BATCH = 8  # recordings


def timed(run: Callable[[Any], Any], inputs: Sequence[Any]) -> tuple[float, list[Any]]:
    """Seconds, and what was answered."""
    run(inputs[0])
    started = time.perf_counter()
    answers = [run(each) for each in inputs]
    return time.perf_counter() - started, answers


def steps(recogniser: Recogniser, recordings: Sequence[np.ndarray], decoders: Sequence[str]) -> Iterator[Row]:
    """Rows of the table."""
    parts, frames = recogniser.parts, 0
    seconds, features = timed(recogniser.features, recordings)
    yield "features", "lhotse", seconds, ""
    normalised = [parts.normalisation.of_unknown_speaker(each) for each in features]
    frames = sum(map(len, normalised))
    gigaflops = 2e-9 * parts.model.members * parts.model.products_per_frame * frames
    seconds, loglikes = timed(recogniser.loglikes, normalised)
    yield "net", f"torch {torch.__version__}", seconds, f"{gigaflops / seconds:.1f} GFLOP/s"
    together = [np.concatenate(normalised[first : first + _BATCH]) for first in range(0, len(normalised), _BATCH)]
    seconds, _ = timed(recogniser.loglikes, together)
    yield "net", f"torch, {_BATCH} recordings at once", seconds, f"{gigaflops / seconds:.1f} GFLOP/s"
    with tempfile.TemporaryDirectory() as folder:
        float32, int8 = Path(folder) / "model.onnx", Path(folder) / "model.int8.onnx"
        description = Description("bench", recogniser.sampling_rate, recogniser.settings.running_seconds, {})
        save(utterance_model(parts.model, parts.normalisation, description), float32)
        quantise_dynamic(float32, int8)
        for path, name in ((float32, "onnxruntime float32"), (int8, "onnxruntime int8")):
            seconds, _ = timed(OnnxModel(path).log_posteriors, [each.astype(np.float32) for each in features])
            yield "net", name, seconds, f"{gigaflops / seconds:.1f} GFLOP/s"
    settings = recogniser.settings
    for name in decoders:
        decoder = make_decoder(name, parts.graph, settings.decoding, acoustic_scale=settings.acoustic_scale,
                               word_penalty=settings.word_penalty)  # fmt: skip
        seconds, hypotheses = timed(lambda array, decoder=decoder: decoder.decode([array])[0], loglikes)
        yield "search", name, seconds, f"{sum(len(each.words) for each in hypotheses)} words"


def whole(package: Path, recordings: Sequence[np.ndarray], max_active: int) -> Iterator[Row]:
    """sherpa-onnx, which does all steps."""
    from asr_kd.export.sherpa_run import SherpaRecogniser

    result = json.loads((package / "export.json").read_text(encoding="utf-8"))
    for name in ("model.onnx", "model.int8.onnx"):
        model = OnnxMetadata(package / name)
        recogniser = SherpaRecogniser(package, name, sampling_rate=model["sampling_rate"],
                                      num_mel_bins=model["num_mel_bins"], max_active=max_active)  # fmt: skip
        seconds, answers = timed(recogniser.recognise, recordings)
        count = sum(len(answer.words) for answer in answers)
        yield "all", f"sherpa-onnx {name}", seconds, f"{result['system']}, {count} words"


class OnnxMetadata(dict[str, int]):
    """Numbers that a file says of itself."""

    def __init__(self, path: Path) -> None:
        import onnx

        entries = onnx.load(str(path)).metadata_props
        super().__init__({entry.key: int(entry.value) for entry in entries if entry.value.isdigit()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--package", type=Path)
    parser.add_argument("--most", type=int, default=60, help="recordings")
    installed = [name for name in sorted(BACKENDS, reverse=True) if BACKENDS[name].installed]
    parser.add_argument("--decoder", dest="decoders", action="append", choices=installed, help="repeated; all")
    parser.add_argument("recordings", nargs="+", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recogniser = asr_kd.load(options.model)
    recordings = [recogniser.read(path) for path in options.recordings[: options.most]]
    speech = sum(map(len, recordings)) / recogniser.sampling_rate
    rows = list(steps(recogniser, recordings, options.decoders or installed))
    if options.package is not None and importlib.util.find_spec("sherpa_onnx") is not None:
        rows += whole(options.package, recordings, recogniser.settings.decoding.max_active)
    first: dict[str, float] = {}
    for step, _, seconds, _ in rows:
        first.setdefault(step, seconds)
    total = first["features"] + first["net"] + first["search"]
    print(f"{len(recordings)} recordings, {speech:.1f} s of speech; one thread")
    print(f"{'step':<10}{'program':<32}{'times real time':>16}{'share':>8}  note")
    for step, program, seconds, note in rows:
        print(f"{step:<10}{program:<32}{speech / seconds:>16.1f}{seconds / total:>8.1%}  {note}")
    print(f"features, first net, first search: {speech / total:.1f} times real time")


if __name__ == "__main__":
    main()
