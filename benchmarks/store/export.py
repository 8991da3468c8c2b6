"""Latents out of the cache: an array of many texts, warm; the nearest of many vectors; an export of many rows.

    python -m benchmarks.store.export --rows 1000000

Of the export, seconds and resident memory of the process are shown while each format is written.

The store is filled with random latents of a small width under the identity of a real plan, so no text is run.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

import permafrost as pf
from benchmarks.machine import describe
from permafrost import exporting
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.store.block import Block
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.embedding import Embedded, nearest_texts
from permafrost.extract.resolved_plan import resolve_plan

SHARD_ROWS = 50_000


class Sampled(NoProgress):
    """Progress that samples the resident memory whenever rows have been written."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Sample at each step of the bar of rows."""
        process = psutil.Process()

        def advance(steps: int) -> None:
            if label.startswith("rows"):
                self.samples.append(process.memory_info().rss / 1e6)

        yield advance


def fill(cache: Path, rows: int, width: int) -> Path:
    """Fill a store with latents of numbered texts in random order; return a csv file of the texts with labels."""
    plan = CapturePlan(views=("mean",), compute_dtype="float32", stored_dtype="float16")
    resolved = resolve_plan(plan, ExtractSpec(cache=str(cache)))
    store = LatentStore.at(cache, plan.backbone, resolved.identity)
    columns = {str(view): layers for view, layers in plan.columns(resolved.source.layers).items()}
    rng = np.random.default_rng(0)
    order = rng.permutation(rows)
    for start in range(0, rows, SHARD_ROWS):
        keys = text_keys([text(row) for row in order[start : start + SHARD_ROWS]])
        values = rng.normal(size=(len(columns["mean"]), len(keys), width)).astype(np.float16)
        lengths = np.full(len(keys), 9, np.int32)
        block = Block(keys=keys, lengths=lengths, columns=columns, latents={"mean": values})
        store.append(block, {"backbone": plan.backbone, "layers": resolved.source.layers})
    path = cache / "rows.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{text(row)},{'ab'[row % 2]}\n" for row in range(rows))
    return path


def text(row: int) -> str:
    """Return the text of a row."""
    return f"sentence number {row} of a file that is long"


def measure_array(folder: Path, texts: int, width: int = 384) -> None:
    """Print the seconds of an array of texts whose latents are stored, and whether it is what is stored."""
    fill(folder, texts, width)
    asked = [text(row) for row in range(texts)]
    settings: dict[str, Any] = {"compute_dtype": "float32", "stored_dtype": "float16", "cache": folder}
    for title in ("first call", "second call"):
        started = time.perf_counter()
        lazy = pf.latents(asked, "minilm", **settings)["mean"]
        opened = time.perf_counter() - started
        array = np.asarray(lazy)
        print(f"{title:12}{opened:9.2f} s until the lazy array, {time.perf_counter() - started:.2f} s until it is read")
    (path,) = {shard.parent for shard in folder.rglob("*.h5")}
    stored = LatentStore.open(path).read(asked, "mean", range(7))
    verdict = "equal" if np.array_equal(array, stored) else "NOT EQUAL"
    print(f"{'':12}{array.nbytes / 1e6:9.0f} MB, {verdict} to what is stored")


def measure_search(texts: int, rounds: int = 7) -> None:
    """Print the seconds of a search for the ten nearest of random vectors."""
    for width in (384, 384 * 21):
        vectors = np.random.default_rng(0).normal(size=(texts, width)).astype(np.float32)
        embedded, seconds = Embedded(texts=[text(row) for row in range(texts)], vectors=vectors), []
        for row in range(rounds):
            started = time.perf_counter()
            assert nearest_texts(embedded, vectors[row])[0].number == row + 1
            seconds.append(time.perf_counter() - started)
        print(f"width {width:6}{median(seconds):9.3f} s for the ten nearest ({min(seconds):.3f} to {max(seconds):.3f})")


def main() -> None:
    """Measure the array, the search and every format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--format", nargs="*", default=["npy", "safetensors", "parquet", "arrow"])
    parser.add_argument("--folder", type=Path, default=None, help="Where everything is written, and removed again.")
    options = parser.parse_args()
    print(describe("cpu"))
    print(f"pf.latents of {options.texts:,} texts, 7 layers of width 384, float16, all of them stored")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure_array(Path(folder), options.texts)
    print(f"nearest of {options.texts:,} random vectors")
    measure_search(options.texts)
    print(f"{options.rows:,} rows, 7 layers of width {options.width}, float16; resident memory while rows are written")
    print(f"{'':12}{'seconds':>9}{'file MB':>9}{'RSS MB at 10 %':>16}{'highest after':>15}{'end':>7}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        cache = Path(folder)
        data = fill(cache, options.rows, options.width)
        settings = [f"extract.cache={cache}", "plan.compute_dtype=float32", "plan.stored_dtype=float16"]
        for name in options.format:
            progress, started = Sampled(), time.perf_counter()
            out = cache / name
            written = exporting.export_latents(data, out, name, ["text", "label"], "class", settings, progress)
            seconds, samples = time.perf_counter() - started, progress.samples
            first = samples[len(samples) // 10]
            highest = max(samples[len(samples) // 10 :])
            print(
                f"{name:12}{seconds:9.1f}{written.bytes / 1e6:9.0f}{first:16.0f}{highest:15.0f}{samples[-1]:7.0f}",
                flush=True,
            )
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
