"""The scripts that languages are written in (CLDR), to tell text of another language."""

from __future__ import annotations

from functools import lru_cache

import regex
from babel.core import get_global

# names of several scripts together, or of a script's style -> those of Unicode's property
_PARTS = {
    "Hanb": ("Hani", "Bopo"), "Hans": ("Hani",), "Hant": ("Hani",), "Jamo": ("Hang",),
    "Jpan": ("Hani", "Hira", "Kana"), "Kore": ("Hang", "Hani"), "Latf": ("Latn",), "Latg": ("Latn",),
}  # fmt: skip


def scripts_of(language: str) -> frozenset[str]:
    """Returns the scripts of a language (BCP 47), with the one that its tag names; none where they are not known.

    >>> sorted(scripts_of("sr")), sorted(scripts_of("kk-Latn")), sorted(scripts_of("zh-TW")), sorted(scripts_of("xx"))
    (['Cyrl', 'Latn'], ['Arab', 'Cyrl', 'Latn'], ['Bopo', 'Hani'], [])
    """
    name, *more = language.split("-")
    scripts: set[str] = set()
    for key, likely in get_global("likely_subtags").items():
        if name.lower() in (key.split("_")[0], likely.split("_")[0]):
            scripts |= {part for part in (*key.split("_"), *likely.split("_")) if _is_script(part)}
    if scripts:
        scripts |= {part.title() for part in more if _is_script(part)}
    return frozenset(part for script in scripts for part in _PARTS.get(script, (script,)))


def _is_script(subtag: str) -> bool:
    return len(subtag) == 4 and subtag.isalpha()


@lru_cache(maxsize=8)
def foreign_letters(language: str) -> regex.Pattern[str] | None:
    """Returns the pattern of a letter in no script of the language; None where its scripts are not known.

    >>> foreign_letters("uk").findall("OK, привіт!")
    ['O', 'K']
    """
    if not (scripts := scripts_of(language)):
        return None
    own = "".join(rf"\p{{scx={script}}}" for script in sorted({*scripts, "Zyyy", "Zinh"}))
    try:
        return regex.compile(rf"[\p{{L}}--[{own}]]", regex.V1)
    except regex.error:  # a script that this version of Unicode does not have
        return None
