"""Destination of a run folder: the folder of runs, and the name of the run in it if the user gave one.

A run with a name is written by one process at a time, in place of an older run of the name once it is complete.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from permafrost.data.atomic import TEMPORARY_SUFFIX, file_lock, remove_leftovers
from permafrost.data.errors import InputError

NAME = re.compile(r"\w[\w.+=-]{0,119}")
"""Name of a run."""

RESERVED = "unfinished"
"""Folder of checkpoints beside the runs."""

SECONDS_TO_WAIT = 10.0
"""Time that a process which was killed may take to end, before a run of its name is refused."""


@dataclass(frozen=True)
class Destination:
    """Where a command writes its run folder."""

    runs: Path
    """Folder of run folders."""

    name: str = ""
    """Name of the run folder; empty takes the name of the recipe and the next free number."""

    def __post_init__(self) -> None:
        if self.name and (not NAME.fullmatch(self.name) or self.name == RESERVED):
            raise InputError(
                f"--name {self.name!r}: a run is named by up to 120 letters, digits, '-', '_', '.', '+' and '=', the "
                f"first a letter or a digit, and not '{RESERVED}'."
            )

    @classmethod
    def of(cls, runs: "Path | Destination") -> "Destination":
        """Return a destination, that of unnamed runs for a folder."""
        return runs if isinstance(runs, Destination) else cls(runs)

    @property
    def folder(self) -> Path:
        """The folder of a run with a name."""
        return self.runs / self.name

    @property
    def prefix(self) -> str:
        """Beginning of the temporary names of a run, which no other name begins with."""
        return f"{self.name}~" if self.name else ""

    @property
    def _replaced(self) -> Path:
        """Place of the older run between the renames of :meth:`claim`."""
        return self.runs / f".{self.prefix}replaced{TEMPORARY_SUFFIX}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the name while a command runs, and put right what a killed one left of it.

        Raises:
            InputError: another process holds the name.
        """
        exists = self.runs.exists()
        lock = self.runs / f".{self.prefix}lock"
        ends = time.monotonic() + SECONDS_TO_WAIT
        while True:
            with file_lock(lock, wait=False) as free:
                if free:
                    try:
                        self._recover()
                        yield
                    finally:
                        lock.unlink(missing_ok=True)
                        if not exists and not any(self.runs.iterdir()):
                            self.runs.rmdir()
                    return
            if time.monotonic() > ends:
                raise InputError(
                    f"{self.folder} is being written by another process: wait for it, or set another --name."
                )
            time.sleep(0.1)

    def _recover(self) -> None:
        if self._replaced.exists() and not self.folder.exists():
            os.replace(self._replaced, self.folder)
        remove_leftovers(self.runs, self.prefix, alone=True)

    def claim(self, name: str, temporary: Path) -> Path:
        """Rename a complete folder to the run folder and return its path; an older run of its name is removed.

        Args:
            name: what the folder is called before its number if the destination has no name.
        """
        if not self.name:
            return _claim_number(self.runs, name, temporary)
        if self.folder.exists():
            os.replace(self.folder, self._replaced)
        os.replace(temporary, self.folder)
        shutil.rmtree(self._replaced, ignore_errors=True)
        return self.folder


def _claim_number(runs: Path, name: str, temporary: Path) -> Path:
    """Rename a folder to the next free ``<name>-<n>`` and return its path."""
    number = 1
    while True:
        target = runs / f"{name}-{number}"
        try:
            target.mkdir()
        except FileExistsError:
            number += 1
            continue
        os.replace(temporary, target)  # onto the empty folder just claimed
        return target
