"""The ``cache`` commands: list, show, verify, repair and prune the latent stores of a cache folder.

They read the stores alone; no recipe, no backbone, no torch. Each imports h5py, which no other command needs to begin.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from permafrost.cli.console import Console, cell, say, show_json, show_table
from permafrost.cli.options import JsonOption
from permafrost.cli.verb import VerbApp
from permafrost.data.atomic import remove_leftovers
from permafrost.data.errors import MachineError
from permafrost.data.remote.mirror import local_cache
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.probes.config.ablation import format_layers
from permafrost.probes.results.destination import RESERVED

cache_app = VerbApp(help="List, check, repair and prune the cached latents.", no_args_is_help=True)


def _parse_cache(cache: str | Path) -> Path:
    return local_cache(str(cache))  # the default is a path already


CacheOption = Annotated[
    Path,
    typer.Option(
        "--cache", metavar="FOLDER", parser=_parse_cache, help="Folder of the latent stores, or s3://BUCKET/PREFIX."
    ),
]

StoreNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STORE", help="Stores, by folder or by the first characters of their identity. Default: all."
    ),
]


SUMMARY_KEYS = [
    "backbone", "identity", "compute_dtype", "stored_dtype", "template", "texts", "columns", "shards", "bytes",
    "written",
]  # fmt: skip
"""Columns of ``cache list``."""


@cache_app.command("list")
def cache_list(cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """List every store: backbone, texts, views, bytes; and the models converted from GGUF files."""
    from permafrost.data.latents import maintenance
    from permafrost.extract.backbones.gguf import converted_models

    models = [
        {"model": str(model.folder), "bytes": model.bytes, "file": model.file} for model in converted_models(cache)
    ]
    summaries = []
    for folder in maintenance.stores_with_shards(cache):
        try:
            summaries.append(maintenance.store_summary(folder))
        except ShardError as error:
            Console().note(f"left out: {error}")
    if as_json:
        show_json({"stores": summaries, "gguf": models})
        return
    lines = [
        [_columns_text(summary[key]) if key == "columns" else cell(summary[key]) for key in SUMMARY_KEYS]
        for summary in summaries
    ]
    show_table(SUMMARY_KEYS, lines)
    if models:
        show_table(list(models[0]), [list(map(cell, model.values())) for model in models])


@cache_app.command("show")
def cache_show(stores: StoreNames = None, cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """Show stores in full: identity, kept texts, largest value in each layer, provenance, shards."""
    from permafrost.data.latents import maintenance

    details = []
    for folder in maintenance.pick_stores(cache, stores or []):
        try:
            details.append(maintenance.store_details(folder))
        except OtherVersionError as error:
            if stores:
                raise
            Console().note(f"left out: {error}")
    say(json.dumps({"stores": details}, indent=None if as_json else 2), several_lines=True)


@cache_app.command("verify")
def cache_verify(stores: StoreNames = None, cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """Compare every shard with its checksums. Exit code 3 if a shard is damaged."""
    from permafrost.data.latents import maintenance

    folders = maintenance.pick_stores(cache, stores or [])
    shards = maintenance.shard_paths(folders)
    with Console().bar("files", len(maintenance.store_files(folders))) as advance:
        findings = list(maintenance.verify(folders, advance))
    damaged = [finding for finding in findings if not finding.other_version]
    if as_json:
        entries = [{"path": str(finding.path), "problems": finding.problems} for finding in damaged]
        say(json.dumps({"shards": len(shards), "damaged": entries}))
    else:
        for finding in findings:
            say(f"{finding.path}: {'; '.join(finding.problems)}")
        others = len(findings) - len(damaged)
        say(f"{len(shards)} shards, {len(damaged)} damaged" + (f", {others} of another version" if others else ""))
    if damaged:
        raise MachineError(
            f"{len(damaged)} damaged shards; 'cache repair' sets them aside, 'extract' runs their texts again."
        )


@cache_app.command("repair")
def cache_repair(stores: StoreNames = None, cache: CacheOption = Path("cache"), as_json: JsonOption = False) -> None:
    """Set damaged shards aside, so that their texts are extracted again; leave one copy of what several shards hold.

    What processes that died have left is removed.
    """
    from permafrost.data.latents import maintenance
    from permafrost.data.latents.duplicates import remove_duplicates

    folders = maintenance.pick_stores(cache, stores or [])
    aside, leftovers = maintenance.repair(folders)
    duplicates = remove_duplicates(folders)
    if as_json:
        show_json({"aside": list(map(str, aside)), "leftovers": list(map(str, leftovers)), "duplicates": duplicates})
        return
    for path in aside:
        say(f"set aside: {path}")
    say(f"{len(aside)} damaged shards set aside, {len(leftovers)} leftovers removed, {duplicates:,} duplicates removed")


@cache_app.command("prune")
def cache_prune(
    stores: StoreNames = None,
    cache: CacheOption = Path("cache"),
    whole: Annotated[bool, typer.Option("--whole", help="Remove the named stores entirely.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="Remove every model converted from a GGUF file.")] = False,
    runs: Annotated[
        Path, typer.Option("--runs", metavar="FOLDER", help="Where run folders are, for what killed runs have left.")
    ] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Remove redundant shards, shards set aside, leftovers of killed processes, and models whose GGUF file is gone.

    With --whole, remove the named stores. A GGUF file whose converted model is removed is converted again when used.
    """
    if whole and not stores:
        raise StoreError("--whole removes stores for good: name them.")
    from permafrost.data.latents import maintenance
    from permafrost.extract.backbones.gguf import converted_models

    folders = maintenance.pick_stores(cache, stores or [])
    removed, size = maintenance.remove_stores(folders) if whole else maintenance.prune(folders)
    if not stores:
        removed += [*remove_leftovers(runs), *remove_leftovers(runs / RESERVED)]
    for model in converted_models(cache):
        if gguf or (model.is_orphan and not stores):
            shutil.rmtree(model.folder)
            removed.append(model.folder)
            size += model.bytes
    if as_json:
        show_json({"removed": list(map(str, removed)), "bytes": size})
    else:
        say(f"{len(removed)} files removed, {size / 1e6:,.1f} MB")


def _columns_text(columns: dict[str, list[int]]) -> str:
    """View -> its layers, as ``mean 0-6; cls 3, 5-6``."""
    return "; ".join(f"{view} {format_layers(layers).replace(',', ', ')}" for view, layers in columns.items())
