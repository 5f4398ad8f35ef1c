"""The site of the documents builds without a warning, links lead somewhere, and its references leave nothing out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import asr_kd
from asr_kd.cli import main

pytest.importorskip("mkdocs", reason="mkdocs is in the reference environment alone")

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """Which ids a page has, and where its links and pictures lead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        if tag in ("a", "img", "link", "script"):
            self.links.append(values.get("href") or values.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 20
    for path, page in pages.items():
        if path.name == "404.html":  # its links are those of a server's root
            continue
        for link in page.links:
            if re.match(r"https?:", link):
                assert not link.endswith((".js", ".css")), (path.name, link)
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), (path.name, link)
            assert not anchor or target.is_dir() or anchor in pages[target].ids, (path.name, link)


@pytest.mark.slow
def test_references_have_every_command_and_every_public_name(site: Path) -> None:
    commands = Page(site / "commands.html").ids
    assert {f"asr-kd-{name}" for name, command in main.commands.items() if not command.hidden} <= commands
    names = Page(site / "api.html").ids
    assert {f"asr_kd.{name}" for name in asr_kd.__all__ if name != "__version__"} <= names


@pytest.mark.slow
def test_examples_of_docstrings_are_shown_as_sessions(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt;" in text and not re.search(r"<blockquote>|<p>&gt;&gt;&gt;", text)
