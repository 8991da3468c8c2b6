"""The files of a run folder, read only as the run wrote them.

``record.json`` is written last. It holds a digest of every file that is read again, and one of itself; whoever reads a
run folder reads it through :class:`RunFolder`. Figures and ``report.html`` are drawn from the rest and never read.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.digests import DIGESTS, DamageError, digest_of, files_digests, parse_with_digests, with_digests
from permafrost.data.errors import InputError
from permafrost.probes.config.load import read_file
from permafrost.probes.config.names import RECORD

FORMAT = 5
"""Of run folders; one of another format is not read."""

NEVER_READ = ("figures", "report.html")

REMEDY = "copy the whole run again, or run its recipe again"


def write_record(folder: Path, record: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Write the record of a run folder, with the digests of its files; it comes last, so where it is all is there.

    Args:
        names: the files that are read again, as paths within the folder; None is all but what is drawn from them.
    """
    digests = files_digests(folder, _read_again(folder) if names is None else names)
    whole = with_digests({"format": FORMAT} | dict(record), digests)
    write_atomically(folder / RECORD, json.dumps(whole, indent=2, ensure_ascii=False).encode())


def _read_again(folder: Path) -> list[str]:
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [path.as_posix() for path in files if path.parts[0] not in NEVER_READ and path != Path(RECORD)]


class RunFolder:
    """A finished run of this version, whose files are compared with their digests as they are read.

    Args:
        path: the folder.
        error: what is raised where it is no finished run of this version.
        digest: of the record, where the run is part of another that says it.

    Raises:
        InputError: as ``error``: it has no record, one of another version, or one that is a link.
        DamageError: the record is not as the run wrote it.
    """

    def __init__(self, path: Path, error: type[InputError], digest: str = "") -> None:
        self.path, self._error = path, error
        if not (path / RECORD).is_file():
            again = "Run the study again" if (path / "journal.log").exists() else "Run the recipe again"
            raise error(f"{path} is no finished run: it has no {RECORD}. {again}.")
        self._refuse_link(RECORD)
        content = read_file(path / RECORD)
        record = parse_with_digests(path / RECORD, content, REMEDY)
        if digest and digest_of(content) != digest:
            raise DamageError(f"{path / RECORD} is not as the run wrote it: {REMEDY}.")
        if record is None or record.get("format") != FORMAT:
            which = f"its format is {record.get('format')!r}" if record else f"its {RECORD} has no digests"
            raise error(
                f"{path} is of another version of permafrost ({which}; this one reads format {FORMAT}): run its recipe "
                "again."
            )
        self.record: dict[str, Any] = record
        self.digests: dict[str, str] = record[DIGESTS]

    def has(self, name: str) -> bool:
        """Whether the run wrote a file.

        Raises:
            DamageError: it did not, and there is one.
        """
        if name in self.digests:
            return True
        if (self.path / name).exists() or (self.path / name).is_symlink():
            raise DamageError(f"{self.path / name} is none of what the run wrote: remove it, or {REMEDY}.")
        return False

    def read(self, name: str) -> bytes:
        """A file as the run wrote it; empty where the run wrote none of this name.

        Raises:
            InputError: it is a link.
            DamageError: it is missing, changed, or not of this run.
        """
        self._refuse_link(name)
        if not self.has(name):
            return b""
        if not (self.path / name).is_file():
            raise DamageError(f"{self.path / name} is missing, which the run wrote: {REMEDY}.")
        content = read_file(self.path / name)
        if digest_of(content) != self.digests[name]:
            raise DamageError(f"{self.path / name} is not as the run wrote it: {REMEDY}.")
        return content

    def within(self, name: str) -> "RunFolder":
        """The run in a folder of this one; errors as of :meth:`read`."""
        self.read(f"{name}/{RECORD}")
        return RunFolder(self.path / name, self._error, self.digests.get(f"{name}/{RECORD}", ""))

    def folders(self, name: str) -> list[str]:
        """The folders in ``name`` in which the run wrote files, sorted."""
        parts = [path.split("/") for path in self.digests]
        return sorted({part[1] for part in parts if len(part) > 2 and part[0] == name})

    def _refuse_link(self, name: str) -> None:
        path = self.path
        for part in name.split("/"):
            path /= part
            if path.is_symlink():
                raise self._error(f"{path} is a link; a run folder holds its files itself.")
