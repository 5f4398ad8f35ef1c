"""The decode stage on a toy recipe: what it writes, when it works again, and that test never chooses anything."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from asr_kd.acoustic.model import AcousticModel, save_model
from asr_kd.alignment.tree import write_tree
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Scoring
from asr_kd.evaluation.wer import align_words
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.io.files import read_json_lines
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, read_stamp
from asr_kd.lang.lexicon import write_lang
from asr_kd.lang.ngram import write_arpa
from asr_kd.stages import decode as stage
from asr_kd.stages.decode import decode
from asr_kd.stages.decode_cache import GRIDS, WORDS
from asr_kd.workspace.config import Config, DecodingConfig, ModelConfig
from asr_kd.workspace.work import Workspace

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "decoding" / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

CONFIG = Config(decoding=DecodingConfig(acoustic_scales=(0.1, 0.3, 0.9), word_penalties=(-1.0, 0.0, 1.0)))
DIMS = 4


def put_tree(work: Workspace, variants: int) -> None:
    with replacing_folder(work.exp("tree"), Stamp("tree", {"variants": variants}, {})) as folder:
        write_tree(toy.toy_tree(np.random.default_rng(variants), variants), folder)


def put_model(work: Workspace, name: str, members: int, variants: int = 2, seed: int = 0) -> None:
    settings = ModelConfig(layers=1, width=8, left_context=1, right_context=1)
    states = len(toy.PHONES) * 3 * variants
    model = AcousticModel(settings, 3 * DIMS, states, list(range(seed, seed + members)))
    stamp = Stamp("train", {"members": members}, {}, seed)
    with replacing_folder(work.exp(name), stamp, {"tree": "tree", "states": "states"}) as folder:
        save_model(model, folder)


def put_frames(work: Workspace, name: str, seed: int, texts: list[str]) -> None:
    rng = np.random.default_rng(seed)
    utterances = [(f"{name}-{u}", rng.normal(size=(20 + 7 * u, DIMS))) for u in range(len(texts))]
    write_store(work.frames(name), utterances, texts=texts, scale=np.ones(DIMS, np.float32))


@pytest.fixture
def work(tmp_path) -> Workspace:
    work = Workspace(tmp_path, Path("toy.yaml"))
    with replacing_folder(work.lang, Stamp("lang", {}, {})) as folder:
        write_lang(folder, toy.LANG)
    work.lm.mkdir(parents=True)
    write_arpa(work.lm / "G.arpa", toy.ARPA)
    put_frames(work, "dev", 1, ["AB BEE", "SEA", "BEER C"])
    put_frames(work, "test", 2, ["C", "BEE XENON"])
    put_tree(work, 2)
    put_model(work, "baseline", 2)
    put_model(work, "teacher", 3)
    return work


def test_writes_hypotheses_with_alignments_and_a_summary_that_adds_up(work):
    result = decode(CONFIG, work, backend="kaldi")
    assert result.made and "direct" in str(result) and "ensemble" in str(result)
    for system, seeds in (("direct", 2), ("ensemble", 1)):
        folder = work.exp(f"decode_{system}_test")
        summary = json.loads((folder / "summary.json").read_text())
        rows = read_json_lines(folder / "hyps.jsonl")
        assert [(row["seed"], row["utterance"]) for row in rows] == [
            (seed, name) for seed in range(seeds) for name in ("test-0", "test-1")
        ]
        for row in rows:
            assert [ref for ref, _ in row["alignment"] if ref is not None] == row["ref"]
            assert [hyp for _, hyp in row["alignment"] if hyp is not None] == row["hyp"]
        wrong = [pair for row in rows for pair in row["alignment"] if pair[0] != pair[1]]
        assert summary["errors"]["words"] == 3 * seeds == summary["seeds"] * 3
        assert sum(summary["errors"][kind] for kind in ("ins", "del", "sub")) == len(wrong)
        assert summary["wer"] == pytest.approx(len(wrong) / (3 * seeds))
        assert np.mean(summary["wer_per_seed"]) == pytest.approx(summary["wer"])
        assert (summary["oov_words"], summary["oov_rate"]) == (1, pytest.approx(1 / 3))
        assert summary["audio_seconds"] == pytest.approx(0.47)
        assert summary["rtf"] == pytest.approx(summary["seconds"] / seeds / 0.47, abs=0.01)
        dev = json.loads((work.exp(f"decode_{system}_dev") / "summary.json").read_text())
        assert [dev[k] for k in ("acoustic_scale", "word_penalty")] == [
            summary[k] for k in ("acoustic_scale", "word_penalty")
        ]


def test_a_second_run_does_nothing_and_a_changed_test_set_redoes_test_alone(work):
    decode(CONFIG, work, backend="kaldi")
    assert not decode(CONFIG, work, backend="kaldi").made
    put_frames(work, "test", 3, ["C C", "BEE", "AB"])
    made = {(d.summary["system"], d.summary["set"]): d.made for d in decode(CONFIG, work, backend="kaldi").decoded}
    assert made == {("direct", "dev"): False, ("direct", "test"): True,
                    ("ensemble", "dev"): False, ("ensemble", "test"): True}  # fmt: skip


def test_scales_are_frozen_on_dev_before_test_is_decoded(work, monkeypatch):
    seen = []
    for name, kind in (("GRIDS", GRIDS), ("WORDS", WORDS)):
        watched = lambda piece, what=name, work=kind.work: seen.append((what, piece)) or work(piece)  # noqa: E731
        monkeypatch.setattr(stage, name, dataclasses.replace(kind, work=watched))

    decode(CONFIG, work, backend="kaldi")
    assert {piece.frames.name for what, piece in seen if what == "GRIDS"} == {"dev"}
    kinds = [what for what, _ in seen]
    assert kinds == sorted(kinds), "every grid comes before any decoding"
    scales = {(p.net.model.name, p.acoustic_scale, p.word_penalty) for what, p in seen if what == "WORDS"}
    assert len(scales) == 2, "one pair of scales per system, for all seeds and both sets"

    before = {system: json.loads((work.exp(f"decode_{system}_test") / "summary.json").read_text())
              for system in ("direct", "ensemble")}  # fmt: skip
    put_frames(work, "test", 99, ["SEA SEA SEA", "AB"])
    decode(CONFIG, work, backend="kaldi")
    for system, summary in before.items():
        after = json.loads((work.exp(f"decode_{system}_test") / "summary.json").read_text())
        assert (after["acoustic_scale"], after["word_penalty"]) == (summary["acoustic_scale"], summary["word_penalty"])


def test_decoding_test_alone_still_takes_its_scales_from_dev(work):
    result = decode(CONFIG, work, systems=["direct"], sets=["test"], backend="kaldi")
    assert [one.summary["set"] for one in result.decoded] == ["test"]
    assert read_stamp(work.exp("decode_direct_dev")) is not None


class Killed(BaseException):
    """What no code catches by mistake."""


def test_pieces_that_are_done_are_not_done_again(work, monkeypatch):
    """Killed in the middle of the words, and before that of the grids, it goes on there, to the same files."""
    monkeypatch.setattr(stage, "CHUNK_FRAMES", 25)
    decode(CONFIG, work, backend="kaldi")
    expected = {p: p.read_text() for p in work.root.glob("exp/decode_*/hyps.jsonl")}
    assert len(expected) == 4 and not list(work.root.glob("exp/.decode*"))
    for folder in work.root.glob("exp/decode_*"):
        shutil.rmtree(folder)
    done = []
    for name, kind in (("GRIDS", GRIDS), ("WORDS", WORDS)):

        def dying(piece, what=name, work=kind.work):
            if len(done) in (3, 10):
                done.append("died")
                raise Killed
            done.append(what)
            return work(piece)

        monkeypatch.setattr(stage, name, dataclasses.replace(kind, work=dying))
    for _ in range(2):
        with pytest.raises(Killed):
            decode(CONFIG, work, backend="kaldi")
    assert done.count("died") == 2
    decode(CONFIG, work, backend="kaldi")
    dev, test = (len(list(stage.chunks_of(FrameStore.open(work.frames(name))))) for name in ("dev", "test"))
    assert dev > 1 and done.count("GRIDS") == 3 * dev and done.count("WORDS") == 3 * (dev + test)  # of three nets
    assert {p: p.read_text() for p in work.root.glob("exp/decode_*/hyps.jsonl")} == expected
    assert not list(work.root.glob("exp/.decode*"))


def test_words_do_not_depend_on_how_many_run_at_once(work, monkeypatch):
    monkeypatch.setattr(stage, "CHUNK_FRAMES", 25)
    decode(CONFIG, work, systems=["direct"], backend="kaldi", nj=1)
    alone = (work.exp("decode_direct_test") / "hyps.jsonl").read_text()
    for name in ("dev", "test"):
        (work.exp(f"decode_direct_{name}") / "stamp.json").unlink()
    decode(CONFIG, work, systems=["direct"], backend="kaldi", nj=2)
    assert (work.exp("decode_direct_test") / "hyps.jsonl").read_text() == alone


def test_phones_are_scored_as_their_classes_and_another_map_decodes_again(work, monkeypatch):
    classes = {"AB": "A", "BEE": "B", "BEER": "B", "C": "SIL", "SEA": "SIL", "XENON": None}
    monkeypatch.setattr(stage, "scoring_of", lambda config, work: Scoring(classes))
    result = decode(CONFIG, work, systems=["direct"], backend="kaldi")
    assert "PER" in str(result) and "with silence" in str(result) and "WER" not in str(result)
    summary = json.loads((work.exp("decode_direct_dev") / "summary.json").read_text())
    rows = read_json_lines(work.exp("decode_direct_dev") / "hyps.jsonl")
    assert summary["unit"] == "phone" and [row["ref"] for row in rows[:3]] == [["A", "B"], [], ["B"]]
    assert [row["with_silence"]["ref"] for row in rows[:3]] == [["A", "B"], ["SIL"], ["B", "SIL"]]
    assert summary["errors"]["words"] == 3 * 2 and summary["with_silence"]["errors"]["words"] == 5 * 2
    for row in rows:
        assert {classes[word] for word in row["recognised"]} >= {*row["hyp"], *row["with_silence"]["hyp"]}
        assert "SIL" not in row["hyp"]
    wrong = sum(a != b for row in rows for a, b in align_words(*(row["with_silence"][k] for k in ("ref", "hyp"))))
    assert summary["with_silence"]["wer"] == pytest.approx(wrong / 10)
    assert not decode(CONFIG, work, systems=["direct"], backend="kaldi").made
    monkeypatch.setattr(stage, "scoring_of", lambda config, work: Scoring(classes | {"AB": "B"}))
    assert decode(CONFIG, work, systems=["direct"], backend="kaldi").made
    assert read_json_lines(work.exp("decode_direct_dev") / "hyps.jsonl")[0]["ref"] == ["B", "B"]


def test_both_back_ends_write_the_same_words(work):
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    wide = DecodingConfig(acoustic_scales=(0.3,), word_penalties=(0.0,), search_beam=200.0, output_beam=1.0,
                          max_active=100_000)  # fmt: skip
    config, rows = dataclasses.replace(CONFIG, decoding=wide), {}
    for backend in ("k2", "kaldi"):
        decode(config, work, systems=["direct"], backend=backend)
        rows[backend] = read_json_lines(work.exp("decode_direct_test") / "hyps.jsonl")
    assert rows["k2"] == rows["kaldi"]


def test_a_new_tree_makes_a_new_graph_and_refuses_the_old_model(work):
    decode(CONFIG, work, backend="kaldi")
    old = read_stamp(work.exp("graph"))
    put_tree(work, 3)
    with pytest.raises(UserError, match=r"baseline gives 24 tied states but .*tree has 36"):
        decode(CONFIG, work, backend="kaldi")
    assert read_stamp(work.exp("graph"))["digest"] != old["digest"]


def test_missing_things_are_named_with_the_command_that_makes_them(work, tmp_path):
    with pytest.raises(UserError, match="student is not there yet; make it first: asr-kd distill"):
        decode(CONFIG, work, systems=["distilled"], backend="kaldi")
    with pytest.raises(UserError, match="no system 'best'; known: direct, ensemble"):
        decode(CONFIG, work, systems=["best"], backend="kaldi")
    empty = Workspace(tmp_path / "empty", Path("toy.yaml"))
    with pytest.raises(UserError, match="no model to decode"):
        decode(CONFIG, empty, backend="kaldi")
    (work.lm / "G.arpa").unlink()
    with pytest.raises(UserError, match=r"G\.arpa is not there yet; make it first: asr-kd prepare"):
        decode(CONFIG, work, backend="kaldi")


@pytest.mark.parametrize("empty", ["acoustic_scales", "word_penalties"])
def test_an_empty_grid_is_named(work, empty):
    with pytest.raises(UserError, match=f"decoding.{empty}"):
        decode(dataclasses.replace(CONFIG, decoding=DecodingConfig(**{empty: ()})), work, backend="kaldi")


def test_alignments_of_empty_sides():
    assert align_words([], []) == []
    assert align_words(["A"], []) == [("A", None)]
    assert align_words([], ["A"]) == [(None, "A")]
