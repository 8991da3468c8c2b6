"""Blocks of made-up latents."""

from typing import Any

import numpy as np

from permafrost.data.store.shard import Block


def block_of(
    keys: Any, columns: dict[str, tuple[int, ...]], width: int = 4, dtype: str = "float32", seed: int = 0
) -> Block:
    """A block of random latents under given keys."""
    rng = np.random.default_rng(seed)
    latents = {v: rng.normal(size=(len(ls), len(keys), width)).astype(dtype) for v, ls in columns.items()}
    return Block(keys=keys, lengths=np.arange(1, len(keys) + 1, dtype=np.int32), columns=columns, latents=latents)
