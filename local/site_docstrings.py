"""A Griffe extension: examples in docstrings are shown as a session with the interpreter, with or without a heading."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))>>> .*?(?=\n\s*\n|\Z)", re.DOTALL)


class Examples(Extension):
    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", obj.docstring.value)
