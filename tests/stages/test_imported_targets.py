"""Posteriors go to other toolkits and come back as soft targets; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kaldi_native_io
import numpy as np
import pytest

from asr_kd.acoustic.model_files import load_model
from asr_kd.distillation.store import SoftTargetStore
from asr_kd.errors import UserError
from asr_kd.stages import soft_targets
from asr_kd.stages.export_posteriors import export_posteriors
from asr_kd.stages.soft_targets import make_soft_targets
from asr_kd.stages.train import train
from asr_kd.workspace.config import Config

from .toy import HARD, OPTIONS, SENONES, Toy, make_toy, soft

ALL = {"keep_mass": 1.0, "max_entries": SENONES}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = make_toy(tmp_path / "work", utterances=8)
    train(toy.config(teacher=HARD), toy.work, OPTIONS)
    return toy


def imported(toy: Toy, **targets: Any) -> Config:
    return toy.config(teacher=HARD, distilled=HARD | {"targets": ALL | {"from": "../posteriors"} | targets})


def export(toy: Toy, form: Any = "npz") -> Path:
    folder = toy.work.root / "posteriors"
    export_posteriors(toy.config(teacher=HARD), toy.work, "teacher", folder, form=form, set_name="train")
    return folder


def targets_of(toy: Toy, name: str, temperature: float) -> np.ndarray:
    store = SoftTargetStore(toy.work.targets(name), temperature=temperature, num_frames=toy.train.num_frames)
    values: np.ndarray = store.read(np.arange(toy.train.num_frames)).log_probabilities.numpy()
    return values


@pytest.mark.parametrize("form", ["npz", "ark"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_exported_and_imported_targets_are_the_stored_ones(toy: Toy, form: str, temperature: float) -> None:
    export(toy, form)
    config = imported(toy, temperature=temperature)
    own = toy.config(teacher=HARD, distilled=soft(**{"from": "teacher", "temperature": temperature}))
    (first,), (second,) = (make_soft_targets(c, toy.work, OPTIONS) for c in (own, config))
    assert second.folder.name == f"posteriors,T{temperature:g},keep_mass=1.0,max_entries=6"
    of_own, of_files = (targets_of(toy, result.folder.name, temperature) for result in (first, second))
    np.testing.assert_allclose(of_files, of_own, atol=1e-4)
    assert second.entropy == pytest.approx(first.entropy, rel=1e-4)
    assert first.ran and second.ran and not make_soft_targets(config, toy.work, OPTIONS)[0].ran


def test_a_system_learns_from_imported_targets_as_from_its_teacher(toy: Toy) -> None:
    export(toy)
    systems = {"teacher": HARD, "own": soft(**{"from": "teacher"}), "imported": soft(**{"from": "../posteriors"})}
    train(toy.config(**systems), toy.work, OPTIONS, nj=1)
    for name in ("own", "imported"):
        assert toy.work.exp(name).exists()
    models = [load_model(toy.work.exp(name)).state_dict() for name in ("own", "imported")]
    for name, value in models[0].items():
        np.testing.assert_allclose(value, models[1][name], atol=1e-3)


def test_files_that_changed_are_imported_again(toy: Toy) -> None:
    folder, config = export(toy), imported(toy)
    train(config, toy.work, OPTIONS, nj=1)
    first = toy.weights("distilled")
    file = folder / "train0.npz"
    file.write_bytes(file.read_bytes())  # another time, the same content
    assert not any(result.ran for result in train(config, toy.work, OPTIONS, nj=1))
    with np.load(file) as arrays:
        np.savez(file, log_posteriors=np.roll(arrays["log_posteriors"], 1, axis=1))
    ran = [result.folder.name for result in train(config, toy.work, OPTIONS, nj=1) if result.ran]
    assert ran == ["posteriors,T2,keep_mass=1.0,max_entries=6", "distilled"]
    assert toy.weights("distilled") != first


def test_the_files_are_looked_at_once_in_a_training(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    export(toy)
    looked: list[Path] = []
    monkeypatch.setattr(soft_targets, "file_digests", lambda source, folder: looked.append(source) or {})
    train(imported(toy), toy.work, OPTIONS, nj=1)
    assert len(looked) == 1


def test_an_archive_that_an_scp_names_elsewhere_counts_too(toy: Toy) -> None:
    folder, elsewhere, config = export(toy, "ark"), toy.work.root / "elsewhere", imported(toy)
    elsewhere.mkdir()
    ark = elsewhere / "post.ark"
    (folder / "posteriors.ark").rename(ark)
    reader = kaldi_native_io.SequentialFloatMatrixReader(f"ark:{ark}")
    matrices = {name: np.array(matrix) for name, matrix in reader}
    for number in range(2):
        with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{ark},{folder / 'post.scp'}") as writer:
            for name, matrix in matrices.items():
                writer.write(name, np.roll(matrix, number, axis=1))
        assert make_soft_targets(config, toy.work, OPTIONS)[0].ran
        assert not make_soft_targets(config, toy.work, OPTIONS)[0].ran
    digests = toy.work.exp("targets").glob(".*.digests.json")
    next(digests).write_text("{")
    with pytest.raises(UserError, match=r"digests\.json is damaged; delete it"):
        make_soft_targets(config, toy.work, OPTIONS)


def test_altered_copies_may_have_no_targets(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    folder = export(toy)
    for file in folder.glob("*_sp0.9.npz"):
        file.unlink()
    (targets, _) = train(imported(toy), toy.work, OPTIONS, ["distilled"], nj=1)
    store = toy.train
    assert targets.frames == sum(np.diff(store.offsets)[store.speeds == 1.0]) < store.num_frames
    assert "has no posteriors of 8 altered copies: they have no soft term" in caplog.text
    row = json.loads((toy.work.exp("distilled") / "log.jsonl").read_text().splitlines()[-1])
    assert row["soft"][0] > 0 and row["hard"][0] > 0


def test_utterances_without_targets_are_named_and_counted(toy: Toy) -> None:
    folder = export(toy)
    for k in range(7):
        (folder / f"train{k}.npz").unlink()
    with pytest.raises(UserError, match=r"no posteriors of 7 of .*: train0, train1, train2, train3, train4 and 2 more"):
        make_soft_targets(imported(toy), toy.work, OPTIONS)
    assert list(toy.work.exp("targets").glob("[!.]*")) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda values: values[:-1], r"train3 has posteriors of 18 frames, but .*frames/train has 19"),
        (lambda values: np.full((19, 5), np.log(0.2)), "train3 has posteriors of 5 senones, but the tree has 6"),
        (lambda values: values + 1, r"train3.npz: the posteriors of frame \d+ sum to 2.718, not to 1"),
    ],
)
def test_posteriors_of_something_else_are_refused(toy: Toy, change: Any, says: str) -> None:
    file = export(toy) / "train3.npz"
    with np.load(file) as arrays:
        np.savez(file, log_posteriors=change(arrays["log_posteriors"]))
    with pytest.raises(UserError, match=says):
        make_soft_targets(imported(toy), toy.work, OPTIONS)
    assert list(toy.work.exp("targets").glob("[!.]*")) == []


def test_exports_replace_only_exports(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy.config(teacher=HARD | {"members": 1}, direct=HARD)
    folder = toy.work.root / "posteriors"
    arguments = {"form": "npz", "set_name": "dev"}
    result = export_posteriors(config, toy.work, "teacher", folder, **arguments)
    assert str(result) == f"posteriors of 3 utterances in {folder}"
    assert str(export_posteriors(config, toy.work, "teacher", folder, **arguments)).startswith("posteriors of 3 utter")
    assert not export_posteriors(config, toy.work, "teacher", folder, **arguments).ran
    assert export_posteriors(config, toy.work, "teacher", folder, form="ark", set_name="dev").ran
    assert not list(folder.glob("*.npz"))
    with pytest.raises(UserError, match="direct is not there yet; make it first: asr-kd train direct"):
        export_posteriors(config, toy.work, "direct", folder, **arguments)
    with pytest.raises(UserError, match="no set 'test-other'; the config has: train, dev, test"):
        export_posteriors(config, toy.work, "teacher", folder, form="npz", set_name="test-other")
    with pytest.raises(UserError, match="holds other files"):
        export_posteriors(config, toy.work, "teacher", toy.work.root, **arguments)
    (folder / "NOTES.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(NOTES\.txt\)"):
        export_posteriors(config, toy.work, "teacher", folder, form="npz", set_name="train")
    assert (folder / "NOTES.txt").exists()
    with pytest.raises(UserError, match=r"there is no system 'align'"):
        export_posteriors(config, toy.work, "align", toy.work.root / "more", **arguments)
    monkeypatch.chdir(toy.work.root)
    with pytest.raises(UserError, match="is where this command runs; give the name of a new folder"):
        export_posteriors(config, toy.work, "teacher", Path(), **arguments)


def test_a_folder_cannot_run_beside_a_student(toy: Toy) -> None:
    with pytest.raises(UserError, match="a folder of imported targets has no teachers to run"):
        imported(toy, online=True)


def test_posteriors_may_be_zero(toy: Toy) -> None:
    """As of a toolkit that rounds: what is 0 adds nothing to the means in the stamp."""
    rng = np.random.default_rng(3)
    folder = toy.work.root / "posteriors"
    folder.mkdir()
    for utterance, frames in zip(toy.train.ids, np.diff(toy.train.offsets), strict=True):
        posteriors = rng.dirichlet(np.ones(SENONES - 2), frames)
        np.savez(folder / f"{utterance}.npz", posteriors=np.pad(posteriors, ((0, 0), (2, 0))))
    (result,) = make_soft_targets(imported(toy, temperature=1.0), toy.work, OPTIONS)
    assert 0 < result.entropy < np.log(SENONES - 2)
    assert train(imported(toy, temperature=1.0), toy.work, OPTIONS, ["distilled"])[-1].ran
    with pytest.raises(
        UserError, match=r"posteriors are 0, whose logits .*; leave out systems\.distilled\.targets\.loss"
    ):
        train(imported(toy, temperature=1.0, loss="logits"), toy.work, OPTIONS, ["distilled"])
