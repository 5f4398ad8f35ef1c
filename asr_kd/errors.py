"""The one exception that a user's mistake may raise, and how its sentence names many things."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """One clear sentence: what is wrong, where (file, utterance id), and what to do.

    The command line prints it after the command's name and exits with status 2; nothing else is printed.
    """


class ResumableError(UserError):
    """What was done so far is good: the same command goes on from there once the cause is out of the way."""


class FullDiskError(ResumableError):
    """There is no room to write."""


class KilledHelpersError(ResumableError):
    """Helper processes were killed again and again, most often for want of memory."""


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are.

    >>> some_of("abcdefg", 2)
    'a, b and 5 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
