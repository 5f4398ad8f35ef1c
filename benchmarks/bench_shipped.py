"""What is shipped, beside pocketsphinx: size, word errors, speed on one core and latency, on the same recordings.

    python benchmarks/bench_shipped.py --cuts WORK/data/cuts_test.jsonl.gz [--every 4] [--pocketsphinx] MODEL...

MODEL was written by `asr-kd export SYSTEM DIR --format recogniser`. A row is a model and the mean that is subtracted:
of a speaker's recordings together, of each recording, or the running one of a stream, which is what it would be on a
phone. "net" and "all" are megabytes of the model and of the folder, which has the decoding graph too; "times real time"
is all that recognising takes on one thread, from samples to words; "latency" from a sound to its words.

pocketsphinx (`pip install 'asr_kd[bench]'`) runs with the American English model and the language model that come with
it, and recordings at its 16 kHz. They were made from other speech and other text, so that word errors compare two
products and not two methods.
"""

from __future__ import annotations

import os

from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags

os.environ.setdefault("OMP_NUM_THREADS", "1")
choose_mkl_code_path(cpu_flags())  # before torch is loaded, as the commands do

# isort: split
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from utterances import Utterance, parser, speakers_of  # noqa: E402

import asr_kd  # noqa: E402
from asr_kd.evaluation.wer import WordErrors, align_words, count_errors  # noqa: E402
from asr_kd.runtime.recogniser import Recogniser  # noqa: E402

Samples = np.ndarray  # (n,) float32
Recognise = Callable[[Sequence[Samples]], list[list[str]]]  # recordings of one speaker -> the words of each

_SPHINX_RATE = 16000


@dataclass(frozen=True)
class Row:
    """What a model made of all recordings."""

    name: str
    mean: str
    net: int  # bytes
    size: int  # bytes
    errors: WordErrors
    speed: float  # times real time
    latency: float | None  # seconds

    def __str__(self) -> str:
        latency = "" if self.latency is None else f"{1000 * self.latency:.0f} ms"
        return (
            f"| {self.name} | {self.mean} | {self.net / 1e6:.2f} | {self.size / 1e6:.1f} | {self.errors.wer:.1%} | "
            f"{self.errors.insertions} / {self.errors.deletions} / {self.errors.substitutions} | {self.speed:.1f} | "
            f"{latency} |"
        )


def measured(speakers: Sequence[Sequence[Utterance]], recognise: Recognise, rate: int) -> tuple[WordErrors, float]:
    """Word errors, and how many times faster than the speech it was."""
    errors, seconds = WordErrors(), 0.0
    for utterances in speakers:
        started = time.perf_counter()
        hypotheses = recognise([utterance.samples for utterance in utterances])
        seconds += time.perf_counter() - started
        for utterance, words in zip(utterances, hypotheses, strict=True):
            errors += count_errors(align_words(utterance.words, words))
    speech = sum(len(utterance.samples) for utterances in speakers for utterance in utterances) / rate
    return errors, speech / seconds


def streamed(recogniser: Recogniser, samples: Samples) -> list[str]:
    """The words of a stream that gets a tenth of a second at a time."""
    stream = recogniser.stream()
    block = recogniser.sampling_rate // 10
    updates = [stream.accept(samples[first : first + block]) for first in range(0, len(samples), block)]
    updates.append(stream.finish())
    return [word.word for update in updates for stretch in update.finished for word in stretch.words]


def rows_of(folder: Path, cuts: Path, every: int) -> Iterator[Row]:
    """One for each kind of mean."""
    recogniser = asr_kd.load(folder)
    net = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    name = str(json.loads((folder / "stamp.json").read_text(encoding="utf-8"))["settings"]["system"])
    speakers = speakers_of(cuts, every, recogniser.sampling_rate)

    def together(recordings: Sequence[Samples]) -> list[list[str]]:
        return [[word.word for word in each.words] for each in recogniser.transcribe_group(recordings)]

    ways: dict[str, Recognise] = {
        "speaker": together,
        "recording": lambda recordings: [together([samples])[0] for samples in recordings],
        "running": lambda recordings: [streamed(recogniser, samples) for samples in recordings],
    }
    for mean, recognise in ways.items():
        errors, speed = measured(speakers, recognise, recogniser.sampling_rate)
        latency = recogniser.stream().latency if mean == "running" else None
        yield Row(name, mean, net, size, errors, speed, latency)


def sphinx_row(cuts: Path, every: int) -> Row:
    """pocketsphinx, with the models that come with it."""
    try:
        import pocketsphinx
    except ImportError:
        raise SystemExit("--pocketsphinx needs pocketsphinx: install it with pip install 'asr_kd[bench]'.") from None
    model = Path(pocketsphinx.get_model_path()) / "en-us"
    decoder = pocketsphinx.Decoder(samprate=_SPHINX_RATE, loglevel="FATAL")

    def words(samples: Samples) -> list[str]:
        decoder.start_utt()
        decoder.process_raw((samples * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return [] if hypothesis is None else hypothesis.hypstr.upper().split()

    speakers = speakers_of(cuts, every, _SPHINX_RATE)
    errors, speed = measured(speakers, lambda recordings: [words(each) for each in recordings], _SPHINX_RATE)
    sizes = {path: path.stat().st_size for path in model.rglob("*") if path.is_file()}
    net = sum(size for path, size in sizes.items() if path.parent != model)
    version = importlib.metadata.version("pocketsphinx")
    return Row(f"pocketsphinx {version}", "its own", net, sum(sizes.values()), errors, speed, None)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--pocketsphinx", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    print("| system | mean | net, MB | all, MB | WER | ins / del / sub | times real time | latency |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for folder in options.models:
        for row in rows_of(folder, options.cuts, options.every):
            print(row, flush=True)
    if options.pocketsphinx:
        print(sphinx_row(options.cuts, options.every))


if __name__ == "__main__":
    main()
