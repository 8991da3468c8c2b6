"""Connection to a Ray cluster, or its start on this machine. ray is imported here alone, and only when asked for."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from permafrost.data.errors import InputError, first_line

PASSED = re.compile(r"HF_|PERMAFROST_|OMP_|TRANSFORMERS_|PYTHONPATH$")
"""Beginnings of the variables of the environment that actors get too."""

SECONDS_TO_ANSWER = 15.0
"""Time that a cluster has to answer."""

LOCAL, AUTO = "local", "auto"


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Connect to a cluster, and yield the package ray; at the end, what was started on it ends.

    Raises:
        InputError: the package is not installed, or nothing answers at the address.
    """
    try:
        import ray
    except ImportError:
        raise InputError('--ray needs the package ray: pip install "permafrost[ray]".') from None
    _check_port(address)
    variables = {name: value for name, value in os.environ.items() if PASSED.match(name)}
    given: dict[str, Any] = {"runtime_env": {"env_vars": variables}, "log_to_driver": False, "logging_level": "ERROR"}
    given |= {"include_dashboard": False} if address == LOCAL else {"address": address}
    if not ray.is_initialized():
        _within(SECONDS_TO_ANSWER, address, lambda: ray.init(**given))
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_port(address: str) -> None:
    """Raise an :class:`InputError` if nothing listens at ``host:port``."""
    if address in (LOCAL, AUTO):
        return
    match = re.fullmatch(r"(?:ray://)?\[?([^\s/]+?)\]?:(\d{1,5})", address)
    if not match or int(match[2]) > 65535:
        raise InputError(f"--ray {address!r}: expected HOST:PORT, auto or local.")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise InputError(
            f"--ray {address}: nothing answers there ({error.strerror or first_line(error)}). Start a cluster by 'ray "
            "start --head', or give --ray local."
        ) from error


def _within(seconds: float, address: str, start: Any) -> None:
    """Call ``start``; raise an :class:`InputError` if it fails or takes longer than some seconds."""
    failed = list[BaseException]()

    def call() -> None:
        try:
            start()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(None if address == LOCAL else seconds)
    if thread.is_alive() or failed:
        reason = first_line(failed[0]) if failed else f"no cluster within {seconds:g} s"
        raise InputError(f"--ray {address}: {reason}. Start a cluster by 'ray start --head', or give --ray local.")
