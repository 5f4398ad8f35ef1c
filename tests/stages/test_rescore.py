"""Lists of hypotheses hold what the lattice holds, and a second model's scores take the place of the first's."""

import gzip
import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.decoding.decoder import make_decoder
from asr_kd.decoding.graph import compile_graph
from asr_kd.decoding.settings import DecodingConfig
from asr_kd.errors import UserError
from asr_kd.io.files import read_json_lines
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.ngram import Arpa, read_arpa, read_vocabulary, write_arpa
from asr_kd.lang.settings import LangConfig
from asr_kd.stages.decode import decode
from asr_kd.stages.nbest import read_lists
from asr_kd.stages.rescore import RescoreResult, _difference, check_models, rescore
from asr_kd.workspace.work import Workspace

from ..stores import write_store
from .test_decode import CONFIG, work  # noqa: F401  (a fixture)

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "decoding" / "toy.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)


@pytest.fixture(params=["k2", "native"])
def backend(request) -> str:
    if request.param == "k2":
        pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    return request.param


EXHAUSTIVE = DecodingConfig(search_beam=1000.0, output_beam=1000.0, max_active=100_000)
SCALE = 0.4


@pytest.fixture(scope="module")
def tree():
    return toy.toy_tree(np.random.default_rng(3), 2)


@pytest.fixture(scope="module")
def graph(tree):
    return compile_graph(toy.LANG, toy.ARPA, tree, toy.SILENCE)


def test_a_list_begins_with_the_best_path_and_has_each_word_sequence_once(graph, backend) -> None:
    rng = np.random.default_rng(0)
    loglikes = [(3 * rng.normal(size=(length, graph.num_senones))).astype(np.float32) for length in (25, 60, 9)]
    decoder = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=SCALE)
    best, lists, again = (
        decoder.decode(loglikes),
        decoder.nbest(loglikes, 100, 1000),
        decoder.nbest(loglikes, 100, 1000),
    )
    for one, answer, same in zip(best, lists, again, strict=True):
        totals = SCALE * answer.acoustic + answer.graph
        assert answer.words[0] == one.words and totals[0] == pytest.approx(one.score, rel=1e-5)
        assert (np.diff(totals) <= 0).all()
        assert len(set(answer.words)) == len(answer.words) == len(totals) > 3
        assert same.words == answer.words and np.array_equal(same.acoustic, answer.acoustic)


def test_scores_do_not_depend_on_which_paths_were_drawn(graph, backend) -> None:
    """A drawn path has its words at random times: its score is not the words' own."""
    flat = (2 * np.random.default_rng(1).normal(size=(40, graph.num_senones))).astype(np.float32)
    decoder = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=SCALE)
    few, many = (decoder.nbest([flat], draws, 1000)[0] for draws in (100, 800))
    scores = zip(many.acoustic, many.graph, strict=True)
    others = dict(zip(many.words, scores, strict=True))
    shared = [k for k, words in enumerate(few.words) if words in others]
    assert len(shared) > 5
    for k in shared:
        assert (few.acoustic[k], few.graph[k]) == others[few.words[k]]
    (short,) = decoder.nbest([flat], 400, 10)
    assert len(short.words) == 10 and short.words[0] == many.words[0]


def test_scores_of_a_list_are_those_of_its_words(graph, tree, backend) -> None:
    """Graph scores by the language model, and the best total by trying every path through a short utterance."""
    loglike = (3 * np.random.default_rng(5).normal(size=(7, graph.num_senones))).astype(np.float32)
    (answer,) = make_decoder(backend, graph, EXHAUSTIVE, acoustic_scale=SCALE).nbest([loglike], 300, 1000)
    best, words = toy.best_by_trying_all(tree, loglike, scale=SCALE, penalty=0.0)
    assert answer.words[0] in words
    total = SCALE * answer.acoustic[0] + answer.graph[0]
    assert total == pytest.approx(best, rel=1e-3)  # the graph is rounded to 1/1024
    # A graph score has, beside the language model's, a silence or none in each place, and one way on for each frame.
    # Of rare hypotheses a worse path through the back-off model may have been drawn: the likeliest ones are looked at.
    for hypothesis, score in list(zip(answer.words, answer.graph, strict=True))[:8]:
        rest = score - toy.language_score(toy.ARPA, hypothesis) - len(loglike) * np.log(0.5)
        places = len(hypothesis) + 1
        silences = [k * np.log(toy.SILENCE) + (places - k) * np.log(1 - toy.SILENCE) for k in range(places + 1)]
        assert min(abs(rest - silence) for silence in silences) < 0.02


def test_only_the_ngrams_asked_for_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    whole = tmp_path / "lm.arpa"
    write_arpa(whole, toy.ARPA)
    path.write_bytes(gzip.compress(whole.read_bytes()))
    words = ("BEE", "SEA", "AB")
    sentence = ("<s>", *words, "</s>")
    needed = {sentence[a:b] for a in range(5) for b in range(a + 1, min(a + 3, 5) + 1)}
    some = read_arpa(path, needed)
    assert sum(map(len, some.probabilities)) < sum(map(len, toy.ARPA.probabilities))
    assert some.sentence_score(words) == pytest.approx(toy.ARPA.sentence_score(words), abs=1e-5)
    assert read_vocabulary(path) == (3, {*toy.LANG.words, "<s>", "</s>"})
    whole.write_text(whole.read_text().replace("ngram 2=", "ngram 2=1"))
    with pytest.raises(UserError, match=r"says .* 2-grams but the file has"):
        read_arpa(whole, needed)


def lm_file(tmp_path: Path, arpa: Arpa) -> Path:
    path = tmp_path / "larger.arpa"
    write_arpa(path, arpa)
    return path


def words_of(folder: Path) -> list[list[str]]:
    return [row["hyp"] for row in read_json_lines(folder / "hyps.jsonl")]


def test_the_same_model_changes_no_words(work: Workspace, tmp_path: Path) -> None:  # noqa: F811
    decode(CONFIG, work)
    result = rescore(CONFIG, work, lm_file(tmp_path, toy.ARPA), nj=1)
    assert result.ran and "rescored with" in str(result)
    for system in ("plain", "crowd"):
        for name in ("dev", "test"):
            assert words_of(work.rescored(system, name, "larger")) == words_of(work.decoded(system, name))
    for summary in result.summaries:
        oracle = summary["oracle"]
        assert summary["first_pass_wer"] >= oracle["1"] >= oracle["10"] >= oracle["100"]
    assert not rescore(CONFIG, work, tmp_path / "larger.arpa").ran
    assert len(list(read_lists(work.nbest("plain", "test")))) == 4  # two seeds of two utterances


def test_a_model_that_knows_the_words_is_believed(work: Workspace, tmp_path: Path) -> None:  # noqa: F811
    decode(CONFIG, work)
    sure = estimate([["SEA"], ["BEER", "C"], ["AB", "BEE"]] * 50, 3, toy.LANG.words)
    rescored = rescore(CONFIG, work, lm_file(tmp_path, sure), ["plain"], ["dev"])
    assert rescored.summaries[0]["wer"] <= rescored.summaries[0]["first_pass_wer"]
    before = words_of(work.decoded("plain", "dev"))
    assert words_of(work.rescored("plain", "dev", "larger")) != before
    # another language model of that name, and it is done again; one of another name has its own folder
    assert rescore(CONFIG, work, lm_file(tmp_path, toy.ARPA), ["plain"], ["dev"]).ran
    before = words_of(work.rescored("plain", "dev", "larger"))
    other = (tmp_path / "larger.arpa").rename(tmp_path / "3-gram.pruned.arpa")
    assert rescore(CONFIG, work, other, ["plain"], ["dev"]).ran
    assert words_of(work.rescored("plain", "dev", "3-gram.pruned")) == before
    assert words_of(work.rescored("plain", "dev", "larger")) == before


def test_the_choice_is_that_of_a_sum_by_hand(work: Workspace, tmp_path: Path) -> None:  # noqa: F811
    decode(CONFIG, work)
    larger = estimate([["SEA", "C"], ["BEER", "C"], ["AB", "BEE"]] * 9 + [["C"]], 3, toy.LANG.words)
    rescore(CONFIG, work, lm_file(tmp_path, larger), ["plain"])
    summary = json.loads((work.rescored("plain", "test", "larger") / "summary.json").read_text())
    scale, penalty = summary["acoustic_scale"], summary["word_penalty"]
    chosen = words_of(work.rescored("plain", "test", "larger"))
    for utterance, words in zip(read_lists(work.nbest("plain", "test")), chosen, strict=True):
        answer = utterance.hypotheses
        totals = [
            scale * acoustic + graph - toy.ARPA.sentence_score(one) + larger.sentence_score(one) + penalty * len(one)
            for one, acoustic, graph in zip(answer.words, answer.acoustic, answer.graph, strict=True)
        ]
        assert list(answer.words[int(np.argmax(totals))]) == words


def test_words_that_the_larger_model_lacks(work: Workspace, tmp_path: Path) -> None:  # noqa: F811
    decode(CONFIG, work)
    small = estimate([["BEE", "C", "SEA"]], 2)
    with pytest.raises(UserError, match=r"2 of 5 words of the hypotheses are not in this language model \(AB, BEER"):
        rescore(CONFIG, work, lm_file(tmp_path, small), ["plain"])
    others = estimate([["bees", "see", "<unk>"]], 2)
    with pytest.raises(UserError, match=r"5 of 5 words .* name one that has the same words in the same spelling"):
        rescore(CONFIG, work, lm_file(tmp_path, others), ["plain"])
    assert not work.rescored("plain", "dev", "larger").exists()
    with_unknown = estimate([["BEE", "<unk>", "C", "SEA", "<unk>"]] * 5, 2)
    score = _difference(work, lm_file(tmp_path, with_unknown), [work.nbest("plain", "dev")], LangConfig())
    spelled = with_unknown.sentence_score(["BEE", "<unk>", "C"])
    words = ("BEE", "AB", "C")
    assert score(words) == pytest.approx(spelled - toy.ARPA.sentence_score(words), abs=1e-4)
    assert rescore(CONFIG, work, lm_file(tmp_path, with_unknown), ["plain"]).ran


def test_what_is_missing_is_named(work: Workspace, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match="there is no such file; name an ARPA file with --rescore-lm"):
        rescore(CONFIG, work, tmp_path / "none.arpa")
    with pytest.raises(UserError, match="make it first: asr-kd decode --system plain"):
        rescore(CONFIG, work, lm_file(tmp_path, toy.ARPA), ["plain"])
    refused = CliRunner().invoke(
        main, ["decode", "--config", str(tmp_path / "c.yaml"), "--decoder", "kaldi", "--rescore-lm", "x"]
    )
    assert refused.exit_code == 2
    (tmp_path / "other").mkdir()
    same = [lm_file(tmp_path, toy.ARPA), lm_file(tmp_path / "other", toy.ARPA)]
    with pytest.raises(UserError, match=r"larger\.arpa and .*other/larger\.arpa would share a folder"):
        check_models(same, "k2")
    same[0].write_text(same[0].read_text().replace("</s>", "<end>"))
    with pytest.raises(UserError, match=r"larger\.arpa: the model has no </s>, so no sentence can end"):
        check_models(same[:1], "k2")


def test_a_model_in_lower_case_gives_the_same_words(work: Workspace, tmp_path: Path) -> None:  # noqa: F811
    decode(CONFIG, work, sets=["dev"])
    (tmp_path / "lower").mkdir()
    file, lower = lm_file(tmp_path, toy.ARPA), tmp_path / "lower" / "lower.arpa"
    lower.write_text(file.read_text().lower())
    for lm in (file, lower):
        rescore(CONFIG, work, lm, ["plain"], ["dev"])
    assert words_of(work.rescored("plain", "dev", "lower")) == words_of(work.rescored("plain", "dev", "larger"))


def test_an_utterance_without_a_path_stays_without_words(graph, backend) -> None:
    narrow = replace(EXHAUSTIVE, retry_beams=(1.0,))
    decoder = make_decoder(backend, graph, narrow, acoustic_scale=SCALE)
    (answer,) = decoder.nbest([np.zeros((1, graph.num_senones), np.float32)], 10, 10)  # no word is one frame long
    assert not answer.words and len(answer.acoustic) == len(answer.graph) == 0
    assert math.isinf(decoder.decode([np.zeros((1, graph.num_senones), np.float32)])[0].score)


def test_a_lattice_that_leads_nowhere_is_searched_again_with_a_wider_beam(graph) -> None:
    """The beam leaves arcs in it, but no path to the end; the others of its batch have their lists."""
    pytest.importorskip("k2", reason="k2 is not installed", exc_type=ImportError)
    from asr_kd.decoding.k2_decoder import _arcs_of_each

    rng = np.random.default_rng(0)
    loglikes = [(3 * rng.normal(size=(30, graph.num_senones))).astype(np.float32) for _ in range(12)]
    narrow = replace(EXHAUSTIVE, search_beam=0.5, output_beam=0.5, min_active=0, retry_beams=(1.0, 100.0))
    decoder = make_decoder("k2", graph, narrow, acoustic_scale=SCALE)
    arcs = _arcs_of_each(decoder._intersect(loglikes, narrow.search_beam, narrow.max_active))
    best = decoder.decode(loglikes)
    nowhere = [k for k, answer in enumerate(best) if answer.retried and arcs[k].stop > arcs[k].start]
    assert 0 < len(nowhere) < 12
    lists = decoder.nbest(loglikes, 50, 10)
    assert [answer.words[0] for answer in lists] == [answer.words for answer in best]
    never = make_decoder("k2", graph, replace(narrow, retry_beams=()), acoustic_scale=SCALE).nbest(loglikes, 50, 10)
    assert [k for k, answer in enumerate(never) if not answer.words] == nowhere
    assert all(answer.words == lists[k].words for k, answer in enumerate(never) if k not in nowhere)


def test_an_utterance_without_a_path_is_listed_without_hypotheses(work: Workspace, tmp_path: Path) -> None:  # noqa: F811
    frames = [
        (name, np.random.default_rng(3).normal(size=(length, 4))) for name, length in (("long", 25), ("short", 2))
    ]
    write_store(work.frames("test"), frames, texts=["SEA", "BEER C"], scale=np.ones(4, np.float32))
    decode(CONFIG, work, ["plain"])
    (summary,) = rescore(CONFIG, work, lm_file(tmp_path, toy.ARPA), ["plain"], ["test"]).summaries
    listed = {(each.utterance, each.seed): each.hypotheses for each in read_lists(work.nbest("plain", "test"))}
    assert [bool(listed[name, 0].words) for name in ("long", "short")] == [True, False]
    assert summary["failed"] == ["short"] and summary["errors"]["del"] >= 4  # two words, by each of two seeds


def test_the_rate_of_characters_stands_beside_that_of_words() -> None:
    of_words = {"unit": "word", "system": "plain", "set": "test", "wer": 0.5, "first_pass_wer": 0.6,
                "acoustic_scale": 0.1, "word_penalty": 0.0,
                "oracle": dict.fromkeys(("1", "10", "100"), 0.5)}  # fmt: skip
    assert "CER" not in str(RescoreResult(Path("lm"), True, [of_words]))
    lines = str(RescoreResult(Path("lm"), True, [of_words | {"characters": {"wer": 0.25}}])).splitlines()
    assert lines[1].split()[2:5] == ["WER", "CER", "first"] and lines[3].split()[2:5] == ["50.00%", "25.00%", "60.00%"]
