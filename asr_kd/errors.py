"""The one exception that a user's mistake may raise, and how its sentence names many things."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """One clear sentence: what is wrong, where (file, utterance id), and what to do.

    The command line prints it after the command's name and exits with status 2; nothing else is printed.
    """


class FullDiskError(UserError):
    """There is no room to write: what was done so far is good, and the same command goes on when there is."""


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are.

    >>> some_of("abcdefg", 2)
    'a, b and 5 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
