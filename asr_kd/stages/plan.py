"""`asr-kd plan`: what a config will take, before any of it is run: frames, parameters, FLOPs, disk, memory, hours.

Training, which is nearly all of it, is timed on this machine with real steps of the config's own nets, one member of
each; reading, features and Viterbi on made-up speech. Decoding depends on a graph that may not be there yet: what it
takes is scaled from the recipe's measured runs, by the number of n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asr_kd.alignment.segments import left_on_disk
from asr_kd.corpora.openslr import disk_from_nothing
from asr_kd.corpora.openslr_files import OPENSLR
from asr_kd.distillation.soft_target_worker import FRAMES_AT_ONCE
from asr_kd.distillation.store import stored_bytes
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.frames.sampler import BLOCK_FRAMES
from asr_kd.frames.store import store_bytes
from asr_kd.io.formatting import human_bytes
from asr_kd.io.stamp import read_stamp
from asr_kd.lang.graph_size import ARCS_PER_NGRAM, bytes_on_disk, bytes_to_compile, bytes_to_read
from asr_kd.lang.ngram import read_counts
from asr_kd.stages.plan_models import LABEL, PROCESS, UTTERANCE, NetPlan, nets_of, windows_bytes
from asr_kd.stages.plan_rates import audio_rate, feature_rate, training_seconds, viterbi_rate
from asr_kd.workspace.config import Config
from asr_kd.workspace.executor import default_jobs
from asr_kd.workspace.work import Workspace

# Panayotov et al. (2015), table 1; the mini parts from their archives' sizes, at the same bytes an hour
HOURS = {
    "train-clean-100": 100.6, "train-clean-360": 363.6, "train-other-500": 496.7, "dev-clean": 5.4, "dev-other": 5.3,
    "test-clean": 5.4, "test-other": 5.1, "train-clean-5": 5.2, "dev-clean-2": 2.0,
}  # fmt: skip
GPU_TFLOPS = 312.0  # an A100's bf16 peak, from its maker's data sheet
GPU_SHARE = 0.35  # of a GPU's peak that training steps of this kind reach; an assumption
EIGHT = 0.85  # of eight times one GPU's speed; an assumption
SECONDS_OF_UTTERANCE = 12.3  # LibriSpeech's mean
# Measured on 3.5 hours and their graph (recipes/librispeech/RESULTS.md, benchmarks/bench_graph.py): a process that
# makes features; an hour's graphs in the flat start; preparing beside the language model, words said from their
# letters included, and seconds of that; of decoding, a process's bytes for each arc of the graph, what its search
# takes, the real-time factor of a small net, seconds of a core to compile an n-gram.
_HELPER, _GRAPH, _PREPARE, _SECONDS_OF_LETTERS = 0.4e9, 6e6, 0.7e9, 75.0
_BYTES_PER_ARC, _SEARCH, _REAL_TIME_FACTOR, _SECONDS_PER_NGRAM = 105.0, 1.5e9, 0.045, 3.2e-4
# The posteriors of a batch of the report, over all members, and what is made of them: three reports of one run held
# 1.2, 1.5 and 2.4 GB in all, and the plan is of the most.
_POSTERIORS = 1.6e9
# Seconds of a core and a frame: a round of the flat start, the last alignment; and that machine's Viterbi rate.
_ROUND, _LAST_ALIGNMENT, _VITERBI_RATE = 6.0 / 360_000, 2.0 / 360_000, 2.6e6
_OPENSLR_NGRAMS = 1_420_000  # of 3-gram.pruned.3e-7, from its size at 9.6 bytes an n-gram, as those of our own gzipped


@dataclass(frozen=True)
class Row:
    """One stage; None is not known."""

    stage: str
    what: str
    flops: float = 0.0
    disk: float = 0.0  # bytes that it leaves
    memory: float | None = None  # bytes at once, of all its processes
    seconds: float | None = None  # on this machine
    gpu: bool = False  # whether it runs on one

    def cells(self, gpu_tflops: float) -> list[str]:
        """Its line of the table."""
        gpu = self.flops / (gpu_tflops * 1e12 * GPU_SHARE) if self.gpu else None
        return [
            self.stage,
            self.what,
            f"{self.flops:.1e}" if self.flops else "",
            human_bytes(self.disk) if self.disk else "",
            human_bytes(self.memory) if self.memory else "",
            _hours(self.seconds),
            _hours(gpu),
            _hours(None if gpu is None else gpu / (8 * EIGHT)),
        ]


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds / 3600:.3g} h" if seconds >= 360 else f"{seconds / 60:.2g} min"


_DIRECT = ("train", "train --pair small")
_AT_ONCE = "on CPUs train and distill run at once unless --nj is 1: their memory adds up, and they take less time"


@dataclass(frozen=True)
class Plan:
    """All of it; `str` is the table."""

    frames: int
    rows: list[Row]
    gpu_tflops: float = GPU_TFLOPS

    def __str__(self) -> str:
        head = ["stage", "what", "FLOPs", "disk", "memory", "here", "1 GPU", "8 GPUs"]
        lines = [head, *(row.cells(self.gpu_tflops) for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        table = [
            "  ".join(cell.ljust(w) if k < 2 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths)))
            for line in lines
        ]
        known = sum(row.seconds or 0.0 for row in self.rows)
        disk = sum(row.disk for row in self.rows)
        hours = self.frames * FRAME_SHIFT / 3600
        return "\n".join(
            [
                f"{self.frames:,} training frames ({hours:.1f} hours, altered copies included)",
                *(line.rstrip() for line in table),
                f"together {human_bytes(disk)} of disk and {_hours(known)} on this machine, of {default_jobs()} cores; "
                "fetching comes on top",
                f"decoding is scaled from a measured graph and its beams: a real-time factor of {_REAL_TIME_FACTOR:g} "
                "on one core for each net",
                *([_AT_ONCE] if any(row.flops and row.stage in _DIRECT for row in self.rows) else []),
                f"a GPU is one of {self.gpu_tflops:g} TFLOP/s, of which {GPU_SHARE:.0%} is assumed to be reached; "
                f"eight are assumed to be {8 * EIGHT:.1f} times one",
            ]
        )


@dataclass(frozen=True)
class Speech:
    """Hours of each set, without altered copies; training frames with them."""

    train: float
    dev: float
    test: float
    frames: int

    @property
    def utterances(self) -> float:
        """Of all sets."""
        return (self.train + self.dev + self.test) * 3600 / SECONDS_OF_UTTERANCE

    @property
    def scored(self) -> float:
        """Seconds of dev and test."""
        return (self.dev + self.test) * 3600


def plan(
    config: Config, work: Workspace, *, gpu_tflops: float = GPU_TFLOPS, measure: bool = True, prepared: bool = True
) -> Plan:
    """Counts, and with `measure` times, every stage.

    Args:
      prepared: whether what data/ holds is planned for, where there is something, and not the config's parts.
      gpu_tflops: peak speed of the GPU whose hours are given, 10^12 operations a second.

    Raises:
      UserError: how much speech there is can be known neither from data/ nor from the names of LibriSpeech's parts.
    """
    speech = _speech(config, work, prepared=prepared)
    nets = list(nets_of(config))
    rows = [*_before_training(config, speech, measure=measure)]
    forward: list[tuple[NetPlan, float | None]] = []  # with the seconds of a frame of one member
    for net in nets:
        if net.taken:
            what, disk = f"the ensemble's first {net.members}", 4.0 * net.members * net.parameters
            rows.append(Row(net.name, what, 0.0, disk, PROCESS + disk, 0.0 if measure else None))
            forward.append((net, forward[0][1]))
            continue
        frames = net.share * speech.frames
        seconds = training_seconds(net, frames) if measure else None
        flops = net.flops_per_frame * frames * net.members * net.training.epochs
        share = f" of {net.share:g} of the frames" if net.share < 1 else ""
        what = f"{net.members} x {net.parameters:,} parameters, {net.training.epochs} epochs{share}"
        memory = net.memory(speech.frames, config.features.num_mel_bins)
        rows.append(Row(net.name, what, flops, 4.0 * net.members * net.parameters, memory, seconds, gpu=True))
        forward.append((net, _forward_seconds(net, frames, seconds)))
        if net.name == "train --ensemble":
            rows.append(_soft_targets(config, net, speech, forward[0][1]))
    scored = [(net, seconds) for net, seconds in forward if not net.name.startswith("fewshot")]
    rows += [_decode(work, scored, speech, measure=measure), _report(config, scored, speech)]
    return Plan(speech.frames, rows, gpu_tflops)


def _forward_seconds(net: NetPlan, frames: float, seconds: float | None) -> float | None:
    """Of one member and frame: the forward pass's share of a training epoch."""
    if seconds is None:
        return None
    return seconds / (frames * net.members * net.training.epochs) * net.forward_flops / net.flops_per_frame


def _speech(config: Config, work: Workspace, *, prepared: bool) -> Speech:
    corpus, copies = config.corpus, sum(1 / speed for speed in config.features.speeds)
    there = read_stamp(work.data) if prepared and work.data.exists() else None
    if there is not None:
        sets = there["metadata"]["sets"]
        hours = {name: float(sets[name]["minutes"]) / 60 if name in sets else 0.0 for name in ("train", "dev", "test")}
    else:
        parts = {"train": corpus.train_parts, "dev": corpus.dev_parts, "test": corpus.test_parts}
        unknown = [part for of_set in parts.values() for part in of_set if part not in HOURS]
        if corpus.name != "librispeech" or unknown:
            raise UserError(
                f"how much speech there is to train on is not known yet; make the cuts first: {work.command('prepare')}"
            )
        hours = {name: sum(HOURS[part] for part in of_set) for name, of_set in parts.items()}
    return Speech(hours["train"], hours["dev"], hours["test"], round(hours["train"] * 3600 / FRAME_SHIFT * copies))


def _before_training(config: Config, speech: Speech, *, measure: bool) -> Iterator[Row]:
    cores, bins = default_jobs(), config.features.num_mel_bins
    if config.corpus.name == "librispeech":
        corpus = config.corpus
        wanted = dict.fromkeys((*corpus.train_parts, *corpus.dev_parts, *corpus.test_parts))
        parts = [part for part in wanted if part in OPENSLR.parts]
        fetched, most, left = disk_from_nothing(parts)
        what = f"{len(parts)} parts of OpenSLR, {human_bytes(fetched)}; {human_bytes(most)} of disk on the way"
        yield Row("download", what, disk=left)
    guessing = config.lang.units == "phones" and config.lang.guess_pronunciations
    seconds = None
    if measure:
        hours = speech.train + speech.dev + speech.test
        seconds = hours * 3600 / (audio_rate(config) * cores) + _SECONDS_OF_LETTERS * guessing
    memory = _PREPARE + bytes_to_read(_OPENSLR_NGRAMS) + UTTERANCE * speech.utterances
    yield Row(
        "prepare", "cuts, lexicon, language model", disk=400.0 * speech.utterances, memory=memory, seconds=seconds
    )

    utterances = round(speech.train * 3600 / SECONDS_OF_UTTERANCE * len(config.features.speeds))
    frames = speech.frames + round(speech.scored / FRAME_SHIFT)
    stored = store_bytes(frames, utterances + round(speech.scored / SECONDS_OF_UTTERANCE), bins)
    seconds = frames / (feature_rate(config) * cores) if measure else None
    yield Row("features", f"{bins} log-mel filterbanks", disk=stored, memory=(1 + cores) * _HELPER, seconds=seconds)

    subset = min(config.alignment.subset_hours, speech.train)
    of_subset = subset * 3600 / FRAME_SHIFT
    rounds = config.alignment.linear_rounds + config.alignment.rounds
    there = config.alignment.phases * frames * _LAST_ALIGNMENT + rounds * of_subset * _ROUND
    seconds = there * _VITERBI_RATE / viterbi_rate() / cores if measure else None
    held = speech.frames if speech.frames <= BLOCK_FRAMES else round(of_subset)
    memory = 2 * PROCESS + _GRAPH * subset + windows_bytes(held, bins) + LABEL * held + UTTERANCE * utterances
    disk = left_on_disk(frames, monophone=config.monophone)
    yield Row("align", f"{config.alignment.leaves} tied states", disk=disk, memory=memory, seconds=seconds)


def _soft_targets(config: Config, teacher: NetPlan, speech: Speech, of_frame: float | None) -> Row:
    entries, cores = min(config.soft_targets.max_entries, teacher.num_states), default_jobs()
    forward = teacher.forward_flops * teacher.members * speech.frames
    seconds = None if of_frame is None else of_frame * teacher.members * speech.frames
    weights = 4.0 * teacher.parameters * teacher.members
    # members are read one by one and stacked; a batch's posteriors are there before and after the softmax and the mean
    batch = 4.0 * FRAMES_AT_ONCE * (3 * teacher.members + 4) * teacher.num_states
    each = PROCESS + 2 * weights + batch + UTTERANCE * speech.utterances
    what = f"at most {entries} entries a frame; memory with --nj {cores}"
    exact = config.soft_targets.keep_mass >= 1 and entries == teacher.num_states
    disk = stored_bytes(speech.frames, entries, exact=exact)
    return Row("soft-targets", what, forward, disk, PROCESS + cores * each, seconds, gpu=True)


def _decode(work: Workspace, nets: list[tuple[NetPlan, float | None]], speech: Speech, *, measure: bool) -> Row:
    """Of as many nets as are decoded; an ensemble's members are one."""
    model, cores = work.lm / "G.arpa", default_jobs()
    known = model.is_file()
    ngrams = sum(read_counts(model)) if known else _OPENSLR_NGRAMS
    decoded = sum(1 if net.name == "train --ensemble" else net.members for net, _ in nets)
    seconds = None
    if measure:
        nets_alone = _forward_of_all(nets, speech) or 0.0
        seconds = decoded * _REAL_TIME_FACTOR * speech.scored / cores + _SECONDS_PER_NGRAM * ngrams + nets_alone
    weights = max(4.0 * net.parameters * net.members for net, _ in nets)
    each = PROCESS + _SEARCH + _BYTES_PER_ARC * ARCS_PER_NGRAM * ngrams + weights
    memory = max(bytes_to_compile(ngrams), cores * each + PROCESS)
    whose = "" if known else ", as OpenSLR's 3-gram.pruned.3e-7"
    what = f"{decoded} nets, graph of {ngrams / 1e6:.2f} M n-grams{whose}"
    flops = sum(net.forward_flops * net.members for net, _ in nets) * speech.scored / FRAME_SHIFT
    return Row("decode", what, flops, bytes_on_disk(ngrams), memory, seconds)


def _forward_of_all(nets: list[tuple[NetPlan, float | None]], speech: Speech) -> float | None:
    """Seconds of every net's forward pass over dev and test, on all cores."""
    known = [of_frame * net.members for net, of_frame in nets if of_frame is not None]
    return sum(known) * speech.scored / FRAME_SHIFT if known else None


def _report(config: Config, nets: list[tuple[NetPlan, float | None]], speech: Speech) -> Row:
    """Every net on dev and test."""
    frames = speech.scored / FRAME_SHIFT
    flops = sum(net.forward_flops * net.members for net, _ in nets) * frames
    weights = sum(4.0 * net.parameters * net.members for net, _ in nets)
    larger = max(speech.dev, speech.test) * 3600 / FRAME_SHIFT
    memory = PROCESS + _POSTERIORS + weights + windows_bytes(round(larger), config.features.num_mel_bins)
    return Row("report", "frames of dev and test", flops, 0.0, memory, _forward_of_all(nets, speech))
