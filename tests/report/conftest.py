"""A whole finished run in a temporary folder: tiny real stores and models, made-up hypotheses."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.model_files import join_models, save_model
from asr_kd.acoustic.training import write_log
from asr_kd.alignment.tree import monophone_tree, write_tree
from asr_kd.evaluation.wer import align_words
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import write_json_lines
from asr_kd.io.stamp import STAMP, Stamp, read_stamp
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.work import Workspace, labels_of

from ..stores import write_store

MODEL = {"layers": 1, "width": 12, "left_context": 2, "right_context": 1}
SMALL = {**MODEL, "width": 5}
TARGETS = {"from": "teacher", "soft_weight": 0.6}
SETTINGS = {
    "corpus": {"name": "folder"},
    "systems": {
        "monophone": {"model": MODEL, "seeds": 3, "tree": "monophone"},
        "teacher": {"model": MODEL, "members": 4},
        "direct": {"model": MODEL, "seeds": 3},
        "distilled": {"model": MODEL, "seeds": 3, "targets": TARGETS},
        "direct-small": {"model": SMALL, "seeds": 2},
        "distilled-small": {"model": SMALL, "seeds": 2, "targets": TARGETS},
    },
    "compare": [
        {"direct": "direct", "distilled": "distilled", "teacher": "teacher"},
        {"direct": "direct-small", "distilled": "distilled-small", "teacher": "teacher"},
    ],
    "evaluation": {"bootstrap_samples": 500},
}
ORDER = ["direct", "teacher", "distilled", "direct-small", "distilled-small", "monophone"]  # of the tables
PROMPT = "PLEASE ENTER YOUR PASSWORD FOLLOWED BY THE POUND KEY PRESS ONE TWO THREE FOR SALES OR HOLD ON AGENT"
WORDS = PROMPT.split()
EVIL = "<SCRIPT>ALERT(1)</SCRIPT>"
PHONES = ("SIL", "<b>AH")  # three HMM states of each: six senones
NUM_SENONES = 6
_WRONG = {"distilled": 0.19, "direct": 0.25, "teacher": 0.18, "monophone": 0.35}  # share of the words


def make_run(root: Path, *, settings: dict | None = None, utterances: int = 30) -> tuple[Config, Workspace]:
    """Writes data/ and exp/ as the stages leave them."""
    config = from_mapping(Config, settings or SETTINGS, "test")
    work = Workspace(root, root / "conf" / "test.yaml")
    rng = np.random.default_rng(3)
    stores = {name: _store(work, name, rng, utterances) for name in config.sets}
    _stamp(
        work.data,
        "prepare",
        metadata={"not_speech": ["beep"], "guessed_pronunciations": {}, "lm": {"sentences_left_out": 0}},
    )
    for name in stores:
        bad = [{"utterance": "bad-one", "reason": "stereo <b>audio</b>"}] if name == "train" else []
        Stamp("cuts", {}, {}).write(work.cuts_stamp(name), cuts_metadata(utterances, bad))
        write_cuts(work, name, stores[name].ids)
    failed = [{"utterance": "too-short", "reason": "shorter than its phones"}]
    _stamp(work.exp("align"), "align", metadata={"utterances": len(stores) * utterances, "failed": failed})
    for kind in ("tied", "monophone"):
        _stamp(work.tree(kind), "align", metadata={"num_senones": NUM_SENONES})
        write_tree(replace(monophone_tree(PHONES), counts=np.ones(NUM_SENONES, np.int64)), work.tree(kind))
    numbers = ("frames", "bytes_per_frame", "full_bytes_per_frame", "retained_mass", "kl", "entropy", "entries")
    for name in config.in_training_order():
        system = config.systems[name]
        if system.targets is not None:
            metadata = dict.fromkeys(numbers, 0.5) | {"frames": 600}
            _stamp(work.targets(system.targets.name), "soft-targets", metadata=metadata)
        _model(config, work, name, stores)
        for set_name in config.scored_sets:
            _decoded(config, work, name, set_name, stores[set_name])
            if config.decodes_phones:
                _decoded(config, work, name, set_name, stores[set_name], phones=True)
    work.exp("seconds.json").write_text(json.dumps({"prepare": 2.5, "align": 75.2}), encoding="utf-8")
    return config, work


def cuts_metadata(utterances: int, left_out: list[dict]) -> dict:
    """Of a set, as stage 1 notes it."""
    shared = {"guessed_pronunciations": {}, "shared_speakers": [], "left_out": left_out}
    return {"utterances": utterances, "words": 99, "minutes": 1.25} | shared


def write_cuts(work: Workspace, name: str, utterances: list[str]) -> None:
    """Each with a speaker: one of twelve in test sets, where there are that many; in dev only it has its own id."""
    lines = []
    for number, utterance in enumerate(utterances):
        supervision = {"id": utterance, "speaker": utterance if name == "dev" else f"s{number % 12}"}
        recording = {"id": utterance, "sources": [{"type": "file"}]}
        lines.append(json.dumps({"id": utterance, "supervisions": [supervision], "recording": recording}) + "\n")
    work.cuts(name).write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def _stamp(
    folder: Path, step: str, settings: dict | None = None, inputs: dict | None = None, metadata: dict | None = None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Stamp(step, settings or {}, inputs or {"folder": folder.name}, 1).write(folder / STAMP, metadata)


def _store(work: Workspace, name: str, rng: np.random.Generator, utterances: int) -> FrameStore:
    """Frames scattered around the mean of their senone; a few frames are not aligned."""
    centres = np.random.default_rng(0).normal(0, 1, (NUM_SENONES, 5))
    lengths = rng.integers(15, 30, utterances)
    senones = [np.repeat(rng.integers(0, NUM_SENONES, length), 4)[:length] for length in lengths]
    rows = [(f"{name}-{u:03d}", centres[s] + rng.normal(0, 1.1, (len(s), 5))) for u, s in enumerate(senones)]
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 10))) for _ in rows]
    texts[0] = f"PRESS {EVIL} NOW"
    store = write_store(work.frames(name), rows, texts=texts)
    labels = np.concatenate(senones).astype(np.int32)
    labels[::17] = -1
    for tree in ("tied", "monophone"):
        store.attach(labels_of(tree), [labels], np.int32, Stamp("align", {}, {"tree": "t"}))
    return store


def _model(config: Config, work: Workspace, name: str, stores: dict[str, FrameStore]) -> None:
    system = config.systems[name]
    if system.parts:
        _joined(work, name, system.parts)
        return
    seeds = [sum(map(ord, name)) + k for k in range(system.num_models)]
    model = build_model(system.model, num_dims=5, num_senones=NUM_SENONES, seeds=seeds)
    model.precision = "float32"
    rows = _train(model, stores["train"], stores["dev"])
    settings, inputs = {}, {"folder": name}
    if system.targets is not None:
        teachers = {teacher: (read_stamp(work.exp(teacher)) or {})["digest"] for teacher in system.targets.source}
        settings, inputs = {"targets": system.targets}, {"soft targets": system.targets.stamp(teachers, 1).digest}
    _stamp(work.exp(name), "train", settings, inputs, metadata={"best_epoch": [len(rows)] * len(seeds)})
    save_model(model, work.exp(name))
    write_log(work.exp(name), rows)


def _joined(work: Workspace, name: str, parts: tuple[str, ...]) -> None:
    digests = {part: json.loads((work.exp(part) / STAMP).read_text())["digest"] for part in parts}
    _stamp(work.exp(name), "join", {"members": list(parts)}, digests, {"best_epoch": []})
    join_models([work.exp(part) for part in parts], work.exp(name))


def _train(model: FrameModel, train: FrameStore, dev: FrameStore) -> list[dict]:
    """A few steps of gradient descent on whole utterances; the rows of log.jsonl."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    rows = []
    for epoch in range(4):
        model.train()
        for utterance in range(len(train.ids)):
            labels = torch.from_numpy(np.asarray(train.array("senones")[train.span(utterance)], np.int64))
            features = torch.from_numpy(train.normalised(utterance))
            edges = features[:1].expand(model.context.left, -1), features[-1:].expand(model.context.right, -1)
            logits = model(torch.cat([edges[0], features, edges[1]])[None])
            expected = labels.expand(model.members, -1).reshape(-1)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), expected, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        accuracy = _accuracy(model, dev)
        rows.append(
            {
                "epoch": epoch + 1,
                "train_accuracy": _accuracy(model, train),
                "dev_accuracy": accuracy,
                "dev_cross_entropy": [2 - value for value in accuracy],
            }
        )
    return rows


def _accuracy(model: FrameModel, store: FrameStore) -> list[float]:
    best = np.concatenate(
        [model.member_log_posteriors(store.normalised(u)).argmax(-1).numpy() for u in range(len(store.ids))], axis=1
    )
    labels = np.asarray(store.array("senones"))
    return (best == labels)[:, labels >= 0].mean(1).tolist()


def _decoded(
    config: Config, work: Workspace, name: str, set_name: str, store: FrameStore, *, phones: bool = False
) -> None:
    """Words with made-up errors, or the letters of the words in the place of phones."""
    system = config.systems[name]
    path = (work.decoded_phones if phones else work.decoded)(name, set_name)
    seeds = 1 if system.is_ensemble else system.seeds
    wrong = _WRONG.get(name.removesuffix("-small"), 0.22) + 0.07 * name.endswith("-small")
    _stamp(path, "decode", inputs={"model": json.loads((work.exp(name) / STAMP).read_text())["digest"]})
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, len(name), phones])
        for utterance, text in zip(store.ids, store.texts, strict=True):
            ref, hyp = list(text.replace(" ", "")) if phones else text.split(), []
            for word in ref:
                fate = rng.random() / wrong
                if fate > 1:
                    hyp.append(word)
                elif fate > 0.4:
                    hyp.append(str(rng.choice(WORDS)))
                elif fate <= 0.15:
                    hyp += [word, "A"]
            pairs = align_words(ref, hyp)
            rows.append(
                {"utterance": utterance, "seed": seed, "ref": ref, "hyp": hyp, "alignment": pairs, "retried": False}
            )
    write_json_lines(path / "hyps.jsonl", rows)
    if phones:  # as an utterance without an alignment
        rows = [row for row in rows if row["utterance"] != "test-003"]
    summary = {
        "system": name,
        "set": set_name,
        "unit": "phone" if phones else "word",
        "unaligned": ["test-003"] if phones and set_name == "test" else [],
        "acoustic_scale": 0.2,
        "word_penalty": 0.0,
        "prior_scale": 1.0,
        "search_beam": 15.0,
        "seeds": seeds,
        "rtf": (0.02 if phones else 0.01) * len(name),
        "retried": 1,
        "failed": ["test-007"] if (name, set_name) == ("direct", "test") else [],
        "oov_words": 1,
        "oov_rate": 0.005,
    }
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


@pytest.fixture(scope="session")
def fake() -> SimpleNamespace:
    """What the tests know of the made-up run, and its maker."""
    return SimpleNamespace(
        evil=EVIL, model=MODEL, systems=ORDER, settings=SETTINGS, make_run=make_run, write_cuts=write_cuts
    )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Workspace]:
    """Made once; tests that break something copy it."""
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def broken(finished_run: tuple[Config, Workspace], tmp_path: Path) -> tuple[Config, Workspace]:
    """A copy to break."""
    config, work = finished_run
    shutil.copytree(work.root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "exp" / "report", ignore_errors=True)
    return config, replace(work, root=tmp_path / "run")
