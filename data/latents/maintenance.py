"""Maintenance of latent stores: list, verify, repair, prune.

No function deletes an intact latent that has no other copy, except :func:`remove_stores`.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.atomic import TEMPORARY_SUFFIX, remove_leftovers
from permafrost.data.errors import MachineError
from permafrost.data.latents.duplicates import columns_of
from permafrost.data.latents.kept_texts import TEXTS_SUFFIX, kept_keys, problems_of_texts, text_files
from permafrost.data.latents.reader import largest_values
from permafrost.data.remote.mirror import files_below, store_folder, url_of
from permafrost.data.spec import nearest, plain
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.data.store.index.segment import INDEX_SUFFIX
from permafrost.data.store.shard import Shard
from permafrost.data.store.shard_layout import SUFFIX
from permafrost.data.store.store import LatentStore

DAMAGED = ".damaged"

STORE_NAME = re.compile(r"[0-9a-f]{16}")

FILE_NAME = re.compile(rf"[0-9a-f]{{32}}({'|'.join(map(re.escape, (SUFFIX, TEXTS_SUFFIX, INDEX_SUFFIX)))})")
"""Name of a file of a store: a shard, kept texts, or an index."""


@dataclass(frozen=True)
class Finding:
    """The problems of one file."""

    path: Path
    problems: tuple[str, ...]
    other_version: bool = False
    """Whether the only problem is that another version wrote it."""


def store_folders(cache: Path) -> list[Path]:
    """Return every folder of ``cache`` that holds shards, shards set aside or temporary files, each once.

    A link to a store in the same cache is left out.

    Raises:
        StoreError: the cache is no folder.
    """
    if cache.exists() and not cache.is_dir():
        raise StoreError(f"{cache} is no folder of stores.")
    patterns = (f"*/*/*{SUFFIX}*", f"*/*/.*{TEMPORARY_SUFFIX}")
    folders = {path.parent for pattern in patterns for path in cache.glob(pattern)}
    folders |= {path.parent for path in files_below(cache, [SUFFIX])} if url_of(cache) else set()
    stores = sorted(folder for folder in folders if STORE_NAME.fullmatch(folder.name))
    return sorted(_distinct(sorted(stores, key=Path.is_symlink)))


def pick_stores(cache: Path, names: Sequence[str]) -> list[Path]:
    """Return the stores with the given folders or beginnings of identities; all stores if no name is given.

    Raises:
        StoreError: a name matches no store, or several.
    """
    folders = store_folders(cache)
    if not names:
        return folders
    stores = []
    for name in names:
        path = Path(name)
        matches = [path] if path.is_dir() and STORE_NAME.fullmatch(path.resolve().name) else []
        matches = matches or [folder for folder in folders if folder.name.startswith(name)]
        if len(matches) != 1:
            reason = "fits several stores" if matches else "is no store"
            raise StoreError(f"'{name}' {reason} in {cache}. {nearest(name, [folder.name for folder in folders])}")
        stores += matches
    return _distinct(stores)


def _distinct(folders: Iterable[Path]) -> list[Path]:
    """Return folders without those that are an earlier one under another name."""
    first = dict[Path, Path]()
    for folder in folders:
        first.setdefault(folder.resolve(), folder)
    return list(first.values())


def store_summary(folder: Path) -> dict[str, Any]:
    """Return a table row that summarises a store: texts, columns, bytes and their source."""
    store = LatentStore.open(folder)
    files = store.shard_sizes()
    written = [path.stat().st_mtime for path in files if path.exists()]
    return {
        "store": str(folder),
        "backbone": str(store.first_shard.provenance.get("backbone", folder.parent.name)),
        "identity": store.identity.name,
        "template": store.identity.template,
        "compute_dtype": store.identity.compute_dtype,
        "stored_dtype": store.identity.stored_dtype,
        "texts": store.count_texts(),
        "columns": {view: list(layers) for view, layers in store.columns().items()},
        "shards": len(files),
        "bytes": sum(files.values()) + sum(path.stat().st_size for path in text_files(folder)),
        "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(max(written))) if written else "",
    }


def store_details(folder: Path) -> dict[str, Any]:
    """Return the summary of a store with its identity, its shards, and the largest absolute value in each layer."""
    store = LatentStore.open(folder)
    shards = [
        {"name": shard.path.name, "texts": shard.texts, "tokens": shard.tokens, "bytes": shard.bytes}
        | {"columns": shard.columns, "provenance": shard.provenance}
        for shard in store.shards
    ]
    summary = store_summary(folder)
    kept = int(np.isin(np.unique(np.concatenate([shard.keys for shard in store.shards])), kept_keys(folder)).sum())
    return summary | {
        "texts_kept": kept,
        "texts_unknown": summary["texts"] - kept,
        "peaks": largest_values(store.shards),
        "identity": plain(store.identity),
        "shards": shards,
    }


def stores_with_shards(cache: Path) -> list[Path]:
    """Return the stores of ``cache`` that hold at least one committed shard."""
    return [folder for folder in store_folders(cache) if shard_paths([folder])]


def shard_paths(folders: Iterable[Path]) -> list[Path]:
    """Return the path of every committed shard of the given stores."""
    return [
        folder / name
        for folder in folders
        for name in sorted(store_folder(folder).names())
        if name.endswith(SUFFIX) and not name.startswith(".")
    ]


def store_files(folders: Iterable[Path]) -> list[Path]:
    """Return the path of every file of the given stores: shards, and kept texts."""
    folders = list(folders)
    return [*shard_paths(folders), *(path for folder in folders for path in text_files(folder))]


def verify(folders: Iterable[Path], advance: Callable[[int], None] = lambda steps: None) -> Iterator[Finding]:
    """Yield a finding for each file with problems, a shard or kept texts; calls ``advance`` after each.

    Every byte of every file is read.
    Shards are read in a child process, because a hostile file may crash the process that reads it.
    """
    pool = _start_child()
    try:
        for path in store_files(folders):
            finding: Finding | None = Finding(path, ("reading it ended the process that read it, twice",))
            for _ in range(2):  # a single crash may have another cause
                try:
                    finding = pool.submit(examine, store_folder(path.parent).fetch(path.name)).result()
                    break
                except MachineError as error:  # what was fetched is not what its name says
                    finding = Finding(path, (str(error),))
                    break
                except BrokenProcessPool:
                    pool.shutdown(wait=False)
                    pool = _start_child()
            if finding:
                yield finding
            advance(1)
    finally:
        pool.shutdown()


def examine(path: Path) -> Finding | None:
    """Return the problems of one file of a store; None if it has none. Runs in the child process."""
    if path.name.endswith(TEXTS_SUFFIX):
        problems = list(problems_of_texts(path))
        return Finding(path, tuple(problems)) if problems else None
    try:
        shard = Shard(path)
        misplaced = [] if shard.identity.name == path.parent.resolve().name else ["it belongs to another store"]
        problems = shard.problems() + misplaced
    except ShardError as error:
        return Finding(path, (error.reason,), isinstance(error, OtherVersionError))
    except OSError as error:
        problems = [f"it cannot be read ({error.strerror or error})"]
    return Finding(path, tuple(problems)) if problems else None


def check_here(folders: Iterable[Path]) -> None:
    """Raise a :class:`StoreError` if a store is on object storage, where nothing is renamed or removed."""
    for folder in folders:
        if store_folder(folder).remote:
            raise StoreError(
                f"{folder}: this store is on object storage ({url_of(folder.parents[1])}), where nothing is renamed or "
                "removed: remove objects there, by the names that 'cache verify' gives."
            )


def repair(folders: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Rename damaged shards to ``*.damaged``, and remove old temporary files.

    Shards of another version are kept: that version can still read them.

    Returns:
        the renamed shards and the removed files.
    """
    folders = list(folders)
    check_here(folders)
    damaged = (finding.path for finding in verify(folders) if not finding.other_version)
    renamed = [path.replace(path.with_name(path.name + DAMAGED)) for path in damaged]
    return renamed, _remove_old_leftovers(folders)


def prune(folders: Iterable[Path]) -> tuple[list[Path], int]:
    """Remove redundant shards, shards set aside and old temporary files, but no shard of another version.

    Returns:
        the removed files, and the bytes of the removed shards.
    """
    folders = list(folders)
    check_here(folders)
    obsolete = [path for folder in folders for path in folder.glob(f"*{DAMAGED}")]
    for folder in folders:
        if next(folder.glob(f"*{SUFFIX}"), None):
            with suppress(OtherVersionError):
                obsolete += _redundant_shards(LatentStore.open(folder))
    size = sum(path.stat().st_size for path in obsolete)
    for path in obsolete:
        path.unlink()
    return obsolete + _remove_old_leftovers(folders), size


def remove_stores(folders: Iterable[Path]) -> tuple[list[Path], int]:
    """Remove whole stores, but no file that is not part of one; return the removed files and their bytes."""
    folders = list(folders)
    check_here(folders)
    removed, size = list[Path](), 0
    for folder in folders:
        for path in list(folder.iterdir()):
            name = path.name.removesuffix(DAMAGED)
            is_temporary = name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)
            if path.is_file() and (is_temporary or FILE_NAME.fullmatch(name)):
                size += path.stat().st_size
                path.unlink()
                removed.append(path)
        if not any(folder.iterdir()):
            folder.rmdir()
    return removed, size


def _remove_old_leftovers(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in remove_leftovers(folder)]


def _redundant_shards(store: LatentStore) -> list[Path]:
    """Return the paths of shards all of whose latents other shards hold too, that stay."""
    shards, redundant = store.shards, list[Path]()
    keys_of = {shard.path: shard.keys for shard in shards}
    known = np.unique(np.concatenate(list(keys_of.values())))
    rows_of = {path: np.unique(np.searchsorted(known, keys)) for path, keys in keys_of.items()}
    copies: dict[tuple[str, int], NDArray[np.int64]] = {}
    """View and layer -> number of shards that hold it, ``[text]``."""
    for shard in shards:
        for column in columns_of(shard):
            copies.setdefault(column, np.zeros(len(known), np.int64))[rows_of[shard.path]] += 1
    ranked = shards[::-1]
    ranked.sort(key=lambda shard: shard.texts)  # of equal shards, the last by name goes first: it is never read
    for shard in ranked:
        rows = rows_of[shard.path]
        if all((copies[column][rows] > 1).all() for column in columns_of(shard)):
            for column in columns_of(shard):
                copies[column][rows] -= 1
            redundant.append(shard.path)
    return redundant


def _start_child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
