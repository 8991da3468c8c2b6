"""Memo: strings that are slow to compute, remembered in a small file."""

import json
from collections.abc import Callable
from pathlib import Path

from permafrost.data.atomic import read_json, remove_leftovers, write_atomically
from permafrost.data.digests import digest_of_parts
from permafrost.data.errors import MachineError


class Memo:
    """Persistent string cache, key -> string: a small JSON file with a checksum over its content.

    A missing, damaged or foreign file counts as empty, and its entries are computed again. If two processes write at
    once, one may lose its entry, but the file stays valid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str, compute: Callable[[], str]) -> str:
        """Return the string under ``key``; compute and remember it if there is none."""
        value = self.read(key)
        if value is None:
            value = compute()
            self.write(key, value)
        return value

    def read(self, key: str) -> str | None:
        """Return the string under ``key``, or None."""
        return self._entries().get(key)

    def write(self, key: str, value: str) -> None:
        """Remember ``value``; a file that cannot be written is ignored.

        Raises:
            NotADirectoryError, FileExistsError: the path of the memo's folder is a file.
        """
        entries = {**self._entries(), key: value}
        content = json.dumps({"checksum": _checksum(entries), "entries": entries}, indent=1, sort_keys=True)
        try:
            remove_leftovers(self.path.parent)
            write_atomically(self.path, content.encode())
        except (NotADirectoryError, FileExistsError):
            raise
        except OSError:
            return

    def _entries(self) -> dict[str, str]:
        try:
            content = read_json(self.path)
            entries: dict[str, str] = content["entries"]
            sound = isinstance(entries, dict) and all(isinstance(value, str) for value in entries.values())
            return entries if sound and content["checksum"] == _checksum(entries) else {}
        except (MachineError, KeyError, TypeError):
            return {}


def _checksum(entries: object) -> str:
    return digest_of_parts([json.dumps(entries, sort_keys=True).encode()])
