"""``cache list | show | verify | repair | prune``: the part of the command line that needs nothing but the stores."""

import json
from pathlib import Path
from typing import Annotated

import typer

from permafrost.cli.console import Console, cell, show_json, show_table
from permafrost.cli.options import JsonOption
from permafrost.data.errors import MachineError
from permafrost.data.store import maintenance
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError

cache_app = typer.Typer(help="List, check, repair and prune the stores of latents.", no_args_is_help=True)

CacheOption = Annotated[Path, typer.Option("--cache", help="Folder of the latent stores.")]

StoreNames = Annotated[
    list[str] | None, typer.Argument(help="Stores, by folder or by the beginning of their identity; all if none.")
]


@cache_app.command("list")
def cache_list(cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """Every store: backbone, texts, views, bytes."""
    found = []
    for folder in maintenance.intact(cache):
        try:
            found.append(maintenance.summary(folder))
        except ShardError as error:
            Console().note(f"left out: {error}")
    if as_json:
        show_json({"stores": found})
        return
    keys = [
        "backbone",
        "identity",
        "compute_dtype",
        "stored_dtype",
        "template",
        "texts",
        "columns",
        "shards",
        "bytes",
        "written",
    ]
    show_table(keys, [[_columns(one[key]) if key == "columns" else cell(one[key]) for key in keys] for one in found])


@cache_app.command("show")
def cache_show(stores: StoreNames = None, cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """One store in full: identity, provenance, shards."""
    found = []
    for folder in maintenance.pick_stores(cache, stores or []):
        try:
            found.append(maintenance.details(folder))
        except OtherVersionError as error:
            if stores:
                raise
            Console().note(f"left out: {error}")
    print(json.dumps({"stores": found}, indent=None if as_json else 2))


@cache_app.command("verify")
def cache_verify(stores: StoreNames = None, cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """Read every byte and compare it with its checksums. Exit code 3 where something is damaged."""
    folders = maintenance.pick_stores(cache, stores or [])
    shards = maintenance.shard_paths(folders)
    with Console().bar("shards", len(shards)) as advance:
        findings = list(maintenance.verify(folders, advance))
    damaged = [finding for finding in findings if not finding.other_version]
    if as_json:
        print(
            json.dumps(
                {"shards": len(shards), "damaged": [{"path": str(f.path), "problems": f.problems} for f in damaged]}
            )
        )
    else:
        for finding in findings:
            print(f"{finding.path}: {'; '.join(finding.problems)}")
        others = len(findings) - len(damaged)
        print(f"{len(shards)} shards, {len(damaged)} damaged" + (f", {others} of another version" if others else ""))
    if damaged:
        raise MachineError(
            f"{len(damaged)} damaged shards; 'cache repair' sets them aside, 'extract' runs their texts again."
        )


@cache_app.command("repair")
def cache_repair(stores: StoreNames = None, cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """Set damaged shards aside, so that their texts run again; remove what dead writers left."""
    aside, leftovers = maintenance.repair(maintenance.pick_stores(cache, stores or []))
    if as_json:
        show_json({"aside": list(map(str, aside)), "leftovers": list(map(str, leftovers))})
        return
    for path in aside:
        print(f"set aside: {path}")
    print(f"{len(aside)} damaged shards set aside, {len(leftovers)} leftovers removed")


@cache_app.command("prune")
def cache_prune(
    stores: StoreNames = None,
    cache: CacheOption = Path("cache"),
    whole: Annotated[bool, typer.Option("--whole", help="Remove the named stores with all they hold.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove shards that others make redundant, shards set aside, and leftovers; with --whole, named stores."""
    if whole and not stores:
        raise StoreError("--whole removes stores for good: name them.")
    folders = maintenance.pick_stores(cache, stores or [])
    removed, size = maintenance.remove_stores(folders) if whole else maintenance.prune(folders)
    if as_json:
        show_json({"removed": list(map(str, removed)), "bytes": size})
    else:
        print(f"{len(removed)} files removed, {size / 1e6:,.1f} MB")


def _columns(columns: dict[str, list[int]]) -> str:
    """``mean 0-6; cls 3, 5-6``."""
    return "; ".join(f"{view} {_ranges(layers)}" for view, layers in columns.items())


def _ranges(numbers: list[int]) -> str:
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
