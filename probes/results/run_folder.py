"""Run folders: writing of the record, the environment in it, and reading of files with a check of their digests.

``record.json`` is written last. It holds a digest of every file that is read again, and one of itself; every reader of
a run folder uses :class:`RunFolder`. Figures and ``report.html`` are made from the other files and are never read.
"""

import contextlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.digests import (
    DIGESTS,
    DamageError,
    digest_of,
    digests_of_files,
    parse_with_digests,
    read_record_bytes,
    with_digests,
)
from permafrost.data.errors import InputError
from permafrost.data.machine import machine_name, package_version
from permafrost.probes.config.load import read_file
from permafrost.probes.config.names import JOURNAL, RECORD, TASK_NAME

FORMAT = 6
"""Version of the run folder format; folders of other versions are refused."""

NEVER_READ = ("figures", "report.html", "tensorboard")
"""Folders and files that the record has no digests of."""

TASKS_FOLDER = "tasks"

PACKAGES = ("permafrost", "torch", "transformers", "h5py", "numpy", "scipy", "pandas", "scikit-learn")
"""Packages whose versions are recorded."""

REMEDY = "copy the whole run again, or run its recipe again"
"""Advice in the messages about damaged files."""


def write_record(folder: Path, record: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Write the record of a run folder, with the digests of its files; a folder with a record is complete.

    Args:
        folder: the run folder, in which all other files are written already.
        record: content of the record.
        names: files that are read again, as paths within the folder; None takes all but those of ``NEVER_READ``.
    """
    if names is None:
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        names = [path.as_posix() for path in files if path.parts[0] not in NEVER_READ and path != Path(RECORD)]
    digests = digests_of_files(folder, names)
    content = with_digests({"format": FORMAT} | dict(record), digests)
    write_atomically(folder / RECORD, json.dumps(content, indent=2, ensure_ascii=False).encode())


def environment() -> dict[str, Any]:
    """Return the package versions, git commit, host name and machine of this process."""
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return {
        "versions": {"python": platform.python_version()} | {name: package_version(name) for name in PACKAGES},
        "commit": commit,
        "host": platform.node(),
        "machine": machine_name(),
    }


class RunError(InputError):
    """A folder that is no finished run of this version."""


class ReportError(InputError):
    """A run folder from which no report can be made."""


class RunFolder:
    """The folder of a finished run; its files are compared with their digests when they are read.

    Args:
        path: the folder.
        error: exception type to raise if the folder is no finished run of this format version.
        digest: expected digest of the record, if the run is part of another run; empty skips the check.

    Raises:
        InputError: of type ``error``: the record is missing, of another version, or a link.
        DamageError: the record differs from what the run wrote.
    """

    def __init__(self, path: Path, error: type[InputError], digest: str = "") -> None:
        self.path, self._error = path, error
        if not path.exists():
            raise error(f"{path} is no finished run: there is no such folder.")
        if not (path / RECORD).is_file():
            again = "Run the study again" if (path / JOURNAL).exists() else "Run the recipe again"
            raise error(f"{path} is no finished run: it has no {RECORD}. {again}.")
        self.refuse_link(RECORD)
        content = read_record_bytes(path / RECORD, REMEDY)
        record = parse_with_digests(path / RECORD, content, REMEDY)
        if digest and digest_of(content) != digest:
            raise DamageError(f"{path / RECORD} is not as the run wrote it: {REMEDY}.")
        if record is None or record.get("format") != FORMAT:
            reason = f"its format is {record.get('format')!r}" if record else f"its {RECORD} has no digests"
            raise error(
                f"{path} is of another version of permafrost ({reason}; this one reads format {FORMAT}): run the "
                "recipe again with this version."
            )
        self.record: dict[str, Any] = record
        self.digests: dict[str, str] = record[DIGESTS]

    def has(self, name: str) -> bool:
        """Return whether the run wrote a file.

        Raises:
            DamageError: the file exists although the run did not write it.
        """
        if name in self.digests:
            return True
        if (self.path / name).exists() or (self.path / name).is_symlink():
            raise DamageError(f"{self.path / name} was not written by the run: remove it, or {REMEDY}.")
        return False

    def read(self, name: str) -> bytes:
        """Return the content of a file, empty if the run did not write it.

        Raises:
            InputError: the file is a link.
            DamageError: the file is missing, changed, or not of this run.
        """
        self.refuse_link(name)
        if not self.has(name):
            return b""
        if not (self.path / name).is_file():
            raise DamageError(f"{self.path / name} is missing, which the run wrote: {REMEDY}.")
        content = read_file(self.path / name)
        if digest_of(content) != self.digests[name]:
            raise DamageError(f"{self.path / name} is not as the run wrote it: {REMEDY}.")
        return content

    def open_subrun(self, name: str) -> "RunFolder":
        """Return the run in a sub-folder of this run; errors as of :meth:`read`."""
        self.read(f"{name}/{RECORD}")
        return RunFolder(self.path / name, self._error, self.digests.get(f"{name}/{RECORD}", ""))

    def task_names(self) -> list[str]:
        """Return the names of the tasks of a multi-task run, sorted; empty for a run of one task.

        Raises:
            InputError: the folder of all tasks is a link.
            DamageError: there is a task folder that the run did not write.
        """
        self.refuse_link(TASKS_FOLDER)
        paths = [path.split("/") for path in self.digests]
        names = sorted({parts[1] for parts in paths if len(parts) > 2 and parts[0] == TASKS_FOLDER})
        for path in sorted((self.path / TASKS_FOLDER).glob("*")):
            is_task = path.is_dir() and not path.is_symlink() and TASK_NAME.fullmatch(path.name)
            if is_task and path.name not in names:
                raise DamageError(f"{path} was not written by the run: remove it, or {REMEDY}.")
        return names

    def refuse_link(self, name: str) -> None:
        """Raise an :class:`InputError` if a file or folder of the run, or a folder it lies in, is a link."""
        path = self.path
        for component in name.split("/"):
            path /= component
            if path.is_symlink():
                raise self._error(f"{path} is a link; a run folder holds its files itself.")


def checked_folder(runs: Path | str) -> Path:
    """Return the folder of run folders; raise :class:`InputError` if it is a file, before a training and not after."""
    path = Path(runs)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: a folder is needed here; set --runs to another.")
    return path
