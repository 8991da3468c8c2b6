"""A PostgreSQL server of the tests' own: Debian's, on a socket in a temporary folder, as a user that may run it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    folder: Path | None = None
    programs: Path | None = None

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        self._control("-l", f"{self.folder}/log", "-t", "60", "-o", f"-k {self.folder} -c listen_addresses=''", "start")

    def stop(self) -> None:
        """Stop it as a crash does: nobody is told good-bye."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        assert self.folder is not None, "this server is not ours"
        _as_owner(self.folder, f"{self.programs}/pg_ctl", "-D", f"{self.folder}/data", "-w", *words)


def _find() -> Path | None:
    """The folder of initdb and pg_ctl."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*installed, *([Path(on_path).parent] if on_path else [])]
    return next((path for path in folders if (path / "initdb").exists() and (path / "pg_ctl").exists()), None)


def _as_owner(folder: Path, *command: str) -> None:
    """Run a command as the folder's owner: initdb and the server refuse root."""
    about = folder.stat()
    owner: dict[str, Any] = {} if os.geteuid() else {"user": about.st_uid, "group": about.st_gid, "extra_groups": []}
    with open(folder / "output", "a+") as output:  # no pipe: the server would keep it open
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, **owner
        )
        output.seek(0)
        assert done.returncode == 0, f"{command[0]}: {output.read()}"


@contextmanager
def running() -> Iterator[Server]:
    """A fresh server, gone afterwards; skips where there is none unless ``PERMAFROST_POSTGRESQL`` insists."""
    if given := os.environ.get("PERMAFROST_POSTGRESQL_URL"):
        yield Server(given)
        return
    programs = _find()
    if programs is None:
        reason = "no PostgreSQL server is installed: apt-get install postgresql, or set PERMAFROST_POSTGRESQL_URL"
        if os.environ.get("PERMAFROST_POSTGRESQL"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has room for 107 bytes
    if not os.geteuid():
        shutil.chown(folder, "postgres")
    server = Server(f"postgresql+psycopg://tester@/postgres?host={folder}", folder, programs)
    settings = ["-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    try:
        _as_owner(folder, f"{programs}/initdb", "-D", f"{folder}/data", *settings)
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
