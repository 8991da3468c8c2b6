"""A recipe on latents stored in 16 bits and in 8: bytes a text, and what is measured on validation and test.

    python -m benchmarks.training.stored_dtype --recipe sts --only last-layer,all-layers,two-views
    python -m benchmarks.training.stored_dtype --recipe ner --set train.epochs=5

The runs of one recipe differ in ``plan.stored_dtype`` alone: corpus, seeds and settings are the same.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import permafrost
from benchmarks.machine import describe
from permafrost.data.store.store import LatentStore

DTYPES = ("float16", "int8")


def bytes_per_text(folder: Path) -> tuple[float, int]:
    """Bytes of the shards that a run reads, a text; and the number of texts."""
    record = json.loads((folder / "record.json").read_text("utf-8"))
    (path,) = {latents["path"] for plans in record["stores"].values() for latents in plans.values()}
    store = LatentStore.open(Path(path))
    return sum(store.shard_sizes().values()) / store.count_texts(), store.count_texts()


def cell(rows: list[dict[str, Any]], variant: str, split: str, metric: str) -> str:
    """A value with its interval."""
    (row,) = [
        row
        for row in rows
        if (row["variant"], row["split"], row["metric"]) == (variant, split, metric)
        and row["seed"] is None and not row["against"] and not row["control"] and not row["subset"]
    ]  # fmt: skip
    return f"{row['value']:.4f} [{row['low']:.3f}, {row['high']:.3f}]"


def main() -> None:
    """Print a line for each variant and split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="sts")
    parser.add_argument("--only", default="", help="variants, with commas; empty for all")
    parser.add_argument("--metric", default="pearson")
    parser.add_argument("--set", action="append", default=[], help="settings of the recipe")
    options = parser.parse_args()
    print(describe("cpu"))
    runs, only = {}, [name for name in options.only.split(",") if name]
    with tempfile.TemporaryDirectory() as name:
        for dtype in DTYPES:
            settings = [f"extract.cache={name}/cache", f"plan.stored_dtype={dtype}", *options.set]
            run = permafrost.run(options.recipe, settings, runs=f"{name}/runs", only=only, name=dtype)
            runs[dtype] = run, *bytes_per_text(run.path)
    for dtype, (run, size, texts) in runs.items():
        print(f"{options.recipe}, {dtype}: {size:,.0f} bytes a text, {texts:,} texts; {run.seconds:,.0f} s")
    first = runs[DTYPES[0]][0]
    print(f"{'variant':20}{'split':12}{'metric':12}" + "".join(f"{dtype:>26}" for dtype in DTYPES))
    for variant in first.parameters:
        for split in ("validation", "test"):
            cells = [cell(run.metrics, variant, split, options.metric) for run, _, _ in runs.values()]
            print(f"{variant:20}{split:12}{options.metric:12}" + "".join(f"{text:>26}" for text in cells))


if __name__ == "__main__":
    main()
