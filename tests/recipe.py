"""A whole recipe on speech made of tones: small enough for tests to run its stages."""

import fcntl
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from click.testing import CliRunner

from asr_kd.cli import main

RATE = 8000
LEXICON = {"BA": "B AA", "BI": "B IY", "SA": "S AA", "SI": "S IY", "BASI": "B AA S IY"}
TONES = {"B": (300, 900), "AA": (700, 1200), "IY": (350, 2400), "S": (2900, 3600)}  # Hz, two for each phone

TRAINING = {"epochs": 3, "batch_size": 128, "learning_rate": 5.0e-3}
SMALL = {"layers": 1, "width": 16}
CONFIG = {
    "corpus": {"name": "folder", "sampling_rate": RATE},
    "features": {"speeds": [1.0, 0.9]},
    "alignment": {
        "rounds": 4, "leaves": 18, "min_count": 30,
        "model": {"layers": 1, "width": 32, "left_context": 1, "right_context": 1},
        "realign": {"model": {"layers": 1, "width": 32, "left_context": 4, "right_context": 4}, "training": TRAINING},
    },
    "systems": {
        "teacher": {
            "model": {"layers": 1, "width": 24, "hidden_dropout": 0.1, "lda_dims": 30},
            "members": 2, "training": TRAINING,
        },
        "direct": {"model": SMALL, "seeds": 2, "training": TRAINING},
        "distilled": {
            "model": SMALL | {"lda_dims": 40}, "seeds": 2, "training": TRAINING,
            "targets": {"from": "teacher", "soft_weight": 0.5},
        },
        "monophone": {"model": SMALL, "training": TRAINING, "tree": "monophone"},
    },
    "compare": [{"direct": "direct", "distilled": "distilled", "teacher": "teacher"}],
    "decoding": {"acoustic_scales": [0.2, 0.5], "word_penalties": [0.0]},
    "evaluation": {"bootstrap_samples": 200},
}  # fmt: skip
# the stages of run.sh, in one process each
STAGES = [
    ["prepare"],
    ["features", "--nj", "1"],
    ["align", "--nj", "1"],
    ["train", "--teachers"],
    ["soft-targets", "--nj", "1"],
    ["train", "--nj", "1"],
    ["decode", "--nj", "1"],
    ["report"],
]
# stage 6 with direct and distilled systems at once, each in a process of its own
SIDE_BY_SIDE = [*STAGES[:5], ["train", "--nj", "2"], *STAGES[6:]]


def say(words: list[str], rng: np.random.Generator) -> np.ndarray:
    """Tones for phones, noise everywhere, silence around."""
    parts = [np.zeros(int(0.2 * RATE))]
    for word in words:
        for phone in LEXICON[word].split():
            time = np.arange(int(rng.uniform(0.08, 0.16) * RATE)) / RATE
            parts.append(sum(np.sin(2 * np.pi * tone * time) for tone in TONES[phone]))
    parts.append(np.zeros(int(0.2 * RATE)))
    samples = np.concatenate(parts)
    return 0.1 * samples + rng.normal(0, 0.005, len(samples))


def make_recipe(root: Path) -> Path:
    """A work folder with conf/ and corpus/; returns the config's path."""
    rng = np.random.default_rng(3)
    for name, count in (("train", 40), ("dev", 8), ("test", 10)):
        folder = root / "corpus" / name
        folder.mkdir(parents=True)
        lines = []
        for number in range(count):
            words = rng.choice(list(LEXICON), rng.integers(2, 6)).tolist()
            soundfile.write(folder / f"{name}{number:02d}.wav", say(words, rng), RATE)
            lines.append(f"{name}{number:02d} {' '.join(words)}\n")
        (folder / "text").write_text("".join(lines))
    (root / "conf").mkdir()
    (root / "conf" / "lexicon.txt").write_text("".join(f"{word} {phones}\n" for word, phones in LEXICON.items()))
    config = root / "conf" / "tiny.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    return config


def arguments(config: Path, stage: list[str]) -> list[str]:
    extra = ["--corpus-dir", str(config.parent.parent / "corpus")] if stage[0] == "prepare" else []
    return [*stage, "--config", str(config), *extra]


def run(config: Path, stages: list[list[str]]) -> list[str]:
    outputs = []
    for stage in stages:
        result = CliRunner().invoke(main, arguments(config, stage), catch_exceptions=False)
        assert result.exit_code == 0, f"{stage}: {result.output}"
        outputs.append(result.output)
    return outputs


def finished_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a recipe that has run through all stages; who wants to change its work folder copies that.

    The first of pytest's workers that asks runs it, and the others wait.
    """
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    root = common / "finished-recipe"
    with (common / "finished-recipe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            run(make_recipe(root), STAGES)
    return root / "conf" / "tiny.yaml"


# python -m tests.recipe DIR: makes it there and runs it; the same code gives the same files
if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    made = make_recipe(Path(sys.argv[1]))
    settings = yaml.safe_load(made.read_text())
    for system in settings["systems"].values():
        system["training"]["precision"] = "float32"
    made.write_text(yaml.safe_dump(settings))
    print("".join(run(made, STAGES)))
