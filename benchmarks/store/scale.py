"""The latent store against np.tofile and np.fromfile of the same bytes: write, open, find and read many rows.

    python -m benchmarks.store.scale --rows 1000000 10000000

Random latents under keys of numbered texts. While a store is written, each shard takes turns with a plain file of its
latents; both are synced to disk. Keys are made outside the clock. Everything else runs in a process of its own for each
arm and round, arms in turn: "open and find" begins after the imports, ends when the places of the texts are known, and
its peak is that of the whole process. The plain arm finds nothing, it is told the places. Files are in the page cache.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.processes import Measured, measure, spread
from permafrost.data.store.block import Block
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore

IDENTITY = Identity(
    weights="w", tokenizer="t", template="{text}", rewording="[]", max_tokens=256, compute_dtype="float32",
    stored_dtype="float16", final_norm=False,
)  # fmt: skip
LAYER = 0
"""The one that is read."""


def text(row: int) -> str:
    """Return the text of a row."""
    return f"text number {row}"


def write(folder: Path, rows: int, shard_rows: int, shape: tuple[int, int]) -> dict[str, list[float]]:
    """Write the store and the plain files; return MB/s of each shard and of each file.

    Args:
        shape: layers and width.
    """
    (layers, width), rng = shape, np.random.default_rng(0)
    store = LatentStore.at(folder / "store", "model", IDENTITY)
    (folder / "plain").mkdir()
    rates: dict[str, list[float]] = {"store": [], "plain": []}
    for start in range(0, rows, shard_rows):
        keys = text_keys([text(row) for row in range(start, min(start + shard_rows, rows))])
        latents = rng.standard_normal((layers, len(keys), width), np.float32).astype(np.float16)
        block = Block(
            keys=keys,
            lengths=np.ones(len(keys), np.int32),
            columns={"mean": tuple(range(layers))},
            latents={"mean": latents},
        )
        started = time.perf_counter()
        store.append(block, {"layers": layers})
        between = time.perf_counter()
        with (folder / "plain" / f"{start:012}").open("wb") as file:
            latents.tofile(file)
            file.flush()
            os.fsync(file.fileno())
        ended = time.perf_counter()
        for arm, seconds in (("store", between - started), ("plain", ended - between)):
            rates[arm].append(latents.nbytes / 1e6 / seconds)
    return rates


def store_folder(folder: str) -> Path:
    """Return the folder of the store."""
    return LatentStore.at(Path(folder) / "store", "model", IDENTITY).path


def sampled(rows: int, count: int) -> np.ndarray:
    """Return the rows that are looked for, in a random order."""
    return np.random.default_rng(1).choice(rows, count, replace=False)


def find(folder: str, rows: int, count: int) -> dict[str, float]:
    """Open the store and find texts; return the seconds of both, and how many were found."""
    texts = [text(row) for row in sampled(rows, count)]
    started = time.perf_counter()
    store = LatentStore.open(store_folder(folder))
    opened = time.perf_counter()
    found = int(store.has_column(text_keys(texts), "mean", LAYER).sum())
    return {"open": opened - started, "find": time.perf_counter() - opened, "found": found}


def read_texts(folder: str, rows: int, count: int) -> float:
    """Return the seconds to open the store, and to find and read a layer of texts."""
    texts = [text(row) for row in sampled(rows, count)]
    started = time.perf_counter()
    values = LatentStore.open(store_folder(folder)).read(texts, "mean", [LAYER])
    assert values.shape[1] == count
    return time.perf_counter() - started


def read_rows(folder: str, rows: int, count: int, shard_rows: int, shape: tuple[int, int]) -> float:
    """Return the seconds to read the same rows of the plain files through memory maps, their places known."""
    picked = sampled(rows, count)
    started = time.perf_counter()
    values = np.empty((count, shape[1]), np.float16)
    files = picked // shard_rows
    for number, path in enumerate(sorted((Path(folder) / "plain").iterdir())):
        wanted = np.flatnonzero(files == number)
        values[wanted] = np.memmap(path, np.float16).reshape(shape[0], -1, shape[1])[LAYER, picked[wanted] % shard_rows]
    return time.perf_counter() - started


def read_layer(folder: str, rows: int) -> float:
    """Return the seconds to read a layer of every text, in the order in which they were numbered."""
    keys = np.concatenate(
        [text_keys(list(map(text, part))) for part in np.array_split(range(rows), 1 + rows // 10_000)]
    )
    started = time.perf_counter()
    values = LatentStore.open(store_folder(folder)).read_keys(keys, "mean", [LAYER])
    assert values.shape[1] == rows
    return time.perf_counter() - started


def read_layer_of_shards(folder: str) -> float:
    """Return the seconds to read a layer of every shard, as it lies there, into one array a shard."""
    started = time.perf_counter()
    for shard in LatentStore.open(store_folder(folder)).shards:
        np.array(shard.layer("mean", LAYER))
        shard.release()
    return time.perf_counter() - started


def read_layer_of_files(folder: str, layers: int) -> float:
    """Return the seconds to read a layer of every plain file."""
    started = time.perf_counter()
    for path in sorted((Path(folder) / "plain").iterdir()):
        np.fromfile(path, np.float16, path.stat().st_size // 2 // layers)
    return time.perf_counter() - started


def without_index(folder: Path) -> int:
    """Remove the index files of the store; return how many there were."""
    paths = list(store_folder(str(folder)).glob("*.index"))
    for path in paths:
        path.unlink()
    return len(paths)


def measure_reads(folder: Path, rows: int, options: argparse.Namespace) -> dict[str, list[Measured]]:
    """Every arm in a process of its own, in turn: name -> what each round measured."""
    place, shape = str(folder), (options.layers, options.width)
    found: dict[str, list[Measured]] = {}
    for _ in range(options.rounds):
        without_index(folder)
        arms: dict[str, Sequence[Any]] = {
            "index": (find, place, rows, options.texts),  # whoever looks first makes it
            "find": (find, place, rows, options.texts),
            "read": (read_texts, place, rows, options.texts),
            "read plain": (read_rows, place, rows, options.texts, options.shard_rows, shape),
            "layer": (read_layer, place, rows),
            "layer of shards": (read_layer_of_shards, place),
            "layer plain": (read_layer_of_files, place, options.layers),
        }
        for name, (function, *arguments) in arms.items():
            found.setdefault(name, []).append(measure(function, *arguments))
    assert {one.result["found"] for name in ("index", "find") for one in found[name]} == {options.texts}
    return found


def lines(rates: dict[str, list[float]], found: dict[str, list[Measured]], layer_bytes: int, texts: int) -> list[str]:
    """The table of one size."""

    def peaks(name: str) -> str:
        return f"{max(one.peak for one in found[name]) / 1e6:.0f}"

    def seconds(name: str, style: str = ".2f") -> str:
        return spread([one.result for one in found[name]], style)

    def speeds(name: str) -> str:
        return spread([layer_bytes / 1e6 / one.result for one in found[name]], ".0f")

    opening = {key: spread([one.result[key] for one in found["find"]], ".3f") for key in ("open", "find")}
    both = spread([one.result["open"] + one.result["find"] for one in found["find"]], ".3f")
    making = spread([one.result["open"] + one.result["find"] for one in found["index"]])
    rows = [
        ("write, MB/s of a shard", spread(rates["store"], ".0f"), spread(rates["plain"], ".0f"), ""),
        ("open, s", opening["open"], "", ""),
        (f"find {texts:,} texts, s", opening["find"], "", ""),
        ("open and find, s", both, "", peaks("find")),
        ("the same without an index, s", making, "", peaks("index")),
        (f"open, find, read {texts:,}, s", seconds("read", ".3f"), seconds("read plain", ".3f"), peaks("read")),
        ("read a layer by text, MB/s", speeds("layer"), speeds("layer plain"), peaks("layer")),
        ("read a layer by shard, MB/s", speeds("layer of shards"), speeds("layer plain"), peaks("layer of shards")),
    ]
    return [f"{what:32}{ours:>24}{plain:>24}{peak:>10}".rstrip() for what, ours, plain, peak in rows]


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--texts", type=int, default=10_000, help="that are found and read")
    parser.add_argument("--shard-rows", type=int, default=50_000)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where files are written, and removed again")
    options = parser.parse_args()
    print(describe("cpu"))
    print(f"{options.rounds} rounds, arms in turn, each in a process of its own; median (lowest-highest)")
    for rows in options.rows:
        layer_bytes = rows * options.width * 2
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            rates = write(Path(name), rows, options.shard_rows, (options.layers, options.width))
            found = measure_reads(Path(name), rows, options)
        print(f"{rows:,} rows, {options.layers} layers of width {options.width} in float16, ", end="")
        print(
            f"{layer_bytes * options.layers / 1e6:,.0f} MB, {len(rates['store'])} shards of {options.shard_rows:,} rows"
        )
        print(f"{'':32}{'store':>24}{'plain files':>24}{'peak MB':>10}")
        for line in lines(rates, found, layer_bytes, options.texts):
            print(line, flush=True)


if __name__ == "__main__":
    main()
