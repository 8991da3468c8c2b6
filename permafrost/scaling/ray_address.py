"""Connection to a Ray cluster, or its start on this machine. ray is imported here alone, and only when asked for."""

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from permafrost.data.errors import InputError, first_line

PASSED = re.compile(r"(?!.*TOKEN)(HF_|PERMAFROST_|OMP_|TRANSFORMERS_|PYTHONPATH$)")
"""Beginnings of the variables of the environment that actors get too; no secret, for a cluster shows them."""

OBJECT_STORE_BYTES = 256 << 20
"""Memory of Ray's store of objects if Ray is started here: units are small, and latents never pass through it."""

SECONDS_TO_ANSWER = 10.0
"""Time that a cluster has to answer."""

SETTINGS_FRAME = b"\x04"
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS_FRAME + bytes(5)
"""First bytes of a client of HTTP/2, with an empty frame of settings; the server's first frame is one too."""

WAYS_OUT = (
    "Start a cluster by 'ray start --head', or give --ray local; a cluster with token authentication needs "
    "RAY_AUTH_MODE and your token in the environment."
)

CURRENT = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "ray_current_cluster")
"""File in which Ray keeps the address of the cluster that was started on this machine, even after it was killed."""

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
    given["address"] = address  # without one, Ray joins a cluster that it finds
    if address == LOCAL:
        given |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(**given)
    except Exception as error:  # a ConnectionError, or one of its many
        raise InputError(f"--ray {address}: {first_line(error)}. {WAYS_OUT}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_port(address: str) -> None:
    """Raise an :class:`InputError` if no server of gRPC, which Ray speaks, answers at ``host:port``.

    Ray itself waits for a minute, and then ends the process.
    """
    if address == LOCAL:
        return
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or _read_current()
    match = re.fullmatch(r"(?:ray://)?\[?([^\s/]+?)\]?:(\d{1,5})", address)
    if not match or int(match[2]) > 65535:
        raise InputError(f"--ray {address!r}: expected HOST:PORT, auto or local. {WAYS_OUT}")
    try:
        with socket.create_connection((match[1], int(match[2])), timeout=SECONDS_TO_ANSWER) as connection:
            connection.sendall(HELLO)
            answer = connection.recv(9)
    except OSError as error:
        raise InputError(
            f"--ray {address}: nothing answers there ({error.strerror or first_line(error)}). {WAYS_OUT}"
        ) from error
    if answer[3:4] != SETTINGS_FRAME:
        raise InputError(f"--ray {address}: what answers there is no Ray cluster. {WAYS_OUT}")


def _read_current() -> str:
    """Return the address of the cluster that was started on this machine.

    Raises:
        InputError: none was.
    """
    try:
        return CURRENT.read_text().strip()
    except OSError:
        raise InputError(f"--ray auto: no cluster was started on this machine. {WAYS_OUT}") from None
