"""Where phones are recognised, the report says PER, shows silence left out and counted, and what is confused."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from asr_kd.corpora.settings import TimitConfig
from asr_kd.io.files import read_json_lines, write_json_lines
from asr_kd.stages.report import report
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace


@pytest.fixture(scope="module")
def phone_run(
    finished_run: tuple[Config, Workspace], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, Workspace]:
    """The made-up run as decoding leaves one of phones: a silence before each utterance is heard half of the time."""
    config, work = finished_run
    config = replace(config, corpus=TimitConfig(transcripts="phones"))
    root = tmp_path_factory.mktemp("phones") / "run"
    shutil.copytree(work.root, root)
    shutil.rmtree(root / "exp" / "report", ignore_errors=True)
    for folder in root.glob("exp/decode/*/*"):
        rows = read_json_lines(folder / "hyps.jsonl")
        for number, row in enumerate(rows):
            silence = ["SIL"] if number % 2 else []
            row["with_silence"] = {"ref": ["SIL", *row["ref"]], "hyp": [*silence, *row["hyp"]]}
        write_json_lines(folder / "hyps.jsonl", rows)
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"unit": "phone"}))
    return config, replace(work, root=root)


def test_the_report_is_of_phones(phone_run: tuple[Config, Workspace]) -> None:
    result = report(*phone_run)
    results = json.loads((result.path / "results.json").read_text(encoding="utf-8"))
    assert results["unit"] == "phone" and results["phones"] == {"trained": 48, "scored": 39}
    for row in results["systems"]:
        plain, silent = row["errors"]["test"], row["with_silence"]["errors"]["test"]
        utterances = 30 * row["seeds"]
        assert silent["words"] == plain["words"] + utterances
        lost = sum(silent[kind] - plain[kind] for kind in ("ins", "del", "sub"))
        assert 0 < lost <= utterances // 2
        rate = sum(silent[kind] for kind in ("ins", "del", "sub")) / silent["words"]
        assert row["with_silence"]["wer"]["test"] == pytest.approx(rate)
        low, high = row["with_silence"]["wer_ci95"]["test"]
        assert low < rate < high
    counts = results["confusions"]["counts"]
    distilled = next(row for row in results["systems"] if row["name"] == "distilled")
    said = sum(times for true, _, times in counts if true is not None)
    assert said == distilled["with_silence"]["errors"]["test"]["words"]

    for name in ("index.html", "report.md"):
        text = (result.path / name).read_text(encoding="utf-8")
        assert "PER" in text and not re.search(r"\bWER\b|[Ww]ord error|word penalty|in words", text), name
        assert "Lee and Hon 1989" in text and "confusions" in text
        assert f"{100 * distilled['with_silence']['wer']['test']:.1f}" in text
    assert "PER test" in str(result) and "WER" not in str(result) and "with silence counted" in str(result)


def test_there_is_one_phone_error_rate_and_none_beside_it(phone_run: tuple[Config, Workspace]) -> None:
    results = json.loads((report(*phone_run).path / "results.json").read_text(encoding="utf-8"))
    assert all("per" not in row for row in results["systems"])
    assert set(results["distillation"]["sets"]["test"]["metrics"]) == {"frame_accuracy", "wer"}


def test_a_report_of_words_has_no_confusions(finished_run: tuple[Config, Workspace]) -> None:
    result = report(*finished_run)
    results = json.loads((result.path / "results.json").read_text(encoding="utf-8"))
    assert results["unit"] == "word" and "confusions" not in results and "phones" not in results
    assert "Lee and Hon" not in (result.path / "report.md").read_text(encoding="utf-8")
    assert "WER test" in str(result)
