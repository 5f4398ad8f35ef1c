"""What the report says of the corpus itself."""

from dataclasses import replace

from asr_kd.report.page import sentences
from asr_kd.report.results import Results
from asr_kd.report.results_file import read_results
from asr_kd.stages.report import report


def test_nothing_is_said_where_there_is_nothing_to_say(finished_run) -> None:
    assert sentences(results_of(finished_run)).data_notes == []


def test_each_reason_for_doubt_is_named_with_its_number(finished_run) -> None:
    results = results_of(finished_run)
    data = replace(
        results.data, shared_speakers=["19", "26"], guessed_pronunciations=7, lm_sentences_left_out=1,
        notes=["dev: 9 of 99 utterances were drawn from training"],
    )  # fmt: skip
    words = {"boundaries": 1200, "within_20ms": 0.701}
    alignment = replace(results.alignment, compared=3, words=words, boundaries={"boundaries": 0})
    said = sentences(replace(results, data=data, alignment=alignment)).data_notes
    text = " ".join(said).replace("\N{NO-BREAK SPACE}", " ")
    assert "When the corpus was read: dev: 9 of 99 utterances were drawn from training." in text
    assert "Warning: 2 speakers of a test set (19, 26)" in text
    assert "7 words are in no lexicon" in text and "without 1 sentence of its text" in text
    assert "3 utterances, 70.1 % of 1,200 word boundaries and – of 0 phone boundaries" in text


def results_of(run) -> Results:
    return read_results(report(*run).path / "results.json")
