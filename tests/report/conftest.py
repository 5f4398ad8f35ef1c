"""A whole finished run in a temporary folder: tiny real stores and nets, made-up hypotheses."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asr_kd.acoustic.criteria import DevScorer, HardTargets
from asr_kd.acoustic.model import AcousticModel, save_model
from asr_kd.acoustic.training import fit, write_log
from asr_kd.alignment.tree import monophone_tree, with_counts, write_tree
from asr_kd.evaluation.wer import align_words
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.frames.windows import WindowedFrames
from asr_kd.io.files import write_json_lines
from asr_kd.io.stamp import STAMP, Stamp
from asr_kd.workspace.config import Config, TrainingConfig, from_mapping
from asr_kd.workspace.work import Workspace

MODEL = {"layers": 1, "width": 12, "left_context": 2, "right_context": 1}
SMALL = {**MODEL, "width": 5}
SETTINGS = {
    "corpus": {"name": "made-up"},
    "teacher": {"members": 4, "model": MODEL},
    "student": {"seeds": 3, "model": MODEL},
    "small": {"seeds": 2, "model": SMALL},
    "evaluation": {"bootstrap_samples": 500},
}
PROMPT = "PLEASE ENTER YOUR PASSWORD FOLLOWED BY THE POUND KEY PRESS ONE TWO THREE FOR SALES OR HOLD ON AGENT"
WORDS = PROMPT.split()
EVIL = "<SCRIPT>ALERT(1)</SCRIPT>"
NUM_STATES = 6
SYSTEMS = {  # name -> folder, seeds, share of words that come out wrong
    "direct": ("baseline", 3, 0.25),
    "ensemble": ("teacher", 1, 0.18),
    "distilled": ("student", 3, 0.19),
    "direct-small": ("baseline_small", 2, 0.32),
    "distilled-small": ("student_small", 2, 0.26),
    "monophone": ("monophone", 3, 0.35),
}


PHONES = ("SIL", "<b>AH")  # three HMM states of each: six tied states


def make_run(
    root: Path, *, settings: dict | None = None, utterances: int = 30, epochs: int = 4
) -> tuple[Config, Workspace]:
    """Writes data/ and exp/ as the stages leave them."""
    config = from_mapping(Config, settings or SETTINGS, "test")
    work = Workspace(root, root / "conf" / "test.yaml")
    random = np.random.default_rng(3)
    made = {name: _store(work, name, random, utterances) for name in ("train", "dev", "test")}
    metadata = {
        "sets": {name: {"utterances": utterances, "words": 99, "minutes": 1.25} for name in made},
        "left_out": [{"utterance": "bad-one", "reason": "stereo <b>audio</b>"}],
        "not_speech": ["beep"],
    }
    _stamp(work.data, "prepare", metadata=metadata)
    failed = [{"utterance": "too-short", "reason": "shorter than its phones"}]
    _stamp(work.exp("align"), "align", metadata={"utterances": 3 * utterances, "failed": failed})
    for folder in ("tree", "tree_monophone"):
        _stamp(work.exp(folder), "align", metadata={"num_states": NUM_STATES})
        write_tree(with_counts(monophone_tree(PHONES), np.ones(NUM_STATES, np.int64)), work.exp(folder))
    soft = {"temperature": 2.0, "mean": "arithmetic", "out_of_fold": 0}
    numbers = ("frames", "bytes_per_frame", "full_bytes_per_frame", "retained_mass", "kl", "entropy", "entries")
    _stamp(work.exp("soft_targets"), "soft-targets", soft, metadata=dict.fromkeys(numbers, 0.5) | {"frames": 600})
    for name, (folder, seeds, wrong) in SYSTEMS.items():
        if name.endswith("-small") and config.small is None:
            continue
        _model(config, work, name, folder, made, epochs)
        for set_name, store in made.items():
            if set_name != "train":
                _decoded(work, name, folder, set_name, store, seeds, wrong)
    work.exp("seconds.json").write_text(json.dumps({"prepare": 2.5, "align": 75.2}), encoding="utf-8")
    return config, work


def _stamp(
    folder: Path, step: str, settings: dict | None = None, inputs: dict | None = None, metadata: dict | None = None
):
    folder.mkdir(parents=True, exist_ok=True)
    stamp = Stamp(step, settings or {}, inputs or {"folder": folder.name}, 1)
    stamp.write(folder / STAMP, metadata)
    return stamp.digest


def _store(work: Workspace, name: str, random: np.random.Generator, utterances: int) -> FrameStore:
    """Frames scattered around the mean of their state; a few frames are not aligned."""
    centres = np.random.default_rng(0).normal(0, 1, (NUM_STATES, 5))
    lengths = random.integers(15, 30, utterances)
    states = [np.repeat(random.integers(0, NUM_STATES, length), 4)[:length] for length in lengths]
    rows = [(f"{name}-{u:03d}", centres[s] + random.normal(0, 1.1, (len(s), 5))) for u, s in enumerate(states)]
    texts = [" ".join(random.choice(WORDS, random.integers(3, 10))) for _ in rows]
    texts[0] = f"PRESS {EVIL} NOW"
    store = write_store(work.frames(name), rows, texts=texts)
    labels = np.concatenate(states).astype(np.int32)
    labels[::17] = -1
    for array in ("states", "states_monophone"):
        store.attach(array, labels, Stamp("align", {}, {"tree": "t"}))
    return store


def _model(config: Config, work: Workspace, name: str, folder: str, made: dict[str, FrameStore], epochs: int) -> None:
    student = config.small if name.endswith("-small") else config.student
    settings = config.teacher.model if name == "ensemble" else student.model
    members = config.teacher.members if name == "ensemble" else student.seeds
    examples = WindowedFrames(made["train"], left=settings.left_context, right=settings.right_context)
    dev = WindowedFrames(made["dev"], left=settings.left_context, right=settings.right_context)
    seeds = [sum(map(ord, name)) + k for k in range(members)]
    model = AcousticModel(settings, examples.num_inputs, NUM_STATES, seeds)
    states = np.asarray(made["train"].array("states"))
    training = TrainingConfig(epochs=epochs, batch_size=64, learning_rate=5e-3, precision="float32")
    scorer = DevScorer(dev, np.asarray(made["dev"].array("states")))
    objective = HardTargets(states, torch.device("cpu"))
    progress = fit(model, examples, objective, training, seed=1, evaluate=scorer, valid=states >= 0)
    path = work.exp(folder)
    mono = "_monophone" if name == "monophone" else ""
    made_with = {"distilled": {"soft_weight": 0.6, "loss": "kl"}} if name.startswith("distilled") else {}
    metadata = {"tree": f"tree{mono}", "states": f"states{mono}", "best_epoch": progress.best_epoch}
    _stamp(path, "distill" if made_with else "train", made_with, metadata=metadata)
    save_model(model, path)
    write_log(path, progress.rows)


def _decoded(
    work: Workspace, name: str, folder: str, set_name: str, store: FrameStore, seeds: int, wrong: float
) -> None:
    path = work.exp(f"decode_{name}_{set_name}")
    _stamp(path, "decode", inputs={"model": json.loads((work.exp(folder) / STAMP).read_text())["digest"]})
    rows = []
    for seed in range(seeds):
        random = np.random.default_rng([seed, len(name)])
        for utterance, text in zip(store.ids, store.texts, strict=True):
            ref = text.split()
            hyp = []
            for word in ref:
                fate = random.random() / wrong
                hyp += (
                    [word]
                    if fate > 1
                    else [str(random.choice(WORDS))]
                    if fate > 0.4
                    else []
                    if fate > 0.15
                    else [word, "A"]
                )
            pairs = align_words(ref, hyp)
            rows.append(
                {"utterance": utterance, "seed": seed, "ref": ref, "hyp": hyp, "alignment": pairs, "retried": False}
            )
    write_json_lines(path / "hyps.jsonl", rows)
    summary = {
        "system": name,
        "set": set_name,
        "acoustic_scale": 0.2,
        "word_penalty": 0.0,
        "prior_scale": 1.0,
        "search_beam": 15.0,
        "seeds": seeds,
        "rtf": 0.01 * len(name),
        "retried": 1,
        "failed": ["test-007"] if (name, set_name) == ("direct", "test") else [],
        "oov_words": 1,
        "oov_rate": 0.005,
    }
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


@pytest.fixture(scope="session")
def fake() -> SimpleNamespace:
    """What the tests know of the made-up run, and its maker."""
    return SimpleNamespace(evil=EVIL, model=MODEL, systems=SYSTEMS, make_run=make_run)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Workspace]:
    """Made once; tests that break something copy it."""
    return make_run(tmp_path_factory.mktemp("run"))
