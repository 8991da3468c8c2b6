"""Dashboard of a study: optuna-dashboard in a process of its own, which reads the study's storage and changes nothing.

It serves this machine alone. Before the search begins the page says so, and loads itself again.
"""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from permafrost.data.errors import InputError
from permafrost.probes.search.journal import Journal
from permafrost.probes.search.workers import begin_worker

HOST = "127.0.0.1"

SECONDS_TO_END = 2.0
"""Time that the process has to end after SIGTERM, before it is killed."""

WAITING = (
    b'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>Study</title>'
    b"<p>The search has not begun: latents are being extracted. This page loads itself again."
)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@contextmanager
def serve_study(journal: Path, storage: str | None, port: int) -> Iterator[str]:
    """Serve the dashboard of a study while the context lasts.

    Args:
        journal: journal file of the study; it may be absent still.
        storage: SQLAlchemy URL of its database; None reads the journal.
        port: 0 takes a free one.

    Yields:
        The address, ``http://127.0.0.1:8080/``.

    Raises:
        InputError: optuna-dashboard is not installed, or the port is taken.
    """
    if find_spec("optuna_dashboard") is None:
        raise InputError("--dashboard needs optuna-dashboard: pip install 'permafrost[dashboard]'")
    if not 0 <= port < 1 << 16:
        raise InputError(f"--port {port}: a port is a number from 0 to 65535; 0 takes a free one.")
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise InputError(f"--port {port} cannot be used ({reason}): set it to another, or to 0.") from error
    with listening:
        address = f"http://{HOST}:{listening.getsockname()[1]}/"
        process = multiprocessing.get_context("spawn").Process(
            target=serve_requests, args=(listening, journal, storage), daemon=True
        )
        process.start()
        try:
            yield address
        finally:
            process.terminate()
            process.join(SECONDS_TO_END)
            process.kill()
            process.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread for each request."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """A handler that logs nothing."""

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  its name in the base class
        """Ignore the message."""


def serve_requests(listening: socket.socket, journal: Path, storage: str | None) -> None:
    """Answer requests until the parent ends; the main function of the process."""
    begin_worker()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, port = listening.getsockname()
    server = _Server((host, port), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.server_name, server.server_port = listening, host, port
    server.setup_environ()
    server.set_app(cast(Any, study_app(journal, storage)))
    server.serve_forever()


def study_app(journal: Path, storage: str | None) -> Wsgi:
    """Return the web application of a study: that of optuna-dashboard once the study is there, and read-only."""
    apps: list[Wsgi] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS"):
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [b'{"reason": "This dashboard only shows the study."}']
        if not apps and (made := _make_app(journal, storage)):
            apps.append(made)
        if not apps:
            start_response("503 Service Unavailable", [("Content-Type", "text/html; charset=utf-8")])
            return [WAITING]
        return apps[0](environ, start_response)

    return app


def _make_app(journal: Path, storage: str | None) -> Wsgi | None:
    """Return the application of optuna-dashboard; None if the study is not there yet."""
    if not storage and not journal.is_file():
        return None
    from optuna.storages import JournalStorage, RDBStorage
    from optuna_dashboard import wsgi

    try:
        if storage:
            opened: Any = RDBStorage(storage, skip_compatibility_check=True, skip_table_creation=True)
        else:
            opened = JournalStorage(cast(Any, Journal(journal)))
        if not opened.get_all_studies():
            return None
    except Exception:  # tables that are missing raise an error of the database's own
        return None
    return cast(Wsgi, wsgi(opened))
