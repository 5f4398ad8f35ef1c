"""Phones decoded beside words: their bigram, graph, references and scales, and what each of them depends on."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from asr_kd.alignment.set_alignment import FAILED, SEGMENTS
from asr_kd.errors import UserError
from asr_kd.io.files import read_json_lines
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, read_stamp
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.lexicon import write_lang
from asr_kd.lang.ngram import read_arpa, write_arpa
from asr_kd.stages import decode as stage
from asr_kd.stages.decode import decode
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import add_set
from asr_kd.workspace.work import Workspace

from ..stores import write_store
from .test_decode import CONFIG, DIMS, Killed, put_frames, watch
from .test_decode import work as toy_work  # noqa: F401  (a fixture)

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "decoding" / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

TRAIN = {"t0": "SIL a b SIL", "t1": "b c b", "t2": "SIL c a SIL a SIL"}
DEV = ["SIL a b SIL", "c SIL", "SIL b c c"]
TEST = ["SIL c a", None, "b"]  # the second utterance has no alignment, the third too few frames for a phone
WITH_PHONES = dataclasses.replace(
    CONFIG,
    systems={name: CONFIG.systems[name] for name in ("plain", "crowd")},
    decoding=dataclasses.replace(
        CONFIG.decoding, phones=True, phone_acoustic_scales=(0.2, 0.6), phone_penalties=(0.0, 1.0, 2.0)
    ),
)


def put_alignment(work: Workspace, name: str, phones: list[str | None], lengths: list[int], version: int = 1) -> None:
    rows = []
    for utterance, (sequence, frames) in enumerate(zip(phones, lengths, strict=True)):
        names = sequence.split() if sequence else []
        bounds = np.linspace(0, frames, len(names) + 1).astype(int).tolist()
        for number, phone in enumerate(names):
            word = -1 if phone == "SIL" else 0
            rows.append([utterance, toy.PHONES.index(phone), word, bounds[number], bounds[number + 1]])
    frames_stamp = read_stamp(work.frames(name))
    stamp = Stamp("alignment", {"version": version}, {"frames": frames_stamp["digest"]})
    with replacing_folder(work.exp("align") / name, stamp) as folder:
        np.save(folder / SEGMENTS, np.array(rows, np.int32).reshape(-1, 5))
        (folder / FAILED).write_text("{}")


def put_train(work: Workspace, phones: dict[str, str], version: int = 1) -> None:
    """Each utterance with a copy at another speed, whose alignment has other phones."""
    utterances = [(f"{name}{copy}", np.eye(40, DIMS)) for copy in ("", "_sp0.9") for name in phones]
    write_store(work.frames("train"), utterances, speeds=[1.0] * len(phones) + [0.9] * len(phones))
    put_alignment(work, "train", [*phones.values(), *["a a a"] * len(phones)], [40] * len(utterances), version)


@pytest.fixture
def aligned(toy_work) -> Workspace:  # noqa: F811
    work = toy_work
    put_train(work, TRAIN)
    put_alignment(work, "dev", DEV, [20, 27, 34])
    rng = np.random.default_rng(4)
    utterances = [(f"test-{u}", rng.normal(size=(frames, DIMS))) for u, frames in enumerate((20, 27, 2))]
    write_store(work.frames("test"), utterances, texts=["C", "BEE XENON", "AB"], scale=np.ones(DIMS, np.float32))
    put_alignment(work, "test", TEST, [20, 27, 2])
    return work


def phones_of(work: Workspace, system: str, name: str) -> tuple[list[dict], dict]:
    folder = work.decoded_phones(system, name)
    return read_json_lines(folder / "hyps.jsonl"), json.loads((folder / "summary.json").read_text())


def ran(result) -> tuple[set, set]:
    """(system, set) of the words that were decoded, and of the phones."""
    return tuple(
        {(entry.summary["system"], entry.summary["set"]) for entry in entries if entry.ran}
        for entries in (result.decoded, result.phones)
    )


def all_stamps(root: Path) -> dict[str, bytes]:
    return {str(path.parent.relative_to(root)): path.read_bytes() for path in root.glob("exp/**/stamp.json")}


def test_phones_are_compared_with_those_of_the_alignment_and_what_has_none_is_named(aligned, caplog):
    result = decode(WITH_PHONES, aligned, backend="kaldi")
    for system, seeds in (("plain", 2), ("crowd", 1)):
        rows, summary = phones_of(aligned, system, "test")
        assert [(row["utterance"], row["ref"]) for row in rows[:2]] == [("test-0", ["c", "a"]), ("test-2", ["b"])]
        assert len(rows) == 2 * seeds and all({*row["hyp"]} <= {"a", "b", "c"} for row in rows)
        wrong = sum(a != b for row in rows for a, b in row["alignment"])
        assert summary["unit"] == "phone" and summary["errors"]["words"] == 3 * seeds
        assert summary["wer"] == pytest.approx(wrong / (3 * seeds))
        # no phone fits into two frames: its reference counts as deleted; that of the second utterance is not known
        assert [row["alignment"] for row in rows if row["utterance"] == "test-2"] == [[["b", None]]] * seeds
        assert summary["failed"] == ["test-2"] and summary["unaligned"] == ["test-1"]
        dev = phones_of(aligned, system, "dev")[1]
        assert "unaligned" not in dev
        chosen = (dev["acoustic_scale"], dev["word_penalty"])
        assert chosen == (summary["acoustic_scale"], summary["word_penalty"])
        assert chosen[0] in WITH_PHONES.decoding.phone_acoustic_scales
    assert "test: 1 utterances have no alignment, and count in no phone error rate: test-1" in caplog.text
    words, phones = str(result).split("\n\n")
    assert "WER" in words and "PER" not in words and "PER" in phones and "1 without alignment" in phones


def test_the_bigram_is_that_of_the_unaltered_training_utterances(aligned):
    decode(WITH_PHONES, aligned, ["plain"], ["dev"], "kaldi")
    arpa = read_arpa(aligned.phone_lm / "G.arpa")
    expected = estimate([phones.split() for phones in TRAIN.values()], 2)
    assert [level.keys() for level in arpa.probabilities] == [
        expected.probabilities[0].keys() | {("<s>",)},
        expected.probabilities[1].keys(),
    ]
    for history, phone in ((("a",), "SIL"), (("b",), "c"), (("c",), "c")):
        assert arpa.log_probability(history, phone) == pytest.approx(expected.log_probability(history, phone), abs=1e-6)


def test_words_do_not_depend_on_phones_and_phones_on_no_words(aligned):
    without = dataclasses.replace(CONFIG, systems=WITH_PHONES.systems)
    assert ran(decode(without, aligned, ["plain"], backend="kaldi")) == ({("plain", "dev"), ("plain", "test")}, set())
    assert not aligned.phone_lm.exists()
    both = {("plain", "dev"), ("plain", "test")}
    assert ran(decode(WITH_PHONES, aligned, ["plain"], backend="kaldi")) == (set(), both)
    assert ran(decode(WITH_PHONES, aligned, ["plain"], backend="kaldi")) == (set(), set())
    grid = dataclasses.replace(WITH_PHONES.decoding, phone_penalties=(0.0, 1.0))
    config = dataclasses.replace(WITH_PHONES, decoding=grid)
    assert ran(decode(config, aligned, ["plain"], backend="kaldi")) == (set(), both)
    words = dataclasses.replace(config.decoding, word_penalties=(0.0, 1.0), silence_probability=0.1)
    config = dataclasses.replace(config, decoding=words)
    assert ran(decode(config, aligned, ["plain"], backend="kaldi")) == (both, set())
    write_arpa(aligned.lm / "G.arpa", estimate([["C", "BEE"]], 2, toy.LANG.words))
    assert ran(decode(config, aligned, ["plain"], backend="kaldi")) == (both, set())


def test_another_alignment_changes_what_depends_on_it(aligned):
    decode(WITH_PHONES, aligned, ["plain"], backend="kaldi")
    before = all_stamps(aligned.root)
    put_alignment(aligned, "test", ["SIL c b", None, "b"], [20, 27, 2], version=2)
    assert ran(decode(WITH_PHONES, aligned, ["plain"], backend="kaldi")) == (set(), {("plain", "test")})
    put_train(aligned, TRAIN | {"t1": "b a b"}, version=2)
    assert ran(decode(WITH_PHONES, aligned, ["plain"], backend="kaldi"))[0] == set()
    after = all_stamps(aligned.root)
    changed = {name for name in after if before.get(name) != after[name] and "align" not in name}
    decoded = {f"exp/phone_decode/plain/{name}" for name in ("dev", "test")}
    assert changed == {"exp/phone_lm", "exp/phone_graph", *decoded}


def test_a_killed_run_goes_on_where_it_was(aligned, monkeypatch):
    monkeypatch.setattr(stage, "CHUNK_FRAMES", 25)
    decode(WITH_PHONES, aligned, ["plain"], backend="kaldi")
    files = ("dev/hyps.jsonl", "test/hyps.jsonl")
    expected = {name: (aligned.exp("phone_decode") / "plain" / name).read_text() for name in files}
    for name in ("dev", "test"):
        (aligned.decoded_phones("plain", name) / "stamp.json").unlink()
    done: list[str] = []

    def dying(kind, shard):
        if len(done) == 6:
            done.append("died")
            raise Killed
        assert shard.model.graph == aligned.phone_graph("tied")
        done.append(kind)

    watch(monkeypatch, dying)
    with pytest.raises(Killed):
        decode(WITH_PHONES, aligned, ["plain"], backend="kaldi")
    decode(WITH_PHONES, aligned, ["plain"], backend="kaldi")
    shards = {name: 2 * len({int(o) // 25 for o in offsets}) for name, offsets in
              (("dev", (0, 20, 47)), ("test", (0, 20, 47)))}  # fmt: skip
    assert done.count("grid") == shards["dev"] and done.count("words") == sum(shards.values())
    assert {name: (aligned.exp("phone_decode") / "plain" / name).read_text() for name in files} == expected
    assert not list(aligned.root.glob("exp/phone_decode/*/.*"))


def test_what_is_missing_is_said_before_anything_is_decoded(aligned):
    put_frames(aligned, "more", 5, ["BEER", "AB C"])
    add_set(aligned, "more", ("more",))
    with pytest.raises(UserError, match=r"align/more is not there yet; make it first: asr-kd align"):
        decode(WITH_PHONES, aligned, backend="kaldi")
    put_alignment(aligned, "more", [None, None], [20, 27])
    with pytest.raises(UserError, match=r"align/more: no utterance is aligned.*set decoding.phones: false"):
        decode(WITH_PHONES, aligned, backend="kaldi")
    put_alignment(aligned, "more", ["a", "b"], [20, 27])
    put_frames(aligned, "more", 6, ["BEER", "AB C", "C"])
    with pytest.raises(UserError, match=r"align/more is the alignment of other frames than .*more; align again"):
        decode(WITH_PHONES, aligned, backend="kaldi")
    empty = dataclasses.replace(WITH_PHONES.decoding, phone_penalties=())
    with pytest.raises(UserError, match=r"decoding\.phone_penalties need at least one entry"):
        decode(dataclasses.replace(WITH_PHONES, decoding=empty), aligned, sets=["dev"], backend="kaldi")
    assert not aligned.exp("decode").exists() and not aligned.exp("phone_decode").exists()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("lang", "units", "characters"), ("lang", "units", "bpe"), ("decoding", "phones", False)],
)
def test_there_is_no_second_rate_without_a_phone_lexicon(section, key, value):
    assert Config().decodes_phones
    other = dataclasses.replace(getattr(Config(), section), **{key: value})
    assert not dataclasses.replace(Config(), **{section: other}).decodes_phones


def test_both_back_ends_recognise_the_same_phones(aligned):
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    wide = dataclasses.replace(
        WITH_PHONES.decoding, phone_acoustic_scales=(0.3,), phone_penalties=(0.0,), search_beam=200.0, output_beam=1.0,
        max_active=100_000,
    )  # fmt: skip
    config, rows = dataclasses.replace(WITH_PHONES, decoding=wide), {}
    for backend in ("k2", "kaldi"):
        decode(config, aligned, ["plain"], ["dev"], backend)
        rows[backend] = phones_of(aligned, "plain", "dev")[0]
    assert rows["k2"] == rows["kaldi"]


def test_closures_do_not_count_and_a_stop_counts_once(aligned):
    phones = ("SIL", "TCL", "T", "Q")
    lang = dataclasses.replace(toy.LANG, phones=phones)
    with replacing_folder(aligned.lang, Stamp("lang", {"closures": True}, {})) as folder:
        write_lang(folder, lang)
    from asr_kd.stages.decode_context import decode_context, phone_context

    closed = dataclasses.replace(WITH_PHONES, lang=dataclasses.replace(WITH_PHONES.lang, closures=True))
    context = phone_context(decode_context(closed, aligned, ("dev",), "kaldi", 1))
    # "SIL a b SIL", "c SIL", "SIL b c c" are now SIL TCL T SIL, Q SIL, SIL T Q Q
    assert [context.scoring.scored(reference) for reference in context.references("dev")] == [["T"], [], ["T"]]
