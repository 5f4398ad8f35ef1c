"""What docs/extend.md shows works: a kind of model, a loss, a corpus and a decoder are a new file and a line each.

Its code is put where it says, for the time of a test, and used by its public path.
"""

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from click.testing import CliRunner
from torch.nn import functional as F

import asr_kd
from asr_kd.acoustic.settings import ModelConfig
from asr_kd.alignment.tree import monophone_tree
from asr_kd.cli import main
from asr_kd.decoding.graph import compile_graph
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping

CPU = torch.device("cpu")
GUIDE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")


def follow(title: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Does what a section says; the config that it shows."""
    (section,) = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", GUIDE, re.M | re.S)
    for path, place, code in re.findall(r"^```python\n# (\S+\.py)(?:, ([^\n]*))?\n(.*?)^```", section, re.M | re.S):
        name = path.removesuffix(".py").replace("/", ".")
        if not place:
            module = types.ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            exec(compile(code, path, "exec", dont_inherit=True), vars(module))
            continue
        module = sys.modules[name]
        names: dict[str, Any] = dict(vars(module))
        for key, entry in eval("{" + code + "}", names).items():
            monkeypatch.setitem(vars(module)[place.removeprefix("in ")], key, entry)
    shown = re.findall(r"^```yaml\n(.*?)^```", section, re.M | re.S)
    return from_mapping(Config, yaml.safe_load(shown[0]) if shown else {}, "docs/extend.md")


def noise():
    """Frames whose class is in their largest dimension, and the classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    frames = rng.normal(size=(400, 3)).astype(np.float32) + 4 * np.eye(3, dtype=np.float32)[labels]
    return asr_kd.ArrayFrames([frames]), labels


def test_a_kind_of_model(monkeypatch, tmp_path):
    config = follow("A kind of model", monkeypatch)
    settings = config.system("distilled").model
    assert isinstance(settings, ModelConfig) and settings.width == 64

    source, labels = noise()
    model = asr_kd.build_model(settings, num_dims=3, num_senones=3, seeds=[1, 2])
    data = asr_kd.TrainingData(asr_kd.windows_of(source, model.context))
    training = asr_kd.TrainingConfig(epochs=5, batch_size=16, learning_rate=0.01, precision="float32")
    asr_kd.fit(model, data, asr_kd.HardTargets(labels, CPU), training, asr_kd.RunControl(seed=1))
    (tmp_path / "model").mkdir()
    asr_kd.save_model(model, tmp_path / "model")
    loaded = asr_kd.load_model(tmp_path / "model")
    assert type(loaded).__name__ == "Gated" and loaded.members == 2
    assert (loaded.log_posteriors(source.normalised(0)).argmax(1).numpy() == labels).mean() > 0.95


def test_seeds_of_a_new_kind_train_side_by_side_as_they_would_alone(monkeypatch):
    settings = follow("A kind of model", monkeypatch).system("distilled").model
    both, second = (asr_kd.build_model(settings, num_dims=3, num_senones=3, seeds=seeds) for seeds in ([1, 2], [2]))
    frames = torch.randn(4, 15, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(both(frames)[1:], second(frames))


def test_a_loss(monkeypatch):
    targets = follow("A loss", monkeypatch).system("distilled").targets

    source, labels = noise()
    student = asr_kd.build_model(
        asr_kd.DnnConfig(layers=0, left_context=0, right_context=0), num_dims=3, num_senones=3, seeds=[1]
    )
    table = torch.from_numpy(np.log(0.97 * np.eye(3)[labels] + 0.01)).float()
    criterion = asr_kd.DistillationCriterion(
        asr_kd.TableTargets(table, 1.0), labels, soft_weight=1.0, loss=targets.loss, device=CPU
    )
    data = asr_kd.TrainingData(asr_kd.windows_of(source, student.context))
    training = asr_kd.TrainingConfig(epochs=5, batch_size=16, learning_rate=0.05, precision="float32")
    asr_kd.fit(student, data, criterion, training, asr_kd.RunControl(seed=1))
    assert (student.log_posteriors(source.normalised(0)).argmax(1).numpy() == labels).mean() > 0.95


def test_the_loss_is_the_divergence_turned_round(monkeypatch):
    follow("A loss", monkeypatch)
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, -1, 4, 0])
    soft = F.log_softmax(teacher / 2, -1)
    terms = sys.modules["asr_kd.distillation.reverse"].reverse_kl(
        student, asr_kd.SoftTargets(soft, 2.0), labels, temperature=2.0, soft_weight=0.25
    )
    expected = F.kl_div(soft, F.log_softmax(student / 2, -1), log_target=True, reduction="sum") * 4 / 6
    torch.testing.assert_close(terms.soft, expected)
    hard = F.cross_entropy(student, labels, ignore_index=-1)
    torch.testing.assert_close(terms.total, 0.25 * expected + 0.75 * hard)


def test_a_corpus(monkeypatch, tmp_path):
    follow("A corpus", monkeypatch)
    (tmp_path / "conf").mkdir()
    settings = "corpus: {name: onecsv, sampling_rate: 8000}\nlang: {units: characters}\n"
    (tmp_path / "conf" / "mine.yaml").write_text(settings + "sets: {train: [train], dev: [dev], test: [test]}\n")
    command = ["prepare", "--config", str(tmp_path / "conf" / "mine.yaml"), "--corpus-dir", str(tmp_path), "--nj", "1"]

    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 2 and "list.csv is missing; name the folder" in result.output
    (tmp_path / "list.csv").write_text("file,set,text\n")
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 2 and "the first line names no column speaker." in result.output

    rng = np.random.default_rng(0)
    names = [(part, f"{part}{number}") for part in ("train", "dev", "test") for number in range(3)]
    for _, name in names:
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 8000), 8000)
    rows = [f'{name}.wav,{part},{name},"YES, NO"' for part, name in [*names, ("train", "lost")]]
    (tmp_path / "list.csv").write_text("\n".join(["file,set,speaker,text", *rows]))
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 2 and "lost.wav is missing; correct its row in" in result.output
    result = CliRunner().invoke(main, [*command, "--on-bad-utterance", "skip"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "data" / "cuts_test.jsonl.gz").exists()


def test_a_decoder(monkeypatch):
    follow("A decoder", monkeypatch)
    lang = asr_kd.Lang(("SIL", "A", "B"), ("A", "B"), {"A": ((1,),), "B": ((2,),)})
    graph = compile_graph(lang, asr_kd.estimate_ngrams([["A", "B"], ["B"]], 2), monophone_tree(lang.phones), 0.5)
    rng = np.random.default_rng(1)
    posteriors = [np.log(rng.dirichlet(np.full(9, 0.3), 15)).astype(np.float32) for _ in range(8)]
    words = {
        name: [h.words for h in asr_kd.decode(posteriors, graph, np.zeros(9), acoustic_scale=1.0, decoder=name)]
        for name in ("narrow", "native")
    }
    assert words["narrow"] == words["native"] and len(set(words["narrow"])) > 1
