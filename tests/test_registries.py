"""A model kind, a loss, a corpus and a decoder are each added by one registry entry, and used by their public path.

Each is registered here at run time, from a module of this test, as a new file and a line in a registry would.
"""

import sys
import types
from typing import Literal

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from pydantic.dataclasses import dataclass
from torch import nn

import asr_kd
from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.settings import MODELS, ModelConfig, ModelKind
from asr_kd.alignment.tree import monophone_tree
from asr_kd.cli import main
from asr_kd.corpora.audio import Audio
from asr_kd.corpora.listing import CorpusManifest, Utterance
from asr_kd.corpora.registry import CORPORA, Corpus
from asr_kd.corpora.settings import CorpusConfig
from asr_kd.decoding.decoder import Hypothesis
from asr_kd.decoding.graph import compile_graph
from asr_kd.decoding.settings import BACKENDS, Backend
from asr_kd.distillation.loss import LossTerms
from asr_kd.distillation.settings import LOSSES, Loss
from asr_kd.frames.source import Context
from asr_kd.settings import STRICT, Count
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.config_reference import config_schema

CPU = torch.device("cpu")


@dataclass(frozen=True, config=STRICT)
class LinearConfig(ModelConfig):
    """One linear layer on the labelled frame."""

    kind: Literal["linear"] = "linear"
    rank: Count = 2

    @property
    def context(self):
        return Context(0, 0)


class LinearModel(FrameModel):
    def __init__(self, settings, *, num_dims, num_senones, seeds):
        super().__init__(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds)
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.weight = nn.Parameter(torch.stack([0.1 * torch.randn(num_dims, num_senones, generator=g) for g in rngs]))

    def forward(self, frames, rng=None):
        return frames.reshape(1, -1, self.num_dims).float() @ self.weight


def squared_error(logits, teacher, states, *, temperature, soft_weight, valid=None):
    error = (logits.log_softmax(-1).exp() - teacher.log_probabilities.exp()).square().sum((-1, -2))
    return LossTerms(error, error.detach(), torch.zeros_like(error), torch.zeros_like(error))


class FirstWord:
    """Answers every utterance with the first word of the vocabulary."""

    def __init__(self, graph, settings, *, acoustic_scale, word_penalty=0.0):
        self._word = graph.words[0]

    def decode(self, loglikes):
        return [Hypothesis((self._word,), 0.0) for _ in loglikes]

    def decode_grid(self, loglikes, scales, penalties):
        return [tuple(tuple((self._word,) for _ in penalties) for _ in scales) for _ in loglikes]


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """The new file: a module that can be imported by name."""
    toys = types.ModuleType("toys")
    toys.LinearModel, toys.squared_error, toys.FirstWord = LinearModel, squared_error, FirstWord
    monkeypatch.setitem(sys.modules, "toys", toys)


def noise():
    """Frames whose class is in their largest dimension, and the classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    frames = rng.normal(size=(400, 3)).astype(np.float32) + 4 * np.eye(3, dtype=np.float32)[labels]
    return asr_kd.ArrayFrames([frames]), labels


def test_a_kind_of_model(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "linear", ModelKind(LinearConfig, "toys:LinearModel"))
    config = from_mapping(Config, {"systems": {"a": {"members": 2, "model": {"kind": "linear"}}}}, "my.yaml")
    settings = config.system("a").model
    assert settings == LinearConfig() and "LinearConfig" in config_schema()["$defs"]

    source, labels = noise()
    model = asr_kd.build_model(settings, num_dims=3, num_senones=3, seeds=[1, 2])
    data = asr_kd.TrainingData(asr_kd.windows_of(source, model.context))
    training = asr_kd.TrainingConfig(epochs=5, batch_size=16, learning_rate=0.05, precision="float32")
    asr_kd.fit(model, data, asr_kd.HardTargets(labels, CPU), training, asr_kd.RunControl(seed=1))
    (tmp_path / "model").mkdir()
    asr_kd.save_model(model, tmp_path / "model")
    loaded = asr_kd.load_model(tmp_path / "model")
    assert isinstance(loaded, LinearModel) and loaded.members == 2
    assert (loaded.log_posteriors(source.normalised(0)).argmax(1).numpy() == labels).mean() > 0.95


def test_a_loss(monkeypatch):
    monkeypatch.setitem(LOSSES, "squared", Loss("toys:squared_error"))
    systems = {"t": {"members": 2}, "d": {"targets": {"from": "t", "loss": "squared"}}}
    targets = from_mapping(Config, {"systems": systems}, "my.yaml").system("d").targets

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


def test_a_corpus(monkeypatch, tmp_path):
    @dataclass(frozen=True, config=STRICT)
    class ListConfig(CorpusConfig):
        name: Literal["list"] = "list"
        sampling_rate: Count = 8000

    def read(request):
        lines = (request.root / "list.txt").read_text().splitlines()
        utterances = [
            Utterance(identity, Audio(request.root / f"{identity}.wav"), text, identity, request.set_of[part])
            for identity, part, text in (line.split(maxsplit=2) for line in lines)
        ]
        return CorpusManifest(utterances, [request.root / "list.txt"])

    monkeypatch.setitem(CORPORA, "list", Corpus(ListConfig, read))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text("corpus: {name: list}\nlang: {units: characters}\n")
    rng = np.random.default_rng(0)
    lines = [f"{part}{n} {part} YES NO" for part in ("train", "dev", "test") for n in range(3)]
    for line in lines:
        soundfile.write(tmp_path / f"{line.split()[0]}.wav", rng.normal(0, 0.1, 8000), 8000)
    (tmp_path / "list.txt").write_text("\n".join(lines))
    command = ["prepare", "--config", str(tmp_path / "conf" / "mine.yaml"), "--corpus-dir", str(tmp_path), "--nj", "1"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "data" / "cuts_test.jsonl.gz").exists()


def test_a_decoder(monkeypatch):
    monkeypatch.setitem(BACKENDS, "first", Backend("toys:FirstWord", package="numpy"))
    lang = asr_kd.Lang(("SIL", "A"), ("A",), {"A": ((1,),)})
    graph = compile_graph(lang, asr_kd.estimate_ngrams([["A"]], 1), monophone_tree(lang.phones), 0.5)
    posteriors = np.zeros((9, 6), np.float32)
    hypotheses = asr_kd.decode([posteriors, posteriors], graph, np.zeros(6), acoustic_scale=1.0, decoder="first")
    assert [hypothesis.words for hypothesis in hypotheses] == [("A",), ("A",)]
