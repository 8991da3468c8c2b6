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

WAYS_OUT = "Start a cluster by 'ray start --head', or give --ray local."

TOKEN_PATH = Path("~/.ray/auth_token")
"""File in which Ray looks for the token of a cluster if no variable of the environment holds or names it."""

CLUSTER_ID = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""Method of gRPC that Ray calls first of a cluster, with an empty message."""

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
    _check_token(address, _check_port(address))
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


def _check_port(address: str) -> str:
    """Return the ``host:port`` of an address, empty if Ray is to start here.

    Raises:
        InputError: no server of gRPC, which Ray speaks, answers there; Ray itself waits for a minute, and then ends the
            process.
    """
    if address == LOCAL:
        return ""
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
    return f"{match[1]}:{match[2]}"


def _check_token(address: str, place: str) -> None:
    """Raise an :class:`InputError` if a cluster asks for a token that this process lacks.

    Ray itself only says after 20 seconds that it cannot connect.

    Args:
        address: as it was given; for that of this machine's cluster, Ray itself turns its tokens on.
        place: ``host:port`` of the cluster; empty asks none.
    """
    try:
        import grpc
    except ImportError:  # Ray tells it then
        return
    mode = os.environ.get("RAY_AUTH_MODE", "token" if address == AUTO else "disabled").lower()
    token = _read_token() if mode == "token" else ""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        if place:
            with grpc.insecure_channel(place) as channel:
                channel.unary_unary(CLUSTER_ID)(b"", timeout=SECONDS_TO_ANSWER, metadata=metadata)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAUTHENTICATED:
            wrong = "the token of this process is not that of the cluster" if token else "the cluster asks for a token"
            raise InputError(
                f"--ray {address}: {wrong}: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token of the cluster "
                "(RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token, is a file that holds it)."
            ) from None


def _read_token() -> str:
    """Return the token with which Ray would join a cluster; empty if there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    try:
        return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_PATH.expanduser()).read_text().strip()
    except OSError:
        return ""


def _read_current() -> str:
    """Return the address of the cluster that was started on this machine.

    Raises:
        InputError: none was.
    """
    try:
        return CURRENT.read_text().strip()
    except OSError:
        raise InputError(f"--ray auto: no cluster was started on this machine. {WAYS_OUT}") from None
