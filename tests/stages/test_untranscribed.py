"""Speech without transcripts: prepared, given features and soft targets, and learnt from beside the training set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr_kd.acoustic import training
from asr_kd.corpora.cuts import read_cuts
from asr_kd.corpora.settings import UntranscribedConfig
from asr_kd.distillation import soft_target_worker as worker
from asr_kd.errors import UserError
from asr_kd.export.posteriors import write_posteriors
from asr_kd.frames.features import FeaturesConfig
from asr_kd.frames.store import FrameStore
from asr_kd.io.stamp import Stamp
from asr_kd.lang.lexicon import read_lang
from asr_kd.stages import prepare as stage_one
from asr_kd.stages import soft_targets as stage
from asr_kd.stages.features import make_features
from asr_kd.stages.soft_targets import make_soft_targets
from asr_kd.stages.train import train
from asr_kd.stages.training_set import open_training_set
from asr_kd.workspace.config import Config
from asr_kd.workspace.config_files import from_mapping
from asr_kd.workspace.sets import add_set, prepared

from ..stores import write_store
from .conftest import Recipe, write_wav
from .toy import DIMS, HARD, OPTIONS, SENONES, Toy, make_toy, soft

MORE = {"more": UntranscribedConfig(parts=("more",))}


@pytest.fixture
def recipe(folder_recipe: Recipe) -> Recipe:
    """The folder corpus, and a folder of recordings alone."""
    for name in ("m1", "m2"):
        write_wav(folder_recipe.corpus / "more" / f"{name}.wav", 0.5)
    features = FeaturesConfig(speeds=(1.0, 0.9))
    folder_recipe.config = replace(folder_recipe.config, untranscribed=MORE, features=features)
    return folder_recipe


def ids(recipe: Recipe, name: str) -> list[str]:
    return [cut["id"] for cut in read_cuts(recipe.work.cuts(name), "")]


def test_a_folder_of_recordings_gets_cuts_and_features_with_the_copies_of_training(recipe: Recipe) -> None:
    result = recipe.prepare()
    assert "more: 2 utterances without transcripts, 0.0 minutes" in str(result)
    cuts = list(read_cuts(recipe.work.cuts("more"), ""))
    assert [cut["id"] for cut in cuts] == ["m1", "m2"] and "text" not in cuts[0]["supervisions"][0]
    assert not recipe.work.lexicon("more").exists() and recipe.work.lexicon("test").exists()
    make_features(recipe.config, recipe.work)
    train_store, more = (FrameStore.open(recipe.work.frames(name)) for name in ("train", "more"))
    assert more.ids == ["m1", "m1_sp0.9", "m2", "m2_sp0.9"] and set(more.texts) == {""}
    assert np.array_equal(more.scale, train_store.scale)


def test_what_is_learnt_of_the_language_does_not_depend_on_it(recipe: Recipe) -> None:
    def learnt() -> dict[str, bytes]:
        folders = (recipe.work.lang, recipe.work.lm)
        files = [path for folder in folders for path in folder.iterdir()]
        files += [recipe.work.cuts(name) for name in ("train", "dev", "test")]
        return {path.name: path.read_bytes() for path in files}

    recipe.config = replace(recipe.config, untranscribed={})
    recipe.prepare()
    before = learnt()
    recipe.config = replace(recipe.config, untranscribed=MORE)
    assert recipe.prepare().ran and not recipe.prepare().ran
    assert learnt() == before


def test_hidden_transcripts_are_nowhere(recipe: Recipe) -> None:
    """Of speakers that the seed draws: their words are in no cut, lexicon or language model."""
    lines = [f"t{k} speaker{k}\n" for k in (1, 2, 3)]
    (recipe.corpus / "train" / "utt2spk").write_text("".join(lines))
    words = {"t1": "HELLO WORLD", "t2": "PRESS ONE", "t3": "GOOD BYE"}
    recipe.config = replace(recipe.config, untranscribed={"hidden": UntranscribedConfig(speakers=1)})
    result = recipe.prepare()
    (hidden,), left = ids(recipe, "hidden"), ids(recipe, "train")
    assert sorted([hidden, *left]) == ["t1", "t2", "t3"]
    assert (
        f"hidden: 1 of 3 utterances were drawn from training, all those of 1 of 3 speakers (speaker{hidden[1]})"
        in str(result)
    )
    vocabulary = set(read_lang(recipe.work.lang).words)
    alone = set(words[hidden].split()) - {word for name in left for word in words[name].split()} - {"HELLO"}
    assert alone and not alone & vocabulary and {word for name in left for word in words[name].split()} <= vocabulary
    grammar = (recipe.work.lm / "G.arpa").read_text()
    assert not any(word in grammar for word in alone)

    recipe.config = replace(recipe.config, untranscribed={"hidden": UntranscribedConfig(share=0.7)})
    recipe.prepare()
    assert hidden in ids(recipe, "hidden") and len(ids(recipe, "hidden")) == 2  # more is hidden of the same speakers
    recipe.config = replace(recipe.config, untranscribed={"hidden": UntranscribedConfig(speakers=3)})
    with pytest.raises(UserError, match=r"untranscribed\.hidden would leave none of 3 speakers to train on"):
        recipe.prepare()
    (recipe.corpus / "train" / "utt2spk").unlink()
    with pytest.raises(UserError, match=r"untranscribed\.hidden\.speakers: speakers are not known here; give .* share"):
        recipe.prepare()


def test_transcripts_of_an_untranscribed_set_are_not_used(recipe: Recipe) -> None:
    (recipe.corpus / "more" / "text").write_text("m1 secret\nm2 42 \nm3 gone\n")
    recipe.prepare()
    assert ids(recipe, "more") == ["m1", "m2"]
    assert "SECRET" not in read_lang(recipe.work.lang).words


def test_speakers_and_recordings_that_are_tested_too_are_counted(recipe: Recipe) -> None:
    (recipe.corpus / "more" / "utt2spk").write_text("m1 sam\nm2 ann\n")
    (recipe.corpus / "test" / "utt2spk").write_text("e1 sam\n")
    result = recipe.prepare()
    assert "warning: 1 speaker of more can be heard in a test set too: sam" in str(result)
    assert prepared(recipe.config, recipe.work)["shared_speakers"] == ["sam"]
    write_wav(recipe.corpus / "heard" / "m1.wav", 0.5)
    (recipe.corpus / "heard" / "text").write_text("m1 hello\n")
    stage_one.add_set(recipe.config, recipe.work, "heard", ["heard"], corpus_dir=recipe.corpus)
    assert prepared(recipe.config, recipe.work)["sets"]["heard"]["training_utterances"] == 1


def test_sets_that_need_transcripts_must_have_them_still(recipe: Recipe) -> None:
    (recipe.corpus / "train" / "text").write_text("t1 hello world\n")
    with pytest.raises(UserError, match=r"t2: .* has no transcript; add a line to"):
        recipe.prepare()


def test_an_untranscribed_set_that_is_empty_or_not_there_is_named(recipe: Recipe) -> None:
    for path in (recipe.corpus / "more").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="the more set has no usable utterance"):
        recipe.prepare()
    (recipe.corpus / "more").rmdir()
    with pytest.raises(UserError, match="more: there is no such folder"):
        recipe.prepare()


@pytest.mark.parametrize(
    ("untranscribed", "extra", "says"),
    [
        ({"more": ["more"]}, "other", r"'other' under untranscribed:; name speech .* \(other: \[PART\]\); it has more"),
        ({}, "test", r"targets\.extra: .*; test is one of sets:, which have transcripts; .* \(it is then not scored\)"),
        ({"more": ["more"]}, "train", r"every system learns from train already"),
        ({"dev": ["more"]}, "dev", r"untranscribed\.dev: there is a set dev under sets: too"),
        ({"more": ["train"]}, "more", r"untranscribed\.more: the part train is in the set train too; .*share: 0\.5"),
        ({"model": ["more"]}, "model", r"untranscribed: 'model' cannot name a set"),
        ({"more": {"parts": ["more"], "share": 0.5}}, "more", r"untranscribed\.more: give its parts, or how much"),
        ({"more": []}, "more", r"untranscribed\.more: give its parts"),
        ({"more": {"part": ["more"]}}, "more", r"untranscribed\.more: unknown key 'part'; known here: parts, share"),
        ({"more": ["more"]}, ["more", "more"], r"extra: more, more names a set twice"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_learnt_from_is_one_sentence(untranscribed: Any, extra: Any, says: str) -> None:
    systems = {"teacher": HARD, "student": soft(**{"from": "teacher", "extra": extra})}
    with pytest.raises(UserError, match=says):
        from_mapping(Config, {"untranscribed": untranscribed, "systems": systems}, "conf.yaml")


def test_nothing_is_learnt_from_it_without_the_soft_term() -> None:
    with pytest.raises(UserError, match="nothing is learnt from untranscribed speech at soft_weight 0"):
        from_mapping(Config, {"systems": {"student": soft(**{"from": "x/", "extra": "m", "soft_weight": 0})}}, "c.yaml")


def add_more(toy: Toy, count: int = 5, seed: int = 7) -> list[tuple[str, np.ndarray]]:
    """An untranscribed set of toys."""
    rng = np.random.default_rng(seed)
    arrays = [(f"more{k}", rng.normal(size=(11 + 2 * k, DIMS))) for k in range(count)]
    write_store(toy.work.frames("more"), arrays, scale=toy.train.scale)
    return arrays


def config_of(**systems: Any) -> Config:
    return from_mapping(Config, {"untranscribed": {"more": ["more"]}, "systems": systems}, "toy.yaml")


SYSTEMS = {
    "teacher": HARD | {"members": 3, "folds": 3},
    "narrow": soft(**{"from": "teacher"}),
    "stored": soft(**{"from": "teacher", "extra": "more"}),
    "online": soft(**{"from": "teacher", "extra": ["more"], "online": True}),
}


def test_stored_and_online_targets_of_it_teach_the_same_and_only_its_learners_depend_on_it(tmp_path: Path) -> None:
    toy, config = make_toy(tmp_path / "work"), config_of(**SYSTEMS)
    with pytest.raises(UserError, match=r"frames/more is not there yet; make it first: asr-kd features"):
        train(config, toy.work, OPTIONS)
    add_more(toy)
    results = train(config, toy.work, OPTIONS)
    stores = {result.folder.name for result in results if result.folder.parent.name == "targets"}
    name = config.systems["narrow"].stored_targets.name  # type: ignore[union-attr]
    assert stores == {name, f"{name},set=more"}
    assert toy.weights("stored") != toy.weights("narrow")
    logs = [
        [json.loads(line) for line in (toy.work.exp(system) / "log.jsonl").read_text().splitlines()]
        for system in ("stored", "online")
    ]
    for ours, theirs in zip(*logs, strict=True):
        for key in ("loss", "soft", "hard", "train_accuracy"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
    assert not any(result.ran for result in train(config, toy.work, OPTIONS))

    add_more(toy, seed=8)
    (toy.work.frames("more") / "stamp.json").unlink()
    Stamp("features", {"other": True}, {}).write(toy.work.frames("more") / "stamp.json")
    again = [result.folder.name for result in train(config, toy.work, OPTIONS) if result.ran]
    assert sorted(again) == sorted([f"{name},set=more", "stored", "online"])


def write_targets(toy: Toy, *names: str) -> None:
    """Posteriors of all utterances of some sets, as another toolkit might leave them."""
    directions = np.random.default_rng(5).normal(size=(DIMS, SENONES))
    folder = toy.work.config_path.parent / "theirs"
    folder.mkdir()
    for store in (FrameStore.open(toy.work.frames(name)) for name in names):
        logits = {name: store.normalised(number) @ directions for number, name in enumerate(store.ids)}
        write_posteriors(
            folder, ((name, z - np.log(np.exp(z).sum(1, keepdims=True))) for name, z in logits.items()), "npz"
        )


@pytest.mark.parametrize("length", [1, 8])
def test_with_the_soft_term_alone_it_is_as_if_the_two_sets_were_one(tmp_path: Path, length: int) -> None:
    """The order of frames, the batches and the targets are those of one store with labels everywhere."""
    student = soft(**{"from": "./theirs", "temperature": 1.0, "soft_weight": 1.0})
    if length > 1:
        student |= {"model": {"kind": "tdnn", "width": 4, "dilations": [1], "chunk_frames": length}}
    apart, joined = (make_toy(tmp_path / name) for name in ("apart", "joined"))
    arrays = add_more(apart)
    write_targets(apart, "train", "more")
    learner = student | {"targets": student["targets"] | {"extra": "more"}}
    train(config_of(student=learner), apart.work, OPTIONS)

    store = apart.train
    both = dict(arrays) | {name: np.asarray(store.features[store.span(k)]) for k, name in enumerate(store.ids)}
    order = open_training_set(apart.work, extra=["more"]).frames.ids
    speeds = [dict(zip(store.ids, store.speeds.tolist())).get(name, 1.0) for name in order]
    assert order[1] == store.ids[1]  # the utterance that toys have no labels of
    write_store(joined.work.frames("train"), [(n, both[n]) for n in order], scale=store.scale, speeds=speeds)
    joined.label()
    write_targets(joined, "train")
    train(config_of(student=student), joined.work, OPTIONS)
    assert apart.weights("student") == joined.weights("student")


def test_labels_and_soft_targets_are_those_of_their_frames(tmp_path: Path) -> None:
    """Of every frame, wherever utterances of the two sets come to lie."""
    toy = make_toy(tmp_path / "work")
    add_more(toy)
    data = open_training_set(toy.work, extra=["more"])
    assert [name for name in data.frames.ids if name in data.train.ids] == data.train.ids
    for number, name in enumerate(data.frames.ids):
        span = slice(*data.frames.offsets[number : number + 2])
        store = data.stores["train" if name in data.train.ids else "more"]
        place = store.span(list(store.ids).index(name))
        np.testing.assert_array_equal(data.frames.normalised(number), store.normalised(list(store.ids).index(name)))
        labels = data.with_extra(data.train_labels, -1)[span]
        expected = data.train_labels[place] if store is data.train else np.full(place.stop - place.start, -1)
        np.testing.assert_array_equal(labels, expected)


def test_a_set_that_is_scored_cannot_be_learnt_from_under_its_name(recipe: Recipe) -> None:
    recipe.config = replace(recipe.config, untranscribed={})
    recipe.prepare()
    add_set(recipe.work, "more", ["test"])
    recipe.config = replace(recipe.config, untranscribed=MORE)
    with pytest.raises(UserError, match=r"untranscribed\.more: a set more was added .* give this one another name"):
        recipe.prepare()


def test_killed_while_it_gets_targets_or_is_learnt_from_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(teacher=HARD, student=soft(**{"from": "teacher", "extra": "more"}))
    whole, killed = (make_toy(tmp_path / name) for name in ("whole", "killed"))
    for toy in (whole, killed):
        add_more(toy)
        train(config, toy.work, OPTIONS, ["teacher"])
    make_soft_targets(config, whole.work, OPTIONS)
    train(config, whole.work, OPTIONS, ["student"])

    monkeypatch.setattr("asr_kd.io.append_log.COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "MAX_SHARD_FRAMES", 1)  # a shard is one utterance
    compute, shards = worker.compute_soft_targets, []

    def killed_in_more(shard: worker.Shard) -> worker.SoftTargetShard:
        shards.append((shard.task.frames_folder.name, shard.first))
        if shards[-1] == ("more", 2) and shards.count(("more", 2)) == 1:
            raise KeyboardInterrupt
        return compute(shard)

    monkeypatch.setattr(stage, "compute_soft_targets", killed_in_more)
    with pytest.raises(KeyboardInterrupt):
        make_soft_targets(config, killed.work, OPTIONS, nj=1)
    make_soft_targets(config, killed.work, OPTIONS, nj=1)
    assert shards[-4:] == [("more", k) for k in (2, 2, 3, 4)]  # the training set's are not made again

    step, steps = training._step, []

    def killed_in_the_second_epoch(*arguments: Any) -> None:
        steps.append(1)
        if len(steps) == 9:
            raise KeyboardInterrupt
        step(*arguments)

    monkeypatch.setattr(training, "_step", killed_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(config, killed.work, OPTIONS, ["student"])
    train(config, killed.work, OPTIONS, ["student"])
    assert killed.weights("student") == whole.weights("student")
    rows = [(toy.work.exp("student") / "log.jsonl").read_text().splitlines() for toy in (whole, killed)]
    for ours, theirs in zip(*rows, strict=True):
        assert json.loads(ours)["hard"] == json.loads(theirs)["hard"]
