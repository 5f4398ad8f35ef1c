"""Corpora in lhotse's and Kaldi's form give the very features that the same speech gives as one file an utterance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from click.testing import CliRunner
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.recipes import prepare_librispeech

from asr_kd.cli import main
from asr_kd.corpora.settings import CutsConfig, KaldiConfig, LibriSpeechConfig
from asr_kd.errors import UserError
from asr_kd.frames.features import FeaturesConfig
from asr_kd.frames.store import FrameStore
from asr_kd.lang.settings import LangConfig
from asr_kd.stages.features import make_features
from asr_kd.stages.prepare import prepare
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace

from .conftest import RATE, Recipe

SETS = ("train", "dev", "test")


def store_files(work: Workspace, name: str) -> list[bytes]:
    """All of a store that does not say what it was made from."""
    return [(work.frames(name) / file).read_bytes() for file in ("features.npy", "utterances.jsonl", "cmvn.npz")]


@pytest.fixture
def recipe(folder_recipe: Recipe) -> Recipe:
    """The folder corpus with its features; utterances of different samples, and copies of training at another speed."""
    features = FeaturesConfig(speeds=(1.0, 0.9))
    folder_recipe.config = replace(folder_recipe.config, features=features)
    for seed, path in enumerate(sorted(folder_recipe.corpus.rglob("*.wav"))):
        samples = np.random.default_rng(seed).integers(-3000, 3000, RATE + 100 * seed).astype(np.int16)
        soundfile.write(path, samples, RATE)
    folder_recipe.prepare()
    make_features(folder_recipe.config, folder_recipe.work)
    return folder_recipe


def join(recipe: Recipe, name: str) -> Iterator[tuple[str, str, float, float]]:
    """Writes a set's recordings as channel 1 of one, <set>.flac; yields id, text, start and end of each in it."""
    texts = dict(line.split(" ", 1) for line in (recipe.corpus / name / "text").read_text().splitlines())
    samples = [soundfile.read(recipe.corpus / name / f"{utterance}.wav", dtype="int16")[0] for utterance in texts]
    joined = np.concatenate(samples)
    soundfile.write(recipe.root / f"{name}.flac", np.stack([joined[::-1], joined], 1), RATE)
    ends = np.cumsum([len(part) for part in samples])
    for (utterance, text), part, end in zip(texts.items(), samples, ends, strict=True):
        yield utterance, text, (int(end) - len(part)) / RATE, int(end) / RATE


def again(recipe: Recipe, corpus: Any, root: Path, **options: Any) -> Workspace:
    """Another work folder, with the same speech in another form."""
    work = Workspace(recipe.root / "other", recipe.work.config_path)
    config = replace(recipe.config, corpus=corpus)
    prepare(config, work, corpus_dir=root, **options)
    make_features(config, work, **options)
    return work


def write_kaldi(recipe: Recipe, entry: str) -> None:
    for name in SETS:
        (recipe.root / name).mkdir()
        rows = list(join(recipe, name))
        tables = {
            "text": [f"{utterance} {text}" for utterance, text, _, _ in rows],
            "segments": [f"{utterance} {name} {start:.6f} {end:.6f}" for utterance, _, start, end in rows],
            "wav.scp": [f"{name} {entry.format(file=recipe.root / f'{name}.flac')}"],
        }
        for table, lines in tables.items():
            (recipe.root / name / table).write_text("\n".join(lines) + "\n")


def test_kaldis_segments_give_the_features_of_single_files(recipe: Recipe) -> None:
    write_kaldi(recipe, "{file}")
    work = again(recipe, KaldiConfig(sampling_rate=RATE, channel=1), recipe.root)
    for name in SETS:
        assert store_files(work, name) == store_files(recipe.work, name)


def test_files_that_the_config_names_are_relative_to_it(recipe: Recipe, tmp_path: Path) -> None:
    write_kaldi(recipe, "{file}")
    sets = {name: f"../{name}" for name in SETS}
    config = {"corpus": {"name": "kaldi", "sampling_rate": RATE, "channel": 1, **sets}}
    path = recipe.conf / "kaldi.yaml"
    for corpus, expected in (
        ("kaldi", "train: 3 utterances"),
        ("prompts", "the prompts corpus needs its folder; name it with --corpus-dir"),
        ("folder", "the folder corpus needs its folder; name it with --corpus-dir"),
    ):
        path.write_text(yaml.safe_dump(config if corpus == "kaldi" else {"corpus": {"name": corpus}}))
        command = ["prepare", "--config", str(path), "--work-dir", str(tmp_path / "other"), "--nj", "1"]
        result = CliRunner().invoke(main, command)
        assert expected in result.output and result.exit_code == (0 if corpus == "kaldi" else 2), result.output


def test_commands_run_in_prepare_and_in_features_where_they_are_allowed(recipe: Recipe) -> None:
    write_kaldi(recipe, "cat {file} |")
    corpus = KaldiConfig(sampling_rate=RATE, channel=1)
    with pytest.raises(UserError, match=r"wav\.scp: recording train is the output of a command .*--allow-pipes"):
        again(recipe, corpus, recipe.root)
    work = again(recipe, corpus, recipe.root, allow_pipes=True)
    for name in SETS:
        assert store_files(work, name) == store_files(recipe.work, name)
    (work.frames("dev") / "stamp.json").unlink()
    with pytest.raises(
        UserError, match=r"cuts_dev\.jsonl\.gz: utterance d1 is the output of a command .*--allow-pipes"
    ):
        make_features(replace(recipe.config, corpus=corpus), work)


def test_lhotses_manifests_give_the_features_of_single_files(recipe: Recipe) -> None:
    for name in SETS:
        supervisions = [
            SupervisionSegment(utterance, name, start, end - start, text=text, channel=1, speaker=utterance)
            for utterance, text, start, end in join(recipe, name)
        ]
        recording = Recording.from_file(recipe.root / f"{name}.flac")
        RecordingSet.from_recordings([recording]).to_file(recipe.root / f"recordings_{name}.jsonl.gz")
        SupervisionSet.from_segments(supervisions).to_file(recipe.root / f"supervisions_{name}.jsonl.gz")
    work = again(recipe, CutsConfig(sampling_rate=RATE), recipe.root)
    for name in SETS:
        assert store_files(work, name) == store_files(recipe.work, name)


def test_other_rates_are_converted_where_that_is_wanted(recipe: Recipe) -> None:
    path = recipe.corpus / "train" / "t2.wav"
    soundfile.write(path, soundfile.read(path, dtype="int16")[0], 2 * RATE)
    with pytest.raises(UserError, match=r"t2\.wav has 16000 Hz, the config says 8000; .*set corpus\.resample to true"):
        recipe.prepare()
    assert not recipe.prepare("skip").metadata["sets"]["train"].get("resampled")

    resampling = replace(recipe.config, corpus=replace(recipe.config.corpus, resample=True))
    recipe.config, unconverted = resampling, recipe.config
    result = recipe.prepare("skip")  # the utterance that was left out is used now
    assert result.ran and result.metadata["sets"]["train"]["resampled"] == 1
    assert "train: 1 utterance converted from another sampling rate" in str(result)
    make_features(resampling, recipe.work)
    store = FrameStore.open(recipe.work.frames("train"))
    assert store.ids[::2] == ["t1", "t2", "t3"] and 0.5 < store.durations[2] < 0.52
    assert not recipe.prepare().ran

    recipe.config = unconverted
    assert recipe.prepare("skip").metadata["sets"]["train"]["utterances"] == 2  # not for ever


def test_a_cutset_of_lhotses_librispeech_gives_the_same_features(shared: Path, tmp_path: Path) -> None:
    corpus, sets = tmp_path / "LibriSpeech", {"train": ("train-clean-100",), "dev": ("test-clean",)}
    for (part,) in sets.values():
        chapters = sorted((shared / "data" / "librispeech" / "opus" / part).glob("*/*"))
        for chapter in (chapters[0], chapters[-1]):
            folder = corpus / part / chapter.parent.name / chapter.name
            folder.mkdir(parents=True)
            (transcripts,) = chapter.glob("*.trans.txt")
            lines = transcripts.read_text().splitlines(keepends=True)[:2]
            (folder / transcripts.name).write_text("".join(lines))
            for utterance in (line.split()[0] for line in lines):
                soundfile.write(
                    folder / f"{utterance}.flac", *soundfile.read(chapter / f"{utterance}.opus", dtype="int16")
                )
    names = [part for (part,) in sets.values()]
    manifests = prepare_librispeech(corpus, dataset_parts=names, output_dir=tmp_path / "manifests")
    (tmp_path / "cuts").mkdir()
    for part, pair in manifests.items():
        CutSet.from_manifests(**pair).to_file(tmp_path / "cuts" / f"{part}.jsonl.gz")
    stores = []
    for corpus_config, root in (
        (LibriSpeechConfig(), corpus), (CutsConfig(), tmp_path / "cuts"), (CutsConfig(), tmp_path / "manifests"),
    ):  # fmt: skip
        config = Config(corpus=corpus_config, sets=sets, lang=LangConfig(units="characters"))
        work = Workspace(tmp_path / f"work{len(stores)}", tmp_path / "conf.yaml")
        prepare(config, work, corpus_dir=root)
        make_features(config, work)
        stores.append([store_files(work, name) for name in sets])
    assert stores[0] == stores[1] == stores[2]
