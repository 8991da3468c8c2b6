"""Kernel of a GPU for attention over texts of any length back to back, which is tried before it is trusted."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

TOLERANCE = 0.02
"""Largest difference from attention in padded groups, as a share of the largest value; a wrong kernel is far off."""

_right: dict["Shape", bool] = {}
"""Whether the kernel was right for calls of some shape, in this process."""


class Shape(NamedTuple):
    """What may decide whether a kernel is right."""

    device: torch.device
    dtype: torch.dtype
    query_heads: int
    key_heads: int
    head_size: int
    value_size: int
    window: tuple[int, int]


@dataclass(frozen=True)
class Spans:
    """Where texts lie in a row."""

    starts: Tensor
    """``[text + 1]`` in int32: the first token of each, and the end of the last."""

    longest: int


def has_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether torch may have the kernel for a device and a dtype."""
    is_half = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and is_half and find_spec("torch.nn.attention.varlen") is not None


def attend_by_kernel(
    states: tuple[Tensor, Tensor, Tensor],
    spans: Spans,
    window: tuple[int, int],
    scale: float | None,
    attend_in_groups: Callable[[], Tensor],
) -> Tensor:
    """Return the attention within each text of a row, ``[1, token, head, size]``.

    The first call of a shape compares the kernel with attention in padded groups, which is taken from then on if the
    kernel fails or is wrong.

    Args:
        states: queries, keys and values, ``[1, head, token, size]``.
        window: tokens that a token sees before it and after it; -1 if it sees all.
    """
    query, key, value = states
    sizes = query.shape[1], key.shape[1], query.shape[3], value.shape[3]
    shape = Shape(query.device, query.dtype, *sizes, window)
    if not _right.get(shape, True):
        return attend_in_groups()
    if shape in _right:
        return _run_kernel(states, spans, window, scale)
    expected = attend_in_groups()
    if len(spans.starts) > 2:  # a single text shows nothing
        _right[shape] = _is_right(states, spans, window, scale, expected)
    return expected


def _is_right(
    states: tuple[Tensor, Tensor, Tensor],
    spans: Spans,
    window: tuple[int, int],
    scale: float | None,
    expected: Tensor,
) -> bool:
    try:
        found = _run_kernel(states, spans, window, scale)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a GPU, a size of heads or a version of torch that has no such kernel
        return False
    return found.shape == expected.shape and bool(
        (found - expected).abs().max() <= TOLERANCE * expected.abs().max()  # not of what is nan
    )


def _run_kernel(
    states: tuple[Tensor, Tensor, Tensor], spans: Spans, window: tuple[int, int], scale: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # of torch 2.10 and later

    query, key, value = (each[0].transpose(0, 1) for each in states)
    shared: dict[str, Any] = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    starts, longest = spans.starts, spans.longest
    attended: Any = varlen_attn(
        query, key, value, starts, starts, longest, longest, scale=scale, window_size=window, **shared
    )
    return attended[None]  # type: ignore[no-any-return]
