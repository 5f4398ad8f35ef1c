"""recipes/prompts/run.sh, as README.md calls it, on tones that stand for the prompts.

In a clone, whose conf/ has small configs, and the split and the sums of the stand-ins.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from . import test_documents
from .recipe import CONFIG, LEXICON, RATE, SMALL, TRAINING, say
from .typed import typed_script

ROOT = Path(__file__).parents[1]
COUNTS = {"train": 24, "dev": 4, "test": 6}
HARD = {"model": SMALL, "training": TRAINING}
# demo.yaml's keys: half of the transcripts are hidden, and the distilled net learns from those recordings too
DEMO = {
    "corpus": {"name": "prompts", "sampling_rate": RATE},
    "untranscribed": {"hidden": {"share": 0.5}},
    "alignment": CONFIG["alignment"] | {"realign": {"rounds": 0}},
    "systems": {
        "teacher": HARD | {"members": 2},
        "direct": HARD,
        "distilled": HARD | {"targets": {"from": "teacher", "soft_weight": 0.8, "extra": "hidden"}},
    },
    "compare": CONFIG["compare"],
    "decoding": CONFIG["decoding"] | {"phones": False},
    "evaluation": CONFIG["evaluation"],
}
CONFIGS = {
    "demo": DEMO,
    "transcribed": {
        "base": "demo.yaml",
        "untranscribed": {"hidden": None},
        "systems": {"distilled": {"targets": {"extra": None}}},
    },
    "fr": {"base": "transcribed.yaml", "lang": {"language": "fr", "units": "characters"}},
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the scripts and small configs, and the prompts in DIR."""
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipes" / "prompts"
    shutil.copytree(ROOT / "local", "local")
    shutil.copytree(ROOT / "recipes" / "prompts" / "local", recipe / "local")
    shutil.copy(ROOT / "recipes" / "prompts" / "run.sh", recipe)
    (recipe / "conf").mkdir()
    for name, config in CONFIGS.items():
        (recipe / "conf" / f"{name}.yaml").write_text(yaml.safe_dump(config))
    lexicon = "".join(f"{word} {phones}\n" for word, phones in LEXICON.items())
    (recipe / "conf" / "lexicon.txt").write_text(lexicon)
    _record(tmp_path / "DIR", recipe / "conf")
    return tmp_path


def _record(prompts: Path, conf: Path) -> None:
    """Prompts, and what the recipe knows of them in each language; no text is in two sets."""
    rng = np.random.default_rng(3)
    names = {f"digits/{part}{number}": part for part, count in COUNTS.items() for number in range(count)}
    (prompts / "sounds" / "digits").mkdir(parents=True)
    texts: dict[str, list[str]] = {}
    for name in names:
        while (words := rng.choice(list(LEXICON), rng.integers(4, 7)).tolist()) in texts.values():
            pass
        texts[name] = words
        soundfile.write(prompts / "sounds" / f"{name}.wav", say(words, rng), RATE)
    for language in ("en", "fr"):
        transcripts = prompts / f"core-sounds-{language}.txt"
        transcripts.write_text("".join(f"{name}: {' '.join(words).title()}.\n" for name, words in texts.items()))
        (conf / language).mkdir()
        (conf / language / "split.tsv").write_text("".join(f"{name}\t{part}\n" for name, part in names.items()))
        (conf / language / "corrections.txt").write_text("# none\n")
        files = {file: hashlib.sha256(file.read_bytes()) for file in (transcripts, *prompts.rglob("*.wav"))}
        sums = "".join(f"{digest.hexdigest()}  {file.relative_to(prompts)}\n" for file, digest in files.items())
        (conf / language / "files.sha256").write_text(sums)


def results(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / "exp" / "report" / "results.json").read_text())
    return found


def test_the_recipe_gets_from_a_copy_of_the_prompts_to_reports(clone: Path) -> None:
    lines = test_documents.commands(ROOT / "recipes" / "prompts" / "README.md", r"recipes/prompts/run\.sh")
    (from_copy,) = [line for line in lines if "--prompts-dir" in line]
    typed_script(from_copy, clone / "noted")  # first: the others then find the prompts, or are given them
    work = clone / "recipes" / "prompts"
    report = work / "exp" / "report" / "results.json"
    written = report.stat().st_mtime_ns
    assert len(lines) == 5
    for line in lines:
        known = line in (from_copy, "recipes/prompts/run.sh") or "--stage" in line
        typed_script(line if known else f"{line} --prompts-dir DIR", clone / "noted")
    assert report.stat().st_mtime_ns == written  # what is there is skipped

    demo, french, transcribed = (results(folder) for folder in (work, work / "fr", work / "work" / "transcribed"))
    for found, train in ((demo, {"train": 12, "hidden": 12}), (french, {"train": 24}), (transcribed, {"train": 24})):
        assert found["corpus"] == "prompts" and found["alignment"]["failed"] == []
        counts = {name: entry["utterances"] for name, entry in found["data"]["sets"].items()}
        assert counts == train | {"dev": COUNTS["dev"], "test": COUNTS["test"]}
        assert [system["name"] for system in found["systems"]] == ["direct", "teacher", "distilled"]
        assert found["systems"][1]["wer"]["test"] < 0.6  # of tones; a decoder that hears nothing has 1.0
    assert (demo["language"], french["language"]) == ("en", "fr")
    sentences = (work / "data" / "sentences.txt").read_text().splitlines()
    assert len(sentences) == COUNTS["train"]  # those of the hidden recordings too
