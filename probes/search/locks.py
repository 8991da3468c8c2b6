"""Locks of a study: they keep the sessions of several hosts apart, which run it at once.

A session holds the lock of each trial that it runs. Locks end with their holder, so that of a trial whose session died
can be taken, and nobody takes that of a trial that is trained.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from permafrost.data.spec import fingerprint

TAKE, WAIT, RELEASE = (
    text(f"select pg_{name}(:key)") for name in ("try_advisory_lock", "advisory_lock", "advisory_unlock")
)
"""Statements on one of PostgreSQL's advisory locks, which end with the connection that took them."""

SETTINGS = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "0",
}
"""Settings of the connection that holds locks: the server finds out within a minute that a host is gone."""

SET = text("select set_config(name, :value, false) from pg_settings where name = :name")
"""Statement that sets what the server knows; older ones know less."""


class StudyLocks:
    """Locks of a study that one session at a time runs: it needs none, and gets all."""

    host = ""
    """Name of this host if sessions of several may run the study, else empty."""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other sessions from proposing and ending trials while the context lasts."""
        yield

    def take(self, trial: int) -> bool:
        """Take the lock of a trial; return False if another session holds it."""
        return True

    def release(self, trial: int) -> None:
        """Release the lock of a trial."""

    def keep(self) -> None:
        """Take the locks of this session again if they were lost with the connection, unless others have them now."""

    @contextmanager
    def end(self) -> Iterator[bool]:
        """Hold the lock of the session that writes the end of the study; yield False if another one holds it."""
        yield True


class AdvisoryLocks(StudyLocks):
    """Locks of a study in a PostgreSQL database, on a connection of their own; errors are those of SQLAlchemy."""

    def __init__(self, engine: Engine, study: str) -> None:
        """Connect; hold nothing yet.

        Args:
            engine: commits each statement.
            study: name of the study.
        """
        self.host = platform.node() or "a host without a name"
        self._engine, self._study, self._held = engine, study, set[int]()
        self._connection = self._connect()

    def close(self) -> None:
        """Close the connection, and so release every lock."""
        with suppress(SQLAlchemyError):  # it is closed already if the server could not be reached again
            self._connection.invalidate()
            self._connection.close()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other sessions from proposing and ending trials while the context lasts."""
        self.keep()
        with self._waiting(self._study):
            yield

    @contextmanager
    def making_tables(self) -> Iterator[None]:
        """Keep other sessions, of any study, from making the tables of the database while the context lasts."""
        with self._waiting(["tables"]):
            yield

    def take(self, trial: int) -> bool:
        """Take the lock of a trial; return False if another session holds it."""
        if taken := self._execute(TAKE, [self._study, trial]):
            self._held.add(trial)
        return taken

    def release(self, trial: int) -> None:
        """Release the lock of a trial."""
        self._held.discard(trial)
        self._execute(RELEASE, [self._study, trial])

    def keep(self) -> None:
        """Take the locks of this session again if they were lost with the connection, unless others have them now."""
        try:
            self._connection.execute(text("select 1"))
        except SQLAlchemyError:
            self.close()
            self._connection = self._connect()
            for trial in self._held:
                self._execute(TAKE, [self._study, trial])

    @contextmanager
    def end(self) -> Iterator[bool]:
        """Hold the lock of the session that writes the end of the study; yield False if another one holds it."""
        self.keep()
        yield self._execute(TAKE, [self._study, "end"])

    @contextmanager
    def _waiting(self, what: Any) -> Iterator[None]:
        self._execute(WAIT, what)
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # a connection that is lost has released it
                self._execute(RELEASE, what)

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        for name, value in SETTINGS.items():
            connection.execute(SET, {"name": name, "value": value})
        return connection

    def _execute(self, statement: Any, what: Any) -> bool:
        return bool(self._connection.execute(statement, {"key": int(fingerprint(what), 16) >> 1}).scalar())
