"""The folder of a store: what is committed in it, whoever committed it; on this machine, or on an object storage."""

from contextlib import AbstractContextManager
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

    def temporary(self) -> AbstractContextManager[Path]:
        """Return a context with the path of a file to be written in :attr:`path`, and moved there before it ends.

        What killed processes have left of such files is removed.
        """

    def check_writable(self) -> None:
        """Raise what :meth:`commit` would raise, before anything is computed."""

    def commit(self, name: str) -> None:
        """Let every reader see a file that is complete in :attr:`path`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
