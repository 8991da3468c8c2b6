"""Base classes of the errors that a user can act on, with the exit code of each.

A message is one line: the place, what was expected, what was found, and what to do.
"""

from typing import NoReturn


class PermafrostError(Exception):
    """An error that the user can resolve; the command line prints its message without a traceback."""

    exit_code = 1


class InputError(PermafrostError):
    """Invalid user input: a recipe, a corpus, a backbone or an option."""

    exit_code = 2


class CorpusError(InputError):
    """A corpus that cannot be used; the message begins with file and line if there is one."""


class MachineError(PermafrostError):
    """A failure of the machine despite valid input: a full disk, a damaged file, no memory."""

    exit_code = 3


class CheckpointError(InputError):
    """A checkpoint of another training, or a file or folder that is no checkpoint."""


class Terminated(BaseException):
    """SIGTERM as an exception, so that the code it interrupts can commit what is complete and remove the rest."""


def terminate(*_: object) -> NoReturn:
    """Handle SIGTERM: raise :class:`Terminated`."""
    raise Terminated


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a full stop, at most 200 characters; else its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


EMPTY_ROW = "empty cells"
"""Reason for which a row is left out if all its cells are empty, as spreadsheets write them below their last row."""
