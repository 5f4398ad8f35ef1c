"""Tiny corpora of noise, and a recipe's conf folder, in a temporary place."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_kd.corpora.settings import FolderConfig, PromptsConfig
from asr_kd.stages.prepare import PrepareResult, prepare
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

RATE = 8000


def write_wav(
    path: Path, seconds: float = 1.0, *, rate: int = RATE, channels: int = 1, subtype: str = "PCM_16"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate), channels) if channels > 1 else int(seconds * rate)
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, shape)
    soundfile.write(path, samples, rate, subtype=subtype)


@dataclass
class Recipe:
    """A work folder with conf/ and a corpus, and the means to prepare it."""

    root: Path
    config: Config

    @property
    def corpus(self) -> Path:
        return self.root / "download"

    @property
    def conf(self) -> Path:
        return self.root / "conf"

    @property
    def work(self) -> Workspace:
        return Workspace(self.root, self.conf / "demo.yaml")

    def prepare(self, on_bad_utterance: str = "fail") -> PrepareResult:
        corpus = replace(self.config.corpus, on_bad_utterance=on_bad_utterance)  # type: ignore[arg-type]
        return prepare(replace(self.config, corpus=corpus), self.work, corpus_dir=self.corpus, nj=1)


@pytest.fixture
def folder_recipe(tmp_path: Path) -> Recipe:
    """Own recordings: three utterances in train, one each in dev and test."""
    recipe = Recipe(tmp_path, Config(corpus=FolderConfig(sampling_rate=RATE)))
    recipe.conf.mkdir()
    (recipe.conf / "lexicon.txt").write_text("")
    texts = {
        "train": {"t1": "hello world", "t2": "press 1", "t3": "good bye"},
        "dev": {"d1": "hello"},
        "test": {"e1": "press one"},
    }
    for name, lines in texts.items():
        for utterance in lines:
            write_wav(recipe.corpus / name / f"{utterance}.wav")
        (recipe.corpus / name / "text").write_text("".join(f"{u} {text}\n" for u, text in lines.items()))
    return recipe


@pytest.fixture
def prompts_recipe(tmp_path: Path) -> Recipe:
    """Prompts as local/download_prompts.sh leaves them."""
    recipe = Recipe(tmp_path, Config(corpus=PromptsConfig(sampling_rate=RATE)))
    (recipe.conf / "en").mkdir(parents=True)
    (recipe.conf / "lexicon.txt").write_text("DAHDI D AA D IY\n")
    (recipe.conf / "en" / "corrections.txt").write_text("# by hand\ndigits/a-m\ta m\n")
    (recipe.conf / "en" / "split.tsv").write_text(
        "digits/1\ttrain\ndigits/a-m\ttrain\nhello\tdev\nhello-again\tdev\nspy-dahdi\ttest\npls-try-call-later\t-\n"
    )
    (recipe.corpus / "sounds").mkdir(parents=True)
    (recipe.corpus / "core-sounds-en.txt").write_text(
        "; Sounds\n\ndigits/1: one\ndigits/a-m: A.M.\nhello: Hello.\nhello-again: hello\nspy-dahdi: DAHDI\n"
        "beep: [this is a simple beep tone]\npls-try-call-later: Please try your call again later.\n"
    )
    for name in ("digits/1", "digits/a-m", "hello", "hello-again", "spy-dahdi", "beep"):
        write_wav(recipe.corpus / "sounds" / f"{name}.wav")
    return recipe
