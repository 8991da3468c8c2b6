"""Looking after stores: list, verify, repair, prune. Nothing here deletes a latent that has no other copy unasked."""

import os
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

from permafrost.data.atomic import TEMPORARY_SUFFIX
from permafrost.data.spec import nearest, plain
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.data.store.shard import SHARD_NAME, STORE_NAME, SUFFIX, Shard
from permafrost.data.store.store import LatentStore

DAMAGED = ".damaged"

LEFTOVER_SECONDS = 3600.0
"""A temporary file this old belongs to no living writer: a shard is written in one go."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with one shard."""

    path: Path
    problems: tuple[str, ...]
    other_version: bool = False
    """Whether nothing is wrong but that another version wrote it."""


def store_folders(cache: Path) -> list[Path]:
    """Every folder of ``cache`` that holds shards."""
    found = {
        path.parent for pattern in (f"*/*/*{SUFFIX}*", f"*/*/.*{TEMPORARY_SUFFIX}") for path in cache.glob(pattern)
    }
    return sorted(folder for folder in found if STORE_NAME.fullmatch(folder.name))


def pick_stores(cache: Path, names: Sequence[str]) -> list[Path]:
    """Stores by folder or by the beginning of their identity; all of them where none is named.

    Raises:
        StoreError: a name fits no store, or several.
    """
    folders = store_folders(cache)
    if not names:
        return folders
    picked = []
    for name in names:
        path = Path(name)
        found = [path] if path.is_dir() and STORE_NAME.fullmatch(path.resolve().name) else []
        found = found or [folder for folder in folders if folder.name.startswith(name)]
        if len(found) != 1:
            reason = "fits several stores" if found else "is no store"
            raise StoreError(f"'{name}' {reason} in {cache}. {nearest(name, [f.name for f in folders])}")
        picked += found
    return picked


def summary(folder: Path) -> dict[str, Any]:
    """What a store holds, for a table: texts, columns, bytes and where they came from."""
    store = LatentStore.open(folder)
    shards = store.shards
    keys = np.unique(np.concatenate([shard.keys for shard in shards]))
    return {
        "store": str(folder),
        "backbone": str(shards[0].provenance.get("backbone", folder.parent.name)),
        "identity": store.identity.name,
        "template": store.identity.template,
        "compute_dtype": store.identity.compute_dtype,
        "stored_dtype": store.identity.stored_dtype,
        "texts": len(keys),
        "columns": {view: list(layers) for view, layers in store.columns().items()},
        "shards": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
        "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(max(s.path.stat().st_mtime for s in shards))),
    }


def details(folder: Path) -> dict[str, Any]:
    """All that a store says of itself."""
    store = LatentStore.open(folder)
    shards = [
        {"name": s.path.name, "texts": s.texts, "tokens": s.tokens, "bytes": s.bytes}
        | {"columns": s.columns, "provenance": s.provenance}
        for s in store.shards
    ]
    return summary(folder) | {"identity": plain(store.identity), "shards": shards}


def intact(cache: Path) -> list[Path]:
    """The stores of ``cache`` that hold at least one committed shard."""
    return [folder for folder in store_folders(cache) if next(folder.glob(f"*{SUFFIX}"), None)]


def shard_paths(folders: Iterable[Path]) -> list[Path]:
    """Every committed shard of some stores."""
    return [path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]


def verify(folders: Iterable[Path], advance: Callable[[int], None] = lambda steps: None) -> Iterator[Finding]:
    """Read every byte of every shard, in a child process: a hostile file may end the child, not us."""
    pool = _child()
    try:
        for path in shard_paths(folders):
            finding: Finding | None = Finding(path, ("reading it ended the process that read it, twice",))
            for _ in range(2):  # once may be somebody else's kill
                try:
                    finding = pool.submit(examine, path).result()
                    break
                except BrokenProcessPool:
                    pool.shutdown(wait=False)
                    pool = _child()
            if finding:
                yield finding
            advance(1)
    finally:
        pool.shutdown()


def examine(path: Path) -> Finding | None:
    """What is wrong with one shard, if anything; runs in the child."""
    try:
        shard = Shard(path)
        foreign = [] if shard.identity.name == path.parent.name else ["it belongs to another store"]
        problems = shard.problems() + foreign
    except ShardError as error:
        return Finding(path, (error.reason,), isinstance(error, OtherVersionError))
    except OSError as error:
        problems = [f"it cannot be read ({error.strerror or error})"]
    return Finding(path, tuple(problems)) if problems else None


def repair(folders: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Set damaged shards aside, under their name with ``.damaged``, and remove what dead writers left.

    Shards of another version stay: it can still read them.

    Returns:
        the shards set aside, the leftovers removed.
    """
    folders = list(folders)
    aside = []
    for finding in verify(folders):
        if finding.other_version:
            continue
        target = finding.path.with_name(finding.path.name + DAMAGED)
        os.replace(finding.path, target)
        aside.append(target)
    return aside, remove_leftovers(folders)


def prune(folders: Iterable[Path]) -> tuple[list[Path], int]:
    """Remove shards that others make redundant, shards set aside, and leftovers; none that another version wrote.

    Returns:
        what was removed, and its bytes.
    """
    folders = list(folders)
    doomed = [path for folder in folders for path in folder.glob(f"*{DAMAGED}")]
    for folder in folders:
        if next(folder.glob(f"*{SUFFIX}"), None):
            with suppress(OtherVersionError):
                doomed += _redundant(LatentStore.open(folder))
    size = sum(path.stat().st_size for path in doomed)
    for path in doomed:
        path.unlink()
    return doomed + remove_leftovers(folders), size


def remove_stores(folders: Iterable[Path]) -> tuple[list[Path], int]:
    """Remove whole stores; only files that stores are made of are touched.

    Returns:
        what was removed, and its bytes.
    """
    removed, size = [], 0
    for folder in folders:
        files = [path for path in folder.iterdir() if _ours(path)]
        size += sum(path.stat().st_size for path in files)
        for path in files:
            path.unlink()
        removed += files
        if not any(folder.iterdir()):
            folder.rmdir()
    return removed, size


def _ours(path: Path) -> bool:
    name = path.name.removesuffix(DAMAGED)
    return path.is_file() and bool(SHARD_NAME.fullmatch(name) or (name[:1] == "." and name.endswith(TEMPORARY_SUFFIX)))


def remove_leftovers(folders: Iterable[Path]) -> list[Path]:
    """Remove temporary files that no living writer can own."""
    now = time.time()
    old = [
        path
        for folder in folders
        for path in folder.glob(f".*{TEMPORARY_SUFFIX}")
        if now - path.stat().st_mtime > LEFTOVER_SECONDS
    ]
    for path in old:
        path.unlink(missing_ok=True)
    return old


def _redundant(store: LatentStore) -> list[Path]:
    kept = list(store.shards)
    doomed = []
    ranked = kept[::-1]
    ranked.sort(key=lambda shard: shard.texts)  # of equals the last by name goes first: it is not the one that is read
    for shard in ranked:
        others = [other for other in kept if other is not shard]
        columns = [(view, layer) for view, layers in shard.columns.items() for layer in layers]
        if all(store.held(shard.keys, view, layer, others).all() for view, layer in columns):
            kept = others
            doomed.append(shard.path)
    return doomed


def _child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
