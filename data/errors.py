"""The two ways a run can end badly without a bug of ours, and the exit code of each.

An error is one line that a user can act on: the place, what was expected, what came, the way out.
"""


class PermafrostError(Exception):
    """Something a user can put right; its message is all they need to see."""

    exit_code = 1


class InputError(PermafrostError):
    """What the user gave is wrong: a recipe, a corpus, a backbone, an option."""

    exit_code = 2


class MachineError(PermafrostError):
    """What the user gave is fine; the machine failed: a full disk, a damaged file, no memory."""

    exit_code = 3
