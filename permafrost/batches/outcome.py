"""Outcome of one run of a batch, and the progress that is shown of it."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permafrost import api
from permafrost.batches.plan import BatchItem
from permafrost.data.errors import InputError, MachineError, PermafrostError
from permafrost.data.progress import Progress


@dataclass(frozen=True)
class Outcome:
    """How a run of a batch ended."""

    error: str = ""
    """Type and message of the error that it ended with; empty if it is done."""

    exit_code: int = 0
    """2 for wrong input, 3 for a machine failure or a bug."""

    trace: str = ""
    """Traceback of an error that permafrost does not know."""

    @classmethod
    def of(cls, error: Exception) -> "Outcome":
        """Return the outcome of a run that ended with an error."""
        message = " ".join(f"{type(error).__name__}: {error}".split())
        known = isinstance(error, PermafrostError | OSError)
        trace = "" if known else "".join(traceback.format_exception(error))
        return cls(message, InputError.exit_code if isinstance(error, InputError) else MachineError.exit_code, trace)


class NamedProgress:
    """Progress of one run among others: its notes begin with its name, its events name it; its bars are not shown."""

    def __init__(self, name: str, note: Callable[[str], None], event: Callable[[str, dict[str, Any]], None]) -> None:
        self._name, self._note, self._event = name, note, event

    def note(self, message: str) -> None:
        """Show one line of text."""
        self._note(f"{self._name}: {message}")

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Yield a function that ignores the steps."""
        yield lambda steps: None

    def event(self, name: str, **facts: Any) -> None:
        """Record an event of the run."""
        self._event(name, {"member": self._name} | facts)


def run_item(item: BatchItem, folder: Path, progress: Progress) -> Outcome:
    """Run one run of a batch into its folder; errors become its outcome, and interruptions are raised."""
    try:
        api.run(
            item.recipe,
            item.overrides,
            folder,
            progress,
            data=item.data,
            columns=item.columns,
            target=item.target,
            name=item.name,
        )
    except Exception as error:
        return Outcome.of(error)
    return Outcome()
