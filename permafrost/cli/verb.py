"""Options that every command has, declared once: ``--quiet`` and ``--log``; and the log of events of a command.

A log has one JSON object a line, with its ``time`` and ``event``: ``started``, then what happens (``extracted``,
``epoch``, ``trained``, ``measured``, ``skipped``), at last ``done`` or ``failed``.
"""

import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from permafrost.cli.exit_codes import describe_end
from permafrost.data.atomic import open_regular
from permafrost.data.errors import InputError, MachineError
from permafrost.data.text import escape_control


class EventLog:
    """A file to which events are appended; each line is written at once, so that several commands may share a file."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make its folder.

        Raises:
            InputError: the path is that of a folder, a pipe or a device.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = open_regular(path, "ab", buffering=0)
        except MachineError as error:
            raise InputError(f"--log {path}: a file is needed, and this is a folder, a pipe or a device.") from error

    def write(self, event: str, **facts: Any) -> None:
        """Append an event."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event} | facts
        self._file.write(escape_control(json.dumps(line, ensure_ascii=False, default=str)).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Output:
    """Where the running command tells what it does."""

    quiet: bool = False
    log: EventLog | None = None


OUTPUT: ContextVar[Output] = ContextVar("OUTPUT", default=Output())  # noqa: B039  (it is frozen)
"""Output of the running command."""


QuietOption = Annotated[bool, typer.Option("--quiet", help="Print no notes and no progress: only results and errors.")]

LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE.jsonl", help="Append events with their times to this file, a line each."),
]


class VerbApp(typer.Typer):
    """An application whose commands have ``--quiet`` and ``--log``."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a command."""
        register = super().command(name, **settings)

        def add_options(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_options(name or function.__name__, function))
            return function

        return add_options


def _with_options(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def verb(*, quiet: bool, log: Path | None, **given: Any) -> Any:
        with _output(name, quiet, log, given):
            return function(**given)

    signature, kind = inspect.signature(function), inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("quiet", kind, default=False, annotation=QuietOption),
        inspect.Parameter("log", kind, default=None, annotation=LogOption),
    ]
    verb.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    verb.__annotations__ = function.__annotations__ | {"quiet": QuietOption, "log": LogOption}
    return verb


@contextmanager
def _output(command: str, quiet: bool, path: Path | None, given: Mapping[str, Any]) -> Iterator[None]:
    """Set the output of a command while it runs; its beginning and its end are logged."""
    log, started = EventLog(path) if path else None, time.monotonic()
    token = OUTPUT.set(Output(quiet, log))

    def end(code: int, message: str = "") -> None:
        if log:
            facts = {"message": " ".join(message.split())} if code and message else {}
            seconds = round(time.monotonic() - started, 3)
            log.write("failed" if code else "done", command=command, exit_code=code, **facts, seconds=seconds)

    try:
        if log:
            log.write("started", command=command, given={key: value for key, value in given.items() if value})
        yield
        end(0)
    except BaseException as error:
        end(*describe_end(error))
        raise
    finally:
        OUTPUT.reset(token)
        if log:
            log.close()
