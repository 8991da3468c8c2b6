"""Training from disk against training from memory, and members side by side against one after another on either.

    python -m benchmarks.training.disk

Random latents of MiniLM's shape in a real store, in another order than that of the texts, and random scores of pairs.
The limit of the memory is a part of what the latents take there. Each arm is a process of its own, arms in turn.
Rows a second are those of all members and epochs, validation included; the time to read into memory, or to copy to the
temporary file, is shown apart. "differ" is the largest difference of a validation metric or of a loss of an epoch to
those of the first arm. Of the peak, the part before reading is what the imports and the corpus take.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, parse_options
from benchmarks.processes import Measured, measure, peak_memory, spread
from benchmarks.store.scale import text
from permafrost.data.store.block import Block
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore

IDENTITY = Identity(
    weights="w", tokenizer="t", template="{text}", rewording="[]", max_tokens=16, compute_dtype="float32",
    stored_dtype="float16", final_norm=False,
)  # fmt: skip
SHARD_TEXTS = 12_000
LAYERS, WIDTH = 7, 384

PROBES: dict[str, tuple[dict[str, Any], int]] = {
    "linear, full width": ({"encoder": "linear"}, 1),
    "low rank 8": ({"encoder": "lowrank", "rank": 8}, 3),
}
"""Name -> settings of the probe, and seeds."""

ARMS = {
    "memory": (False, True),
    "disk": (True, True),
    "memory, one by one": (False, False),
    "disk, one by one": (True, False),
}
"""Arm -> whether latents are on disk, and whether members are side by side; a single member has the first two."""


def fill(folder: Path, texts: int) -> None:
    """Write a store of the latents of numbered texts, in a random order."""
    store = LatentStore.at(folder, "model", IDENTITY)
    order, mean = np.random.default_rng(1).permutation(texts), np.random.default_rng(2).normal(size=WIDTH)
    for start in range(0, texts, SHARD_TEXTS):
        rows = order[start : start + SHARD_TEXTS]
        drawn = np.random.default_rng(start).standard_normal((LAYERS, len(rows), WIDTH), np.float32)
        block = Block(
            keys=text_keys([text(row) for row in rows]),
            lengths=np.ones(len(rows), np.int32),
            columns={"mean": tuple(range(LAYERS))},
            latents={"mean": (drawn + mean).astype(np.float16)},
        )
        store.append(block, {"layers": LAYERS})


def pairs(rows: int) -> Any:
    """Return a corpus of random scores of neighbouring texts; a tenth of the rows is validation."""
    from permafrost.data.corpora.corpus import Corpus, Rows

    texts, scores = np.arange(2 * rows).reshape(-1, 2), np.random.default_rng(0).random(rows)
    held = max(2, rows // 10)
    splits = {"train": Rows(texts[held:], scores[held:]), "validation": Rows(texts[:held], scores[:held])}
    names = tuple(text(row) for row in range(2 * rows))
    return Corpus(name="random", texts=names, splits=splits, score_range=(0.0, 1.0), kind="score")


def train(folder: str, rows: int, probe: str, arm: str, limit: int, epochs: int) -> dict[str, Any]:
    """Train the members of a probe; return seconds, peaks and metrics."""
    from permafrost.data.store.store import PlanLatents
    from permafrost.probes.config.columns import Column
    from permafrost.probes.config.probe import ProbeSpec
    from permafrost.probes.config.recipe import Recipe
    from permafrost.probes.config.train import TrainSpec
    from permafrost.probes.inputs.disk import DiskInputs
    from permafrost.probes.inputs.memory import MemoryLimit
    from permafrost.probes.inputs.token_inputs import read_inputs
    from permafrost.probes.variants import members
    from tests.support.trainings import member_config, train_all

    (settings, seeds), (on_disk, together), corpus = PROBES[probe], ARMS[arm], pairs(rows)
    members.MAX_STACKED_PARAMETERS = (1 << 62) if together else 0
    store = LatentStore.at(Path(folder), "model", IDENTITY)
    latents = PlanLatents(store=store, columns={"mean": tuple(range(LAYERS))}, texts_run=0, truncated=0, seconds=0.0)
    before, started = peak_memory(), time.perf_counter()
    room = MemoryLimit(lambda size: limit if on_disk else size, Path(folder))
    inputs = read_inputs({"": latents}, corpus.texts, [Column("", "mean", layer) for layer in range(LAYERS)], room)
    assert isinstance(inputs, DiskInputs) == on_disk
    read, spent = time.perf_counter(), time.process_time()
    recipe = Recipe(probe=ProbeSpec(**settings), train=TrainSpec(epochs=epochs))
    trained = train_all([member_config(recipe, inputs, corpus, seed) for seed in range(seeds)])
    rows_seen = len(corpus.split("train")) * epochs * seeds
    return {
        "read": read - started,
        "rows": rows_seen / (time.perf_counter() - read),
        "of_cpu": rows_seen / (time.process_time() - spent),
        "before": before,
        "metrics": [(member.history.best_value, member.history.losses) for member in trained],
    }


def largest_difference(metrics: list[Any], others: list[Any]) -> float:
    """Largest difference of a validation metric or of a loss of an epoch between the same members."""
    return float(np.abs(np.subtract(_flat(metrics), _flat(others))).max())


def _flat(metrics: list[Any]) -> np.ndarray:
    return np.array([value for best, losses in metrics for value in (best, *losses)])


def line(arm: str, rounds: list[Measured], first: list[Measured]) -> str:
    """A row of the table; ``first`` is what the first arm measured."""
    rows, base = [one.result["rows"] for one in rounds], [one.result["rows"] for one in first]
    ratio = spread(np.divide(rows, base))
    read, before = spread([one.result["read"] for one in rounds]), max(one.result["before"] for one in rounds) / 1e6
    apart = max(largest_difference(one.result["metrics"], first[0].result["metrics"]) for one in rounds)
    of_cpu = spread([one.result["of_cpu"] for one in rounds], ",.0f")
    cells = f"{arm:20}{spread(rows, ',.0f'):>28}{ratio:>20}{of_cpu:>28}{read:>20}"
    return f"{cells}{max(one.peak for one in rounds) / 1e6:10,.0f}{before:12,.0f}{apart:10.1e}"


def measure_all(folder: str, options: argparse.Namespace, limit: int) -> dict[str, dict[str, list[Measured]]]:
    """Every arm of every probe, in turn: probe -> arm -> what each round measured."""
    measured: dict[str, dict[str, list[Measured]]] = {
        probe: {arm: [] for arm, (_, together) in ARMS.items() if together or seeds > 1}
        for probe, (_, seeds) in PROBES.items()
    }
    for _ in range(options.rounds):
        for probe, arms in measured.items():
            for arm, rounds in arms.items():
                rounds.append(measure(train, folder, options.rows, probe, arm, limit, options.epochs))
    return measured


def main() -> None:
    """Print a table for each probe."""
    options = parse_options(__doc__, rows=100_000, epochs=2, rounds=3, share=0.1)
    needed = 2 * options.rows * LAYERS * WIDTH * 4
    limit = int(options.share * needed)
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), 2 * options.rows)
        measured = measure_all(folder, options, limit)
    print(describe("cpu"))
    print(f"{options.rows:,} pairs, {LAYERS} layers of width {WIDTH}: {needed / 1e6:,.0f} MB in memory, ", end="")
    print(f"limit {limit / 1e6:,.0f} MB; {options.epochs} epochs, {options.rounds} rounds, arms in turn, ", end="")
    print("each in a process of its own; median (lowest-highest)")
    for probe, arms in measured.items():
        seeds = PROBES[probe][1]
        print(f"{probe}, {seeds} seed{'s' * (seeds > 1)}")
        heads = {
            "rows/s": 28,
            "x first": 20,
            "rows/CPU s": 28,
            "reading, s": 20,
            "peak MB": 10,
            "before": 12,
            "differ": 10,
        }
        print(" " * 20 + "".join(f"{head:>{width}}" for head, width in heads.items()))
        first = arms["memory"]
        for arm, rounds in arms.items():
            print(line(arm, rounds, first))


if __name__ == "__main__":
    main()
