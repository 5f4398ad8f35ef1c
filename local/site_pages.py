"""A hook of MkDocs: pages of the site that lie elsewhere in the repository, and the links between all of them.

A document links to files as they lie in the repository, so that it can be read there. Here such a link becomes one to
the page; where the file has none, as LICENSE, its words stay.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# beside docs/; the README is the front page
PATTERNS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "recipes/*/*.md", "recipes/*/notes/*.md", "recipes/*/*.svg")
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def uri_of(path: Path) -> str:
    """Of a file outside docs/, in the site."""
    return "index.md" if path == ROOT / "README.md" else path.relative_to(ROOT).as_posix()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for pattern in PATTERNS:
        for path in sorted(ROOT.glob(pattern)):
            file = File.generated(config, uri_of(path), abs_src_path=str(path))
            if "notes" in path.parts:
                file.inclusion = file.inclusion.NOT_IN_NAV  # RESULTS lead to them
            files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uris = {Path(file.abs_src_path): file.src_uri for file in files if file.abs_src_path is not None}
    here = Path(str(page.file.abs_src_path))

    def link(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(here.parent / match["target"]))
        path = path / "README.md" if path.is_dir() else path
        if path in uris:
            start = Path(page.file.src_uri).parent
            return f"{match['text']}({os.path.relpath(uris[path], start)}{match['anchor'] or ''})"
        return match["text"].lstrip("!")[1:-1] if path.is_file() else match[0]

    return LINK.sub(link, markdown)
