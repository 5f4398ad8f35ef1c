"""The words of the project are the field's: names and turns of phrase that a stranger must read twice are not used."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("asr_kd", "benchmarks", "docs", "local", "recipes", "tests")
SUFFIXES = (".py", ".sh", ".md", ".yaml", ".j2", ".toml", ".in")
PHRASES = (  # in comments, docstrings, messages, documents
    r"\bhands\b",
    r"\bmend(s|ed|ing)?\b",
    r"\b(rooms?|house|lessons?)\b",
    r"\bgone on with\b",
    r"\b(are|is|be|was|were) had\b",
    r"\bin the mean\b",
    r"\bheld against\b",
    r"\b(made|making|makes|make) anew\b",
    r"\bfor want of\b",
    r"\btold\b",
    r"\bhand-made\b",
    r"--(ensemble|pair)\b",
)
NAMES = (  # identifiers
    r"\b_FORM\b", r"\bStepNoise\b", r"\bSpeechJob\b", r"\bAcousticModel\b", r"\bmake_lesson\b", r"\btake_nets\b",
    r"\bGrowingFiles\b", r"\bmap_kept\b", r"\breason_to_make\b", r"\bdirect_of_ensemble\b", r"\bStudentConfig\b",
    r"\bwithout_dropout\b", r"\bmap_pieces\b", r"\bwrite_facts\b", r"\bRowLosses\b", r"\bRowEntropies\b",
    r"\bLetterToSound\b", r"\bnum_pdfs\b", r"\bstates_monophone\b",
    r"^\s*(found|kept|told|wanted) = ", r"\bwanted(: |, | =)",
)  # fmt: skip
BANNED = [re.compile(pattern, re.IGNORECASE) for pattern in PHRASES] + [re.compile(pattern) for pattern in NAMES]
ALLOWED = {  # file -> the banned text that it must quote
    "asr_kd/cli.py": ("--ensemble", "--pair"),
    "tests/test_pipeline.py": ("--ensemble", "--pair"),
    "CHANGELOG.md": ("--ensemble", "--pair", "direct_of_ensemble"),
}


def files() -> list[Path]:
    in_folders = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    made_by_runs = {"data", "download", "exp", "work"}
    return sorted(
        path
        for path in (*in_folders, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile", ROOT / ".ci" / "run")
        if path.is_file() and (path.suffix in SUFFIXES or not path.suffix) and path != Path(__file__)
        and not (path.is_relative_to(ROOT / "recipes") and made_by_runs & set(path.relative_to(ROOT).parts[2:-1]))
    )  # fmt: skip


def offenders(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        f"{name}:{number}: {match[0]!r} in: {line.strip()}"
        for number, line in enumerate(lines, 1)
        for pattern in BANNED
        for match in pattern.finditer(line)
        if match[0].lower() not in ALLOWED.get(name, ())
    ]


@pytest.mark.parametrize("text", ["all hands", "it is mended", "Fix it; so it is had", "self._FORM", "found = 3"])
def test_the_patterns_match_what_they_are_for(text):
    assert any(pattern.search(text) for pattern in BANNED)


def test_no_banned_words_or_names():
    lines = [line for path in files() for line in offenders(path)]
    assert not lines, "\n".join(lines)


FRAGMENT = re.compile(
    r"(As|By|Cached|Estimated|For|From|In|Its|Like|Of|On|Over|Relative|That of|Those|Until|Up to|With|Within|Without)\b"
)


def test_a_docstring_is_understood_without_the_name_above_it() -> None:
    """It begins with what the thing is, does or returns: "Of each set." says nothing."""
    fragments = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}: {text.splitlines()[0]}"
        for path in sorted((ROOT / "asr_kd").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        and FRAGMENT.match(text := ast.get_docstring(node) or "")
    ]
    assert not fragments, "\n".join(fragments)
