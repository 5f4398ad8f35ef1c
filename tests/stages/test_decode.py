"""The decode stage on a toy recipe: what it writes, when it works again, and that test sets never choose anything."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.model_files import save_model
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.alignment.tree import write_tree
from asr_kd.cli import main
from asr_kd.decoding.decoder import Hypothesis
from asr_kd.decoding.settings import BACKENDS, Backend, DecodingConfig, chosen_backend
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Scoring
from asr_kd.evaluation.wer import align_words
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import read_json_lines
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, read_stamp
from asr_kd.lang.lexicon import write_lang
from asr_kd.lang.ngram import write_arpa
from asr_kd.settings import to_mapping
from asr_kd.stages import decode as stage
from asr_kd.stages import decode_context
from asr_kd.stages.decode import decode
from asr_kd.stages.decoding_graph import open_graph
from asr_kd.workspace.config import Config, SystemConfig
from asr_kd.workspace.same_files import OnSameFiles
from asr_kd.workspace.sets import add_set
from asr_kd.workspace.work import Workspace

from ..stores import write_store

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "decoding" / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

DIMS = 4
MODEL = DnnConfig(layers=1, width=8, left_context=1, right_context=1)
CONFIG = Config(
    systems={
        "plain": SystemConfig(model=MODEL, seeds=2),
        "crowd": SystemConfig(model=MODEL, members=3),
        "untrained": SystemConfig(model=MODEL),
    },
    decoding=DecodingConfig(acoustic_scales=(0.1, 0.3, 0.9), word_penalties=(-1.0, 0.0, 1.0), phones=False),
)


def put_tree(work: Workspace, variants: int) -> None:
    with replacing_folder(work.tree("tied"), Stamp("tree", {"variants": variants}, {})) as folder:
        write_tree(toy.toy_tree(np.random.default_rng(variants), variants), folder)


def put_model(work: Workspace, name: str, members: int, num_dims: int = DIMS) -> None:
    model = build_model(MODEL, num_dims=num_dims, num_senones=len(toy.PHONES) * 3 * 2, seeds=range(members))
    with replacing_folder(work.exp(name), Stamp("train", {"members": members}, {})) as folder:
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
    put_model(work, "plain", 2)
    put_model(work, "crowd", 3)
    return work


def test_writes_hypotheses_with_alignments_and_a_summary_that_adds_up(work):
    result = decode(CONFIG, work, backend="kaldi")
    assert result.ran and "plain" in str(result) and "crowd" in str(result)
    for system, seeds in (("plain", 2), ("crowd", 1)):
        folder = work.decoded(system, "test")
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
        dev = json.loads((work.decoded(system, "dev") / "summary.json").read_text())
        assert [dev[k] for k in ("acoustic_scale", "word_penalty")] == [
            summary[k] for k in ("acoustic_scale", "word_penalty")
        ]


def test_a_second_run_does_nothing_and_a_changed_test_set_redoes_test_alone(work):
    decode(CONFIG, work, backend="kaldi")
    assert not decode(CONFIG, work, backend="kaldi").ran
    put_frames(work, "test", 3, ["C C", "BEE", "AB"])
    made = {(d.summary["system"], d.summary["set"]): d.ran for d in decode(CONFIG, work, backend="kaldi").decoded}
    assert made == {("plain", "dev"): False, ("plain", "test"): True,
                    ("crowd", "dev"): False, ("crowd", "test"): True}  # fmt: skip


def test_each_process_looks_whether_it_sees_the_same_models_graph_tree_and_frames(work, monkeypatch):
    looked = []
    look = OnSameFiles._look

    def noted(function) -> None:
        looked.append({path.relative_to(work.root).as_posix() for path in function._identities})
        look(function)

    monkeypatch.setattr(OnSameFiles, "_look", noted)
    decode(CONFIG, work, backend="kaldi")
    models = {"exp/plain", "exp/crowd", "exp/graph", "exp/tree"}
    assert looked == [models | {"data/frames/dev"}, models | {"data/frames/dev", "data/frames/test"}]


def watch(monkeypatch, see) -> None:
    """Calls see("grid" or "words", shard) before each shard of a grid or of words."""

    def watched(function, kind):
        def call(*arguments):
            see(kind, arguments[-1])
            return function(*arguments)

        return call

    monkeypatch.setattr(stage, "score_grid", watched(stage.score_grid, "grid"))
    monkeypatch.setattr(stage, "decode_shard", watched(stage.decode_shard, "words"))


def scales_of(work: Workspace, system: str, name: str) -> tuple[float, float]:
    summary = json.loads((work.decoded(system, name) / "summary.json").read_text())
    return summary["acoustic_scale"], summary["word_penalty"]


def test_scales_are_frozen_on_dev_before_test_is_decoded(work, monkeypatch):
    seen = []
    watch(monkeypatch, lambda kind, shard: seen.append((kind, shard)))
    decode(CONFIG, work, backend="kaldi")
    assert {shard.frames.name for kind, shard in seen if kind == "grid"} == {"dev"}
    kinds = [kind for kind, _ in seen]
    assert kinds == sorted(kinds), "every grid comes before any decoding"
    searches = {(s.model.folder.name, s.search.acoustic_scale, s.search.word_penalty) for k, s in seen if k == "words"}
    assert len(searches) == 2, "one pair of scales per system, for all seeds and both sets"

    before = {system: scales_of(work, system, "test") for system in ("plain", "crowd")}
    put_frames(work, "test", 99, ["SEA SEA SEA", "AB"])
    decode(CONFIG, work, backend="kaldi")
    assert {system: scales_of(work, system, "test") for system in before} == before


def test_a_set_that_is_added_is_decoded_alone(work, monkeypatch):
    decode(CONFIG, work, backend="kaldi")
    before = {path: path.read_bytes() for path in work.root.rglob("stamp.json")}
    put_frames(work, "more", 5, ["BEER", "AB C"])
    add_set(work, "more", ("more",))
    seen = []
    watch(monkeypatch, lambda kind, shard: seen.append((kind, shard.frames.name)))
    made = {(d.summary["system"], d.summary["set"]): d.ran for d in decode(CONFIG, work, backend="kaldi").decoded}
    assert made == {(system, name): name == "more" for system in ("plain", "crowd") for name in ("dev", "test", "more")}
    assert set(seen) == {("words", "more")}
    assert {path: path.read_bytes() for path in before} == before
    assert scales_of(work, "crowd", "more") == scales_of(work, "crowd", "dev")


def test_decoding_test_alone_still_takes_its_scales_from_dev(work):
    result = decode(CONFIG, work, systems=["plain"], sets=["test"], backend="kaldi")
    assert [one.summary["set"] for one in result.decoded] == ["test"]
    assert read_stamp(work.decoded("plain", "dev")) is not None


class Killed(BaseException):
    """What no code catches by mistake."""


def test_shards_that_are_done_are_not_done_again(work, monkeypatch):
    """Killed in the middle of the words, and before that of the grids, it goes on there, to the same files."""
    monkeypatch.setattr(stage, "CHUNK_FRAMES", 25)
    decode(CONFIG, work, backend="kaldi")
    expected = {path: path.read_text() for path in work.root.glob("exp/decode/*/*/hyps.jsonl")}
    assert len(expected) == 4 and not list(work.root.glob("exp/decode/*/.*"))
    shutil.rmtree(work.exp("decode"))
    done = []

    def dying(kind, shard):
        if len(done) in (3, 10):
            done.append("died")
            raise Killed
        done.append(kind)

    watch(monkeypatch, dying)
    for _ in range(2):
        with pytest.raises(Killed):
            decode(CONFIG, work, backend="kaldi")
    assert done.count("died") == 2
    decode(CONFIG, work, backend="kaldi")
    search = None
    dev, test = (len(stage.shards_of(FrameStore.open(work.frames(name)), [None], search)) for name in ("dev", "test"))
    assert dev > 1 and done.count("grid") == 3 * dev and done.count("words") == 3 * (dev + test)  # of three models
    assert {path: path.read_text() for path in work.root.glob("exp/decode/*/*/hyps.jsonl")} == expected
    assert not list(work.root.glob("exp/decode/*/.*"))


def test_words_do_not_depend_on_how_many_run_at_once(work, monkeypatch):
    monkeypatch.setattr(stage, "CHUNK_FRAMES", 25)
    decode(CONFIG, work, systems=["plain"], backend="kaldi", nj=1)
    alone = (work.decoded("plain", "test") / "hyps.jsonl").read_text()
    for name in ("dev", "test"):
        (work.decoded("plain", name) / "stamp.json").unlink()
    decode(CONFIG, work, systems=["plain"], backend="kaldi", nj=2)
    assert (work.decoded("plain", "test") / "hyps.jsonl").read_text() == alone


def test_phones_are_scored_as_their_classes_and_another_map_decodes_again(work, monkeypatch):
    classes = {"AB": "A", "BEE": "B", "BEER": "B", "C": "SIL", "SEA": "SIL", "XENON": None}
    monkeypatch.setattr(decode_context, "scoring_of", lambda *_: Scoring(classes))
    result = decode(CONFIG, work, systems=["plain"], backend="kaldi")
    assert "PER" in str(result) and "with silence" in str(result) and "WER" not in str(result)
    summary = json.loads((work.decoded("plain", "dev") / "summary.json").read_text())
    rows = read_json_lines(work.decoded("plain", "dev") / "hyps.jsonl")
    assert summary["unit"] == "phone" and [row["ref"] for row in rows[:3]] == [["A", "B"], [], ["B"]]
    assert [row["with_silence"]["ref"] for row in rows[:3]] == [["A", "B"], ["SIL"], ["B", "SIL"]]
    assert summary["errors"]["words"] == 3 * 2 and summary["with_silence"]["errors"]["words"] == 5 * 2
    for row in rows:
        assert {classes[word] for word in row["recognised"]} >= {*row["hyp"], *row["with_silence"]["hyp"]}
        assert "SIL" not in row["hyp"]
    wrong = sum(a != b for row in rows for a, b in align_words(*(row["with_silence"][k] for k in ("ref", "hyp"))))
    assert summary["with_silence"]["wer"] == pytest.approx(wrong / 10)
    assert not decode(CONFIG, work, systems=["plain"], backend="kaldi").ran
    monkeypatch.setattr(decode_context, "scoring_of", lambda *_: Scoring(classes | {"AB": "B"}))
    assert decode(CONFIG, work, systems=["plain"], backend="kaldi").ran
    assert read_json_lines(work.decoded("plain", "dev") / "hyps.jsonl")[0]["ref"] == ["B", "B"]


def test_both_back_ends_write_the_same_words(work):
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    wide = DecodingConfig(acoustic_scales=(0.3,), word_penalties=(0.0,), search_beam=200.0, output_beam=1.0,
                          max_active=100_000, phones=False)  # fmt: skip
    config, rows = dataclasses.replace(CONFIG, decoding=wide), {}
    for backend in ("k2", "kaldi"):
        decode(config, work, systems=["plain"], backend=backend)
        rows[backend] = read_json_lines(work.decoded("plain", "test") / "hyps.jsonl")
    assert rows["k2"] == rows["kaldi"]


def test_models_that_answer_together_now_are_decoded_again(work):
    decode(CONFIG, work, ["plain"], ["dev"], "kaldi")
    together = dataclasses.replace(CONFIG, systems={"plain": SystemConfig(model=MODEL, members=2)})
    (entry,) = decode(together, work, ["plain"], ["dev"], "kaldi").decoded
    assert entry.ran and entry.summary["seeds"] == 1


def test_a_new_tree_makes_a_new_graph_and_refuses_the_old_model(work):
    decode(CONFIG, work, backend="kaldi")
    old = read_stamp(work.graph("tied"))
    put_tree(work, 3)
    with pytest.raises(UserError, match=r"plain has 24 senones but .*tree has 36"):
        decode(CONFIG, work, backend="kaldi")
    assert read_stamp(work.graph("tied"))["digest"] != old["digest"]


def test_a_graph_of_another_tree_is_refused_naming_both(work):
    decode(CONFIG, work, backend="kaldi")
    folder = work.graph("tied")
    old = read_stamp(folder)
    stamp = Stamp(old["step"], old["settings"], old["inputs"], version=old["version"])
    assert open_graph(folder, stamp, work).num_senones == 24
    other = dataclasses.replace(stamp, inputs=stamp.inputs | {"tree": "second"})
    with pytest.raises(UserError, match=rf"tree {old['inputs']['tree']}, but tree is second"):
        open_graph(folder, other, work)


def test_missing_things_are_named_with_the_command_that_makes_them(work, tmp_path):
    with pytest.raises(UserError, match="untrained is not there yet; make it first: asr-kd train untrained"):
        decode(CONFIG, work, systems=["untrained"], backend="kaldi")
    with pytest.raises(UserError, match="no system 'best' in the config; it has: plain, crowd, untrained"):
        decode(CONFIG, work, systems=["best"], backend="kaldi")
    with pytest.raises(UserError, match="no set 'train' to score; there are: dev, test"):
        decode(CONFIG, work, sets=["train"], backend="kaldi")
    with pytest.raises(UserError, match="no decoder 'sphinx'; there are: k2, native, kaldi"):
        decode(CONFIG, work, backend="sphinx")
    empty = Workspace(tmp_path / "empty", Path("toy.yaml"))
    with pytest.raises(UserError, match=r"no system of toy\.yaml is trained yet; train them first: asr-kd train"):
        decode(CONFIG, empty, backend="kaldi")
    (work.lm / "G.arpa").unlink()
    with pytest.raises(UserError, match=r"G\.arpa is not there yet; make it first: asr-kd prepare"):
        decode(CONFIG, work, backend="kaldi")


class ToyDecoder:
    """Hears the same word everywhere."""

    def __init__(self, graph, settings, *, acoustic_scale, word_penalty=0.0):
        self.words = (graph.words[0],)

    def decode(self, loglikes):
        return [Hypothesis(self.words, -1.0) for _ in loglikes]

    def decode_grid(self, loglikes, scales, penalties):
        return [tuple((self.words,) * len(penalties) for _ in scales) for _ in loglikes]


def run_command(work: Workspace, *options: str):
    config = work.root / "toy.yaml"
    config.write_text(yaml.safe_dump(json.loads(json.dumps(to_mapping(CONFIG)))))
    command = ["decode", "--config", str(config), "--work-dir", str(work.root), "--nj", "1", *options]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def test_characters_are_counted_beside_words(work, monkeypatch):
    monkeypatch.setattr(decode_context, "scoring_of", lambda *_: Scoring(characters=True))
    result = decode(CONFIG, work, systems=["plain"], sets=["test"], backend="kaldi")
    summary = json.loads((work.decoded("plain", "test") / "summary.json").read_text())
    rows = read_json_lines(work.decoded("plain", "test") / "hyps.jsonl")
    spelled = [["".join(row[side]) for side in ("ref", "hyp")] for row in rows]
    wrong = [sum(ref != hyp for ref, hyp in align_words(*map(list, sides))) for sides in spelled]
    counted = summary["characters"]
    assert counted["errors"]["words"] == sum(len(ref) for ref, _ in spelled) == 2 * len("CBEEXENON")
    assert counted["wer"] == sum(wrong) / counted["errors"]["words"] == pytest.approx(np.mean(counted["wer_per_seed"]))
    head, _, line = str(result).splitlines()
    column = head.index("CER") + len("CER")
    assert line[:column].endswith(f" {counted['wer']:.2%}") and f" {summary['wer']:.2%} " in line
    monkeypatch.setattr(decode_context, "scoring_of", lambda *_: Scoring())
    assert "CER" not in str(decode(CONFIG, work, systems=["plain"], sets=["test"], backend="kaldi"))
    assert "characters" not in json.loads((work.decoded("plain", "test") / "summary.json").read_text())


def test_a_decoder_is_added_by_a_line_in_the_registry(work, monkeypatch):
    monkeypatch.setitem(BACKENDS, "toy", Backend(f"{__name__}:ToyDecoder", package="numpy"))
    result = run_command(work, "--decoder", "toy", "--system", "plain")
    assert result.exit_code == 0, result.output
    assert all(row["hyp"] == ["AB"] for row in read_json_lines(work.decoded("plain", "test") / "hyps.jsonl"))
    result = run_command(work, "--decoder", "toy", "--rescore-lm", "none.arpa")
    assert result.exit_code == 2 and "needs a decoder that keeps lattices: --decoder k2 or native" in result.output


@pytest.mark.parametrize(
    ("installed", "expected"),
    [(("k2", "native", "kaldi"), "k2"), (("native", "kaldi"), "native"), (("kaldi",), "kaldi")],
)
def test_the_first_installed_decoder_is_taken_and_named(work, monkeypatch, installed, expected):
    entries = {
        name: dataclasses.replace(entry, package="numpy" if name in installed else "not_installed")
        for name, entry in BACKENDS.items()
    }
    monkeypatch.setattr("asr_kd.decoding.settings.BACKENDS", entries)
    assert chosen_backend(None) == expected


def test_the_command_says_which_decoder_it_takes(work, caplog):
    run_command(work, "--system", "plain")
    assert any(message.startswith("decoding with ") for message in caplog.messages)


@pytest.mark.parametrize("empty", ["acoustic_scales", "word_penalties"])
def test_an_empty_grid_is_named(work, empty):
    with pytest.raises(UserError, match=f"decoding.{empty}"):
        decode(dataclasses.replace(CONFIG, decoding=DecodingConfig(phones=False, **{empty: ()})), work, backend="kaldi")


def test_alignments_of_empty_sides():
    assert align_words([], []) == []
    assert align_words(["A"], []) == [("A", None)]
    assert align_words([], ["A"]) == [(None, "A")]
