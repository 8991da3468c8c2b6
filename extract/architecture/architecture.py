"""Architecture of a backbone: what capture must know about a model.

No family of models is named: :func:`permafrost.extract.architecture.lookup.architecture_of` finds these facts by
running a small model of the same configuration.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Facts about the part of a model that reads texts."""

    tower: str
    """Path of the module that turns token ids into hidden states; empty if it is the whole model."""

    blocks: tuple[str, ...]
    """Names of the classes whose calls are the blocks."""

    layers: int
    """Number of layers that can be captured: what enters the first block, and one per block."""

    width: int
    """Width of a hidden state."""

    positions: int | None = None
    """Longest text that the model's positions allow, in tokens; None if nothing limits it."""

    causal: bool
    """Whether no token sees a later one."""

    segments: bool
    """Whether ``token_type_ids`` change the hidden states."""

    tail: tuple[str, ...]
    """Paths of the modules between the last block and ``last_hidden_state``, below the tower: a norm, as a rule."""

    chained: bool
    """Whether each block returns what enters the next; else the last layer is ``last_hidden_state``."""

    tokens_first: bool
    """Whether hidden states are ``[token, text, width]``, and not ``[text, token, width]``."""

    reported: bool
    """Whether ``output_hidden_states`` of transformers gives what enters each block; else it is shifted, or not all."""

    attention: str
    """Attention implementation of transformers."""

    layer_types: tuple[str, ...]
    """Distinct types of attention that the configuration names; empty if it names none."""

    window: int | None = None
    """Tokens that an attention with a sliding window sees, its own included; None if there is no window."""

    chunk: int | None = None
    """Tokens in a chunk of chunked attention; None if there are no chunks."""
