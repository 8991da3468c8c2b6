"""The folder of a store: what is committed in it, whoever committed it; on this machine, or on an object storage."""

import os
from pathlib import Path
from typing import Protocol


class StoreFolder(Protocol):
    """Committed files of a store; each is written once, under a name made from its content, and never changed."""

    path: Path
    """Folder on this machine, in which files are written before they are committed."""

    remote: bool
    """Whether a file must be copied to this machine before it can be opened."""

    def names(self) -> list[str]:
        """Return the name of every committed file, in any order; there are none if the folder does not exist."""

    def sizes(self) -> dict[str, int]:
        """Return the name of every committed file -> its bytes."""

    def fetch(self, name: str) -> Path:
        """Return the path on this machine of a committed file.

        Raises:
            FileNotFoundError: it was removed.
        """

    def check_writable(self) -> None:
        """Raise what :meth:`commit` would raise, before anything is computed."""

    def commit(self, name: str) -> None:
        """Let every reader see a file that is complete in :attr:`path`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


class LocalFolder:
    """A folder of this machine: a file is committed once it has its name."""

    remote = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """As :meth:`StoreFolder.names`."""
        try:
            with os.scandir(self.path) as found:
                return [entry.name for entry in found]
        except FileNotFoundError:
            return []

    def sizes(self) -> dict[str, int]:
        """As :meth:`StoreFolder.sizes`."""
        return {name: (self.path / name).stat().st_size for name in self.names()}

    def fetch(self, name: str) -> Path:
        """As :meth:`StoreFolder.fetch`; the file may be missing."""
        return self.path / name

    def check_writable(self) -> None:
        """As :meth:`StoreFolder.check_writable`: what is written first says it."""

    def commit(self, name: str) -> None:
        """As :meth:`StoreFolder.commit`."""

    def remove(self, name: str) -> None:
        """As :meth:`StoreFolder.remove`."""
        (self.path / name).unlink(missing_ok=True)
