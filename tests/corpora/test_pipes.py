"""Commands that write audio are run without a shell, and what would need one is refused."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.corpora.pipes import PipeError, run_pipe, split_pipe

COPY = f"{sys.executable} -c 'import sys; sys.stdout.write(sys.stdin.read())'"


def test_stages_are_joined_and_nothing_is_read_by_a_shell(tmp_path: Path) -> None:
    (tmp_path / "a b*.txt").write_text("hello\n")
    assert run_pipe(f"cat '{tmp_path}/a b*.txt' | {COPY} | tr a-z A-Z") == b"HELLO\n"
    assert run_pipe("echo '$HOME' '*' '>' \\| a\\ b \"c  d\"") == b"$HOME * > | a b c  d\n"
    assert run_pipe("yes | head -c 4") == b"y\ny\n"  # the first stage is ended by the second
    assert run_pipe("cat") == b""  # no standard input


@settings(max_examples=30)
@given(st.lists(st.lists(st.text(st.characters(exclude_characters="'\0", exclude_categories=["Cs"])), min_size=1),
                min_size=1))  # fmt: skip
def test_quoted_words_come_out_as_they_are(stages: list[list[str]]) -> None:
    assert split_pipe(" | ".join(" ".join(f"'{word}'" for word in stage) for stage in stages)) == stages


@pytest.mark.parametrize(
    "command", ["cat a > b", "cat a; rm b", "cat $HOME", 'cat "$HOME"', "cat `ls`", "cat 'a", "cat a &", "(cat a)"]
)
def test_what_needs_a_shell_is_refused(command: str) -> None:
    with pytest.raises(PipeError, match="cannot be run: no shell reads it, so redirections, variables and open quotes"):
        run_pipe(command)


@pytest.mark.parametrize("command", ["", " | cat", "cat |", "cat | | cat"])
def test_an_empty_stage_is_named(command: str) -> None:
    with pytest.raises(PipeError, match=r"has nothing on one side of a \|"):
        run_pipe(command)


def test_a_stage_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(PipeError, match=r"cat ended with status 1 \(.*/no/such/file.*\); try it in a terminal"):
        run_pipe("cat /no/such/file | tr a b")
    with pytest.raises(PipeError, match=r"cannot be run: no-such-program: No such file or directory; install it"):
        run_pipe("yes | no-such-program")
