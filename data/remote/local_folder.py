"""The folder of a store on this machine, where a file is committed once it has its name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from permafrost.data.atomic import remove_leftovers, temporary_path


class LocalFolder:
    """A :class:`permafrost.data.store.index.folder.StoreFolder` on this machine."""

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

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """As :meth:`StoreFolder.temporary`."""
        remove_leftovers(self.path)
        with temporary_path(self.path) as temporary:
            yield temporary

    def check_writable(self) -> None:
        """As :meth:`StoreFolder.check_writable`: what is written first says it."""

    def commit(self, name: str) -> None:
        """As :meth:`StoreFolder.commit`."""

    def remove(self, name: str) -> None:
        """As :meth:`StoreFolder.remove`."""
        (self.path / name).unlink(missing_ok=True)
