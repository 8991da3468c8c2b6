"""The folder of a store on object storage, reached through fsspec.

An object is sent whole, under the name that is made from its content: a reader sees all of it or nothing. It is copied
to this machine when it is first opened, and its bytes are then compared with its name.
"""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from permafrost.data.atomic import remove_leftovers, temporary_path
from permafrost.data.errors import InputError, MachineError
from permafrost.data.spec import SpecError

DIGEST_NAME = re.compile(r"([0-9a-f]{32})(\.h5|\.texts\.parquet)")
"""Name of an object that is the digest of its bytes."""


def join(url: str, *parts: str) -> str:
    """Return the address of something below another one."""
    return "/".join((url.rstrip("/"), *parts))


class ObjectFolder:
    """Committed files of a store on object storage.

    Args:
        path: of the store in the mirror.
        url: of the store on object storage.
    """

    remote = True

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url

    def names(self) -> list[str]:
        """Return the name of every object; none if there is no such folder.

        Raises:
            MachineError: the storage does not answer, or refuses.
            SpecError: the packages for it are not installed.
        """
        return list(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Return the name of every object -> its bytes; raise as :meth:`names`."""
        return {name: size for name, size in list_objects(self.url).items() if "/" not in name}

    def fetch(self, name: str) -> Path:
        """Return the path of an object on this machine; it is copied if it is not there.

        Raises:
            FileNotFoundError: it was removed.
            MachineError: its bytes are not those its name was made from, or the storage does not answer.
        """
        local = self.path / name
        if local.exists():
            return local
        address = join(self.url, name)
        with errors_of(self.url, "read"):
            content = bytes(_system(self.url).cat_file(address))
        digest = DIGEST_NAME.fullmatch(name)
        if digest and xxhash.xxh3_128_hexdigest(content) != digest[1]:
            raise MachineError(
                f"{address}: its bytes are not those its name was made from. It is not read; remove the object, and "
                "the next extraction runs its texts again."
            )
        with temporary_path(self.path) as temporary:
            temporary.write_bytes(content)
            os.replace(temporary, local)
        return local

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """As :meth:`permafrost.data.store.index.folder.StoreFolder.temporary`, on this machine."""
        remove_leftovers(self.path)
        with temporary_path(self.path) as temporary:
            yield temporary

    def commit(self, name: str) -> None:
        """Send a file of this machine, in one request.

        Raises:
            MachineError: the storage does not answer, or refuses.
        """
        self._send(name, (self.path / name).read_bytes())

    def check_writable(self) -> None:
        """Raise as :meth:`commit` does if objects cannot be written and removed here."""
        name = f".{uuid.uuid4().hex}.tmp"
        self._send(name, b"")
        self.remove(name)

    def _send(self, name: str, content: bytes) -> None:
        with errors_of(self.url, "written"):
            try:
                _system(self.url).pipe_file(join(self.url, name), content)
            except FileNotFoundError as error:
                raise _no_bucket(self.url) from error

    def remove(self, name: str) -> None:
        """Remove an object, and its copy."""
        (self.path / name).unlink(missing_ok=True)
        with errors_of(self.url, "changed"):
            try:
                _system(self.url).rm_file(join(self.url, name))
            except FileNotFoundError:
                return


def list_objects(url: str) -> dict[str, int]:
    """Return the name of every object below an address, relative to it -> its bytes.

    Raises as :meth:`ObjectFolder.names`.
    """
    with errors_of(url, "listed"):
        system = _system(url)
        system.invalidate_cache()
        top = str(system._strip_protocol(url)).rstrip("/")
        try:
            found = system.find(top, detail=True)
            return {str(name).removeprefix(f"{top}/"): int(about["size"] or 0) for name, about in found.items()}
        except FileNotFoundError as error:
            if "bucket does not exist" in str(error):
                raise _no_bucket(url) from error
            return {}


@contextmanager
def errors_of(url: str, verb: str) -> Iterator[None]:
    """Turn what a storage raises into one line; a file that is not there is still a :class:`FileNotFoundError`."""
    try:
        yield
    except (FileNotFoundError, InputError, MachineError):
        raise
    except PermissionError as error:
        raise MachineError(
            f"{url} cannot be {verb}: permission denied ({_reason(error)}). What was committed is safe; check the "
            "credentials and the policy of the bucket, and run the same command to go on."
        ) from error
    except Exception as error:  # each storage has its own
        raise MachineError(
            f"{url} cannot be {verb}: {_reason(error)}. What was committed is safe; run the same command to go on."
        ) from error


def _no_bucket(url: str) -> SpecError:
    return SpecError(f"{url}: there is no such bucket; create it, or set extract.cache to another one.")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _system(url: str) -> Any:
    """Return the file system of an address.

    Raises:
        SpecError: there is none of this kind, or its package is not installed.
    """
    scheme = url.split("://", maxsplit=1)[0]
    try:
        import fsspec  # type: ignore[import-untyped]

        return fsspec.filesystem(scheme)
    except ImportError as error:
        wanted = "permafrost[s3]" if scheme == "s3" else "the package that fsspec names"
        raise SpecError(f"extract.cache = '{url}' needs {wanted}: pip install {wanted} ({_reason(error)}).") from error
    except ValueError as error:
        raise SpecError(f"extract.cache = '{url}': {_reason(error)}.") from error
