"""A corpus is a reader, settings and a line in the registry."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic.dataclasses import dataclass

from asr_kd.corpora.audio import Audio
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance
from asr_kd.corpora.registry import CORPORA, Corpus
from asr_kd.corpora.settings import CorpusConfig
from asr_kd.errors import UserError
from asr_kd.settings import STRICT, Count
from asr_kd.stages.prepare import prepare
from asr_kd.workspace.config_files import load_config
from asr_kd.workspace.work import Workspace

from ..stages.conftest import write_wav


@dataclass(frozen=True, config=STRICT)
class ToyConfig(CorpusConfig):
    """Recordings that all say the same."""

    name: Literal["toy"] = "toy"
    utterances: Count = 2


def read_toy(request: ReadRequest[ToyConfig]) -> CorpusManifest:
    utterances = [
        Utterance(f"{part}{k}", Audio(request.root / f"{part}{k}.wav"), "HELLO WORLD", "someone", name)
        for name, parts in request.parts.items()
        for part in parts
        for k in range(request.settings.utterances)
    ]
    return CorpusManifest(utterances, [])


@pytest.mark.slow
def test_a_corpus_that_is_registered_can_be_configured_and_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_path = tmp_path / "toy.yaml"
    config_path.write_text("corpus: {name: toy, sampling_rate: 8000, utterances: 3}\n")
    (tmp_path / "lexicon.txt").write_text("")
    for name in (f"{part}{k}" for part in ("train", "dev", "test") for k in range(3)):
        write_wav(tmp_path / "audio" / f"{name}.wav", 1.0)
    with pytest.raises(UserError, match=r"corpus\.name must be one of .*'librispeech'.*, not 'toy'"):
        load_config(config_path)
    monkeypatch.setitem(CORPORA, "toy", Corpus(ToyConfig, read_toy))
    result = prepare(load_config(config_path), Workspace(tmp_path, config_path), corpus_dir=tmp_path / "audio")
    assert {name: entries["utterances"] for name, entries in result.metadata["sets"].items()} == {
        "train": 3, "dev": 3, "test": 3,
    }  # fmt: skip
    config_path.write_text("corpus: {name: toy, utterance: 3}\n")
    with pytest.raises(UserError, match=r"unknown key 'utterance'; .*utterances"):
        load_config(config_path)
