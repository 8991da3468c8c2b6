"""The display of progress that a function of the interface uses: that of the call, else that of the process."""

from permafrost.data.errors import InputError
from permafrost.data.progress import NoProgress, Progress
from permafrost.display.notebook import NotebookProgress, in_notebook
from permafrost.display.terminal import TerminalProgress

_of_process: Progress | bool | None = None


def show_progress(progress: Progress | bool | None = True) -> None:
    """Set how the functions of permafrost show notices and progress bars in this process.

    A function whose argument ``progress`` is given does as that says.

    Args:
        progress: True shows them, in the output of a notebook's cell or else on stderr; False does not; None, the
            state at the start, shows them in a notebook only. Or a display of your own, with the methods of
            :class:`permafrost.data.progress.Progress`.

    Raises:
        InputError: it is none of these.
    """
    global _of_process
    check_display(progress)
    _of_process = progress


def check_display(progress: Progress | bool | None) -> None:
    """Raise an :class:`InputError` if something is no display of progress, and does not say which one to use."""
    methods = ("note", "bar", "event")
    if progress is None or isinstance(progress, bool):
        return
    if isinstance(progress, type) or not all(callable(getattr(progress, name, None)) for name in methods):
        raise InputError(
            f"progress is {progress!r}: set it to True, False or None, or to an object with the methods "
            f"{', '.join(methods)}."
        )


def display_of(progress: Progress | bool | None) -> Progress:
    """Return the display that an argument ``progress`` asks for; raise as :func:`check_display`."""
    check_display(progress)
    is_shown = _of_process if progress is None or (progress is True and _of_process) else progress
    if is_shown is None:
        is_shown = in_notebook()
    if not isinstance(is_shown, bool):
        return is_shown
    if not is_shown:
        return NoProgress()
    return NotebookProgress() if in_notebook() else TerminalProgress()
