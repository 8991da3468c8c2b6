"""Made-up latents in a real store, and inputs of them from memory and from disk."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from permafrost.data.store.block import Block
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore, PlanLatents
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.disk import DiskInputs
from permafrost.probes.inputs.latents import PooledInputs
from permafrost.probes.inputs.memory import MemoryLimit
from permafrost.probes.inputs.token_inputs import read_inputs
from tests.support.blocks import drawn_latents

IDENTITY = Identity(
    weights="w", tokenizer="t", template="{text}", rewording="[]", max_tokens=16, compute_dtype="float32",
    stored_dtype="float32", final_norm=False,
)  # fmt: skip


def stored_latents(
    folder: Path, values: np.ndarray, texts: Sequence[str], dtype: str = "float32", backbone: str = "model"
) -> PlanLatents:
    """A store of latents ``[layer, text, width]`` of one view, in shards whose texts are in another order."""
    store = LatentStore.at(folder, backbone, replace(IDENTITY, stored_dtype=dtype))
    layers = tuple(range(len(values)))
    order = np.random.default_rng(5).permutation(len(texts))
    for part in np.array_split(order, 3):
        lengths = np.ones(len(part), np.int32)
        block = Block(
            keys=text_keys([texts[text] for text in part]),
            lengths=lengths,
            columns={"mean": layers},
            latents={"mean": np.ascontiguousarray(values[:, part])},
        )
        store.append(block, {"layers": len(layers)})
    return PlanLatents(store=store, columns={"mean": layers}, texts_run=0, truncated=0, seconds=0.0)


def limited(folder: Path, most: int = 0) -> MemoryLimit:
    """A limit on the memory that one set of inputs may take."""
    return MemoryLimit(lambda size: most, folder)


def both(folder: Path, source: PooledInputs) -> tuple[PooledInputs, DiskInputs]:
    """The same latents, stored, from memory and from disk."""
    texts = [str(text) for text in range(source.values.shape[1])]
    plans = {"": stored_latents(folder, source.values.numpy(), texts)}
    found = [read_inputs(plans, texts, source.columns, limited(folder, most)) for most in (1 << 30, 0)]
    assert isinstance(found[0], PooledInputs)
    assert isinstance(found[1], DiskInputs)
    return found[0], found[1]


def of_two_plans(
    folder: Path, dtypes: tuple[str, str] = ("bfloat16", "float16")
) -> tuple[dict[str, PlanLatents], list[str], list[Column]]:
    """Latents of two plans that differ in width and dtype, and columns of both."""
    texts = [f"text {number}" for number in range(23)]
    rng = np.random.default_rng(0)
    plans = {
        "": stored_latents(folder, drawn_latents(rng, (3, 23, 6), dtypes[0]), texts, dtypes[0]),
        "other": stored_latents(folder, drawn_latents(rng, (2, 23, 3), dtypes[1]), texts, dtypes[1], "other"),
    }
    columns = [Column("", "mean", 2), Column("other", "mean", 0), Column("other", "mean", 1), Column("", "mean", 0)]
    return plans, texts, columns
