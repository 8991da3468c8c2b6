"""Export of many rows: seconds and resident memory of the process while each format is written.

    python -m benchmarks.export --rows 1000000

The store is filled with random latents of a small width under the identity of a real plan, so no text is run.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.machine import describe
from permafrost import exporting
from permafrost.data.progress import NoProgress
from permafrost.data.store.block import Block
from permafrost.data.store.key_index import text_keys
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.data.store.store import LatentStore
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


def main() -> None:
    """Measure every format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--format", nargs="*", default=["npy", "safetensors", "parquet", "arrow"])
    parser.add_argument("--folder", type=Path, default=None, help="Where everything is written, and removed again.")
    options = parser.parse_args()
    print(describe("cpu"))
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
