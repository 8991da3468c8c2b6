"""Exit codes: an error that the user can act on becomes one line on stderr and an exit code.

0 success; 2 wrong input; 3 machine failure; 130 and 143 interrupted by a signal. Any other exception is a bug of
permafrost and keeps its traceback.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from permafrost.data.errors import PermafrostError, Terminated, terminate
from permafrost.data.text import escape_control


def run_to_exit(command: Callable[[], Any]) -> NoReturn:
    """Run a command and end the process with its exit code."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        code = run_guarded(command)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


SAFE = "what was committed to the cache is kept; the same command goes on from there."

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)
"""Errors of the system that are a failure of the machine."""


def describe_end(error: BaseException) -> tuple[int, str]:
    """Return the exit code that an exception leads to, and its message; of a bug 1, of a plain exit no message."""
    match error:
        case PermafrostError():
            return error.exit_code, f"{type(error).__name__}: {error}"
        case KeyboardInterrupt() | typer.Abort():
            return 130, f"interrupted: {SAFE}"
        case Terminated():
            return 143, f"terminated: {SAFE}"
        case BrokenPipeError():
            return 0, ""
        case OSError() if error.errno in NO_SPACE:
            return 3, f"MachineError: {error.filename or 'disk'}: {error.strerror}; {SAFE}"
        case OSError() if error.errno in (errno.EEXIST, errno.ENOTDIR):  # --runs or extract.cache names a file
            return 2, f"InputError: {error.filename}: a folder is needed here ({error.strerror}); {SAFE}"
        case OSError() if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return 2, f"InputError: {str(error.filename)[:200]}: {error.strerror}; {SAFE}"
        case ValueError() if "embedded null byte" in str(error):
            return 2, "InputError: a path has a zero byte, which no file system allows."
        case typer.Exit():
            return int(error.exit_code), ""
        case _:  # a wrong option or a missing argument, which shows itself; or a bug
            return int(getattr(error, "exit_code", 1)), f"{type(error).__name__}: {error}"


def run_guarded(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code; an error that the user can act on is printed as one line on stderr."""
    try:
        result = command()
    except BrokenPipeError:
        raise
    except BaseException as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            if isinstance(getattr(error, "message", None), str):
                error.message = escape_control(error.message)  # type: ignore[attr-defined]
            error.show()
            context: Any = getattr(error, "ctx", None)
            named = {option.name for option in context.command.params} if context else set()
            if "extra argument" in str(error) and "data" in named:
                sys.stderr.write("Data of your own are given by --data FILE.\n")
            return int(error.exit_code)
        code, message = describe_end(error)
        if code == 1 and not isinstance(error, PermafrostError | typer.Exit):
            raise
        return _fail(message, code) if message else code
    if result == 130:  # typer returns it after Ctrl-C
        return _fail(f"interrupted: {SAFE}", 130)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    sys.stderr.write(escape_control(" ".join(message.split())) + "\n")
    return code
