"""The exceptions that the command line shows as one sentence, and how such a sentence shows names."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """One clear sentence: what is wrong, where (file, utterance id), and what to do.

    The command line prints it after the command's name and exits with status 2; nothing else is printed.
    """


class ResumableError(UserError):
    """The work done so far is kept: the same command continues from there once the cause is removed."""


class FullDiskError(ResumableError):
    """The disk is full."""


class KilledHelpersError(ResumableError):
    """Helper processes were killed again and again, most often because memory ran out."""


def some_of(names: Sequence[str], most: int = 5, count: int | None = None) -> str:
    """The first names, and how many more there are.

    Args:
      count: of all names, where `names` are the first of them only.

    >>> some_of("abcdefg", 2), some_of("abc", 2, count=9)
    ('a, b and 5 more', 'a, b and 7 more')
    """
    shown = names[:most]
    more = (len(names) if count is None else count) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def printable(text: str) -> str:
    """The text as UTF-8 can have it; bytes of a file's name that are not UTF-8 are escaped.

    >>> import os
    >>> printable(os.fsdecode(b"caf\\xe9.wav"))
    'caf\\\\xe9.wav'
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode()


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, or the name of its class where it says nothing.

    >>> first_line(ValueError("no such node\\nin the graph")), first_line(KeyError())
    ('no such node', 'KeyError')
    """
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is not enough memory, on the CPU or on a GPU.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    (True, True)
    """
    # torch has a class of its own for GPUs only, and says the rest as RuntimeErrors
    says = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(s in str(error) for s in says))
