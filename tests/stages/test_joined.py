"""An ensemble of systems of different kinds: joined when they are trained, and a system like any other after that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr_kd.acoustic.model_files import load_model
from asr_kd.distillation.loss import ensemble_distribution
from asr_kd.distillation.store import SoftTargetStore
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import read_stamp
from asr_kd.stages.export_posteriors import export_posteriors
from asr_kd.stages.soft_targets import SystemTargets
from asr_kd.stages.train import train
from asr_kd.stages.training_set import open_training_set

from .toy import HARD, MODEL, OPTIONS, Toy, make_toy, soft

TDNN = HARD | {"model": {"kind": "tdnn", "width": 6, "dilations": [1, 2], "chunk_frames": 8}}
SYSTEMS = {
    "distilled": soft(**{"from": "joined"}),
    "joined": {"members": ["dnns", "tdnns"]},
    "dnns": HARD | {"members": 3},
    "tdnns": TDNN | {"seeds": 2},
}
STORE = "joined,T2,keep_mass=1.0,max_entries=6"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path / "work")


def run(toy: Toy, systems: dict[str, Any] = SYSTEMS, *names: str) -> list[str]:
    """The folders of what was made."""
    results = train(toy.config(**systems), toy.work, OPTIONS, names, nj=1)
    return [result.folder.name for result in results if result.ran]


def logits_of(toy: Toy, *systems: str) -> torch.Tensor:
    """(M, N, C) of all training frames."""
    models = [load_model(toy.work.exp(system)) for system in systems]
    utterances = range(len(toy.train.ids))
    of_models = [torch.cat([model.member_logits(toy.train.normalised(u)) for u in utterances], 1) for model in models]
    return torch.cat(of_models)


def full_targets(toy: Toy, store: str = STORE) -> torch.Tensor:
    """(N, C) log-probabilities."""
    opened = SoftTargetStore(toy.work.targets(store), temperature=2.0, num_frames=toy.train.num_frames)
    return opened.read(np.arange(toy.train.num_frames)).log_probabilities


def test_it_is_joined_after_its_parts_and_teaches_their_mean(toy: Toy) -> None:
    assert run(toy) == ["dnns", "tdnns", "joined", STORE, "distilled"]
    assert run(toy) == []
    assert sorted(file.name for file in toy.work.exp("joined").iterdir()) == ["model.yaml", "stamp.json"]
    logits = logits_of(toy, "dnns", "tdnns")
    torch.testing.assert_close(logits_of(toy, "joined"), logits)
    expected = ensemble_distribution(logits.double(), temperature=2.0).float()
    torch.testing.assert_close(full_targets(toy), expected, atol=2e-3, rtol=0)
    stamp = read_stamp(toy.work.exp("joined"))
    assert stamp is not None
    of_parts = [(read_stamp(toy.work.exp(part)) or {})["metadata"] for part in ("dnns", "tdnns")]
    assert stamp["metadata"]["dev_accuracy"] == [value for part in of_parts for value in part["dev_accuracy"]]
    assert stamp["metadata"]["members"] == 5 and stamp["metadata"]["tree"] == "tied"
    sizes = 3 * of_parts[0]["parameters"] + 2 * of_parts[1]["parameters"]
    assert round(5 * stamp["metadata"]["parameters"]) == sizes


def test_what_depends_on_a_part_is_made_again_after_it(toy: Toy) -> None:
    run(toy)
    changed = SYSTEMS | {"tdnns": TDNN | {"seeds": 1}}
    with pytest.raises(UserError, match=r"exp/tdnns was trained with other settings .*asr-kd train tdnns"):
        run(toy, changed, "joined")
    run(toy, changed, "tdnns")
    with pytest.raises(UserError, match=r"joined is an ensemble of other models .* train joined again"):
        load_model(toy.work.exp("joined"))
    with pytest.raises(UserError, match=r"exp/joined was trained with other settings .*asr-kd train joined"):
        run(toy, changed, "distilled")
    assert run(toy, changed) == ["joined", STORE, "distilled"]
    assert load_model(toy.work.exp("joined")).members == 4

    shutil.rmtree(toy.work.exp("dnns"))  # the same models again: nothing depends on when they were trained
    assert run(toy, changed) == ["dnns"]
    toy.label(seed=1)
    with pytest.raises(UserError, match=r"exp/dnns was trained on train senones .*asr-kd train dnns"):
        run(toy, changed, "joined")


def test_parts_must_be_trained(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"exp/dnns is not there yet; make it first: asr-kd train dnns"):
        run(toy, SYSTEMS, "joined")
    assert not toy.work.exp("joined").exists()


def test_a_join_that_was_killed_is_made_by_the_next_run(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    run(toy, SYSTEMS, "dnns", "tdnns")
    with monkeypatch.context() as patch:
        patch.setattr("asr_kd.stages.training_run.join_models", killed)
        with pytest.raises(KeyboardInterrupt):
            run(toy, SYSTEMS, "joined")
    assert not toy.work.exp("joined").exists()
    assert run(toy) == ["joined", STORE, "distilled"]


def test_online_and_out_of_fold_members_teach_as_from_a_store(toy: Toy) -> None:
    """A part of the student's own context, one of another, and one whose members do not answer for all frames."""
    systems = SYSTEMS | {
        "dnns": HARD | {"members": 4, "folds": 2},
        "online": soft(**{"from": "joined", "online": True}),
        "of_both": soft(**{"from": ["joined", "tdnns"]}),
    }
    run(toy, systems)
    losses = [
        [json.loads(line)["soft"] for line in (toy.work.exp(name) / "log.jsonl").read_text().splitlines()]
        for name in ("distilled", "online")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)

    logits, teachers = logits_of(toy, "dnns", "tdnns").double(), full_targets(toy)
    tdnn = logits[4:5]  # of two seeds the first one teaches by itself; in the ensemble both do
    both = full_targets(toy, STORE.replace("joined", "joined+tdnns"))
    mixed = torch.stack([teachers.double(), ensemble_distribution(tdnn, temperature=2.0)]).exp().mean(0)
    torch.testing.assert_close(both.double().exp(), mixed, atol=2e-3, rtol=0)
    for utterance, name in enumerate(toy.train.ids):
        fold = int(name.removeprefix("train").partition("_")[0]) % 2
        frames = toy.train.span(utterance)
        of_fold, rest = logits[[fold, fold + 2], frames], logits[4:, frames]
        means = [ensemble_distribution(part, temperature=2.0).exp() for part in (of_fold, rest)]
        expected = (4 * means[0] + 2 * means[1]) / 6  # as in decoding: each model counts alike
        torch.testing.assert_close(teachers[frames].exp().double(), expected, atol=2e-3, rtol=0)


def test_its_posteriors_are_exported(toy: Toy, tmp_path: Path) -> None:
    run(toy, SYSTEMS, "dnns", "tdnns", "joined")
    export_posteriors(
        toy.config(**SYSTEMS), toy.work, "joined", tmp_path / "out", form="npz", set_name="dev", device="cpu"
    )
    dev, model = FrameStore.open(toy.work.frames("dev")), load_model(toy.work.exp("joined"))
    with np.load(tmp_path / "out" / f"{dev.ids[0]}.npz") as arrays:
        np.testing.assert_allclose(arrays["log_posteriors"], model.log_posteriors(dev.normalised(0)), atol=2e-3)


def test_targets_know_the_ensemble(toy: Toy) -> None:
    run(toy, SYSTEMS, "dnns", "tdnns", "joined")
    config = toy.config(**SYSTEMS)
    stamp = SystemTargets(config, toy.work, open_training_set(toy.work), "distilled").stamps["train"]
    assert stamp.inputs == {"joined": (read_stamp(toy.work.exp("joined")) or {})["digest"]}
    again = {**SYSTEMS, "dnns": HARD | {"members": 3, "model": MODEL | {"width": 9}}}
    run(toy, again, "dnns")
    targets = SystemTargets(toy.config(**again), toy.work, open_training_set(toy.work), "distilled")
    with pytest.raises(UserError, match=r"exp/joined is an ensemble with dnns .*asr-kd train joined"):
        targets.provider(torch.device("cpu"))
