"""Mirrors: the folder on this machine that stands for a cache on object storage, such as ``s3://bucket/latents``.

A mirror holds what was read or written of the cache, under the same names, and what a cache keeps beside its stores
(digests, converted backbones). The file :data:`URL_FILE` says what it is a mirror of. A mirror may be removed at any
time.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from permafrost.data.atomic import write_atomically
from permafrost.data.remote.local_folder import LocalFolder
from permafrost.data.remote.object_folder import ObjectFolder, join, list_objects
from permafrost.data.store.index.folder import StoreFolder

URL_FILE = ".cache-url"

URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/]")


def is_url(cache: str) -> bool:
    """Return whether a cache is on object storage."""
    return bool(URL.match(cache))


def local_cache(cache: str) -> Path:
    """Return the folder of a cache on this machine: the folder itself, or the mirror of one on object storage.

    Mirrors are in ``$XDG_CACHE_HOME/permafrost``, by default ``~/.cache/permafrost``.
    """
    if not is_url(cache):
        return Path(cache)
    url = cache.rstrip("/")
    top = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    mirror = top / "permafrost" / re.sub(r"[^A-Za-z0-9._-]+", "--", url)
    if url_of(mirror) != url:
        write_atomically(mirror / URL_FILE, url.encode())
    return mirror


def url_of(cache: Path) -> str:
    """Return what a folder is the mirror of; empty if it is none."""
    try:
        return (cache / URL_FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def store_folder(store: Path) -> StoreFolder:
    """Return the folder of a store, ``<cache>/<backbone>/<identity>``: on this machine, or on object storage."""
    if len(store.parts) > 2 and (url := url_of(store.parents[1])):
        return ObjectFolder(store, join(url, store.parent.name, store.name))
    return LocalFolder(store)


def store_paths(cache: Path, backbone: str) -> list[Path]:
    """Return the paths of what may be the stores of a backbone, by the name of its folder in a cache."""
    if url := url_of(cache):
        names = {name.split("/")[0] for name in list_objects(join(url, backbone)) if "/" in name}
        return sorted(cache / backbone / name for name in names)
    return sorted((cache / backbone).glob("*"))


def files_below(cache: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the paths of all files in the stores of a cache whose names end with one of some suffixes.

    Args:
        cache: a folder, or a mirror: then the files are those on object storage, which may not be on this machine.
    """
    if url := url_of(cache):
        names = [name for name in list_objects(url) if name.count("/") == 2 and name.endswith(tuple(suffixes))]
        return sorted(cache / name for name in names)
    return sorted({path for suffix in suffixes for path in cache.glob(f"*/*/*{suffix}")})
