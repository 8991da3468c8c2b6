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

from permafrost.data.errors import PermafrostError


class Terminated(BaseException):
    """SIGTERM as an exception, so that the code it interrupts can commit what is complete."""


def terminate(*_: object) -> NoReturn:
    """Handle SIGTERM: raise :class:`Terminated`."""
    raise Terminated


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


def run_guarded(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code; an error that the user can act on is printed as one line on stderr."""
    safe = "what was committed to the cache is kept; the same command goes on from there."
    try:
        result = command()
    except PermafrostError as error:
        return _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except KeyboardInterrupt:
        result = 130
    except Terminated:
        return _fail(f"terminated: {safe}", 143)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES):
            return _fail(f"MachineError: {error.filename or 'disk'}: {error.strerror}; {safe}", 3)
        if error.errno in (errno.EEXIST, errno.ENOTDIR):  # --runs or extract.cache names a file
            return _fail(f"InputError: {error.filename}: a folder is needed here ({error.strerror}); {safe}", 2)
        raise
    except typer.Exit as error:
        return int(error.exit_code)
    except typer.Abort:
        return _fail(f"interrupted: {safe}", 130)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a wrong option or a missing argument
            error.show()
            context: Any = getattr(error, "ctx", None)
            named = {option.name for option in context.command.params} if context else set()
            if "extra argument" in str(error) and "data" in named:
                print("Data of your own are given by --data FILE.", file=sys.stderr)
            return int(error.exit_code)
        raise
    if result == 130:  # typer returns it after Ctrl-C
        return _fail(f"interrupted: {safe}", 130)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code
