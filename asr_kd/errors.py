"""The one exception that a user's mistake may raise."""


class UserError(Exception):
    """One clear sentence: what is wrong, where (file, utterance id), and what to do.

    The command line prints it after the command's name and exits with status 2; nothing else is printed.
    """


class FullDiskError(UserError):
    """There is no room to write: what was done so far is good, and the same command goes on when there is."""
