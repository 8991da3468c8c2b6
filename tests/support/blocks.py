"""Blocks of made-up latents and tokens: what a store is tried with where no backbone is needed."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from permafrost.data.ragged import TokenLatents, offsets_from_lengths
from permafrost.data.store.block import Block
from permafrost.data.store.encoding import decode
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.extract.capture.rounding import encode

Columns = dict[str, tuple[int, ...]]

IDENTITY = Identity(
    weights="w",
    tokenizer="t",
    template="{text}",
    rewording="[]",
    max_tokens=256,
    compute_dtype="float32",
    stored_dtype="float32",
    final_norm=False,
)
"""Of a store of made-up latents."""


def block_of(keys: Any, columns: Columns, width: int = 4, dtype: str = "float32", seed: int = 0) -> Block:
    """A block of random latents under given keys."""
    rng = np.random.default_rng(seed)
    latents = {v: drawn_latents(rng, (len(ls), len(keys), width), dtype) for v, ls in columns.items()}
    return Block(keys=keys, lengths=np.arange(1, len(keys) + 1, dtype=np.int32), columns=columns, latents=latents)


def drawn_latents(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random latents as a shard stores them in a dtype."""
    return encode(rng.normal(size=shape).astype(np.float32), dtype)


def decoded(tokens: TokenLatents) -> TokenLatents:
    """Tokens as a reader returns them."""
    return dataclasses.replace(tokens, states=decode(tokens.states))


def lengths_of(texts: Sequence[str]) -> np.ndarray:
    """``[text]``: a text of made-up tokens has as many as its first character's code says, 1 to 7."""
    return np.array([ord(text[0]) % 7 + 1 for text in texts], np.int64)


def ragged_block(
    texts: Sequence[str], columns: Columns, dtype: str = "float32", seed: int = 0, width: int = 4
) -> Block:
    """Random latents for ``texts``; ids and spans are those of the text, states those of the seed."""
    pooled = {view: layers for view, layers in columns.items() if view != "tokens"}
    block = block_of(text_keys(texts), pooled, width, dtype, seed)
    if "tokens" not in columns:
        return block
    lengths = lengths_of(texts)
    rng = np.random.default_rng([seed, 1])
    states = drawn_latents(rng, (len(columns["tokens"]), int(lengths.sum()), width), dtype)
    ids = np.concatenate([ord(text[0]) * 10 + np.arange(n) for text, n in zip(texts, lengths, strict=True)])
    spans = np.stack([ids, ids + 1], axis=1)
    spans[offsets_from_lengths(lengths)[:-1]] = -1  # the first token of each is special
    tokens = TokenLatents(states, offsets_from_lengths(lengths), ids.astype(np.int32), spans.astype(np.int32))
    return dataclasses.replace(block, columns=columns, tokens=tokens)


def assert_equal_tokens(actual: TokenLatents, expected: TokenLatents) -> None:
    """Every array is equal, in dtype and shape too."""
    for field in dataclasses.fields(TokenLatents):
        mine, theirs = getattr(actual, field.name), getattr(expected, field.name)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), field.name
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
