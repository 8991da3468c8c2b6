"""A kernel for texts back to back is compared with padded groups once, and taken only if it is right."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen as kernels

from permafrost.extract.attention import kernel, varlen
from permafrost.extract.attention.varlen import Texts, _attend_within_texts

LENGTHS = np.array([9, 3, 1, 5, 9])


def exact(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *_: Any, **named: Any) -> Tensor:
    """What the kernel computes, text by text, on the CPU."""
    before, after = named["window_size"]
    outputs = []
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        apart = torch.arange(end - first)[:, None] - torch.arange(end - first)
        seen = (apart <= (before if before >= 0 else end)) & (-apart <= (after if after >= 0 else end))
        states = [each[first:end].transpose(0, 1) for each in (query, key, value)]
        attended = torch.nn.functional.scaled_dot_product_attention(
            *states, seen, scale=named["scale"], enable_gqa=named.get("enable_gqa", False)
        )
        outputs.append(attended.transpose(0, 1))
    return torch.cat(outputs)


def leaking(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *given: Any, **named: Any) -> Tensor:
    """As if all texts were one."""
    return exact(query, key, value, starts[[0, -1]], *given, **named)


def failing(*_: Any, **__: Any) -> Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


CALLS: list[Any] = []
"""Calls of the kernel."""


def attend(kernel_of_device: Callable[..., Tensor] | None, monkeypatch: Any, times: int, **more: Any) -> list[Tensor]:
    """The attention of random states, several times."""
    CALLS.clear()

    def counted(*given: Any, **named: Any) -> Tensor:
        CALLS.append(named)
        assert kernel_of_device
        return kernel_of_device(*given, **named)

    monkeypatch.setattr(kernels, "varlen_attn", counted)
    monkeypatch.setattr(varlen, "has_kernel", lambda device, dtype: kernel_of_device is not None)
    monkeypatch.setattr(kernel, "_right", {})
    generator = torch.Generator().manual_seed(0)
    total, heads = int(LENGTHS.sum()), (4, 2, 2)
    states = [torch.randn(1, count, total, 8, generator=generator) for count in heads]
    module, texts = SimpleNamespace(is_causal=False), Texts(LENGTHS, torch.device("cpu"))
    given: Any = module, *states, None, 0.3
    return [_attend_within_texts(*given, texts=texts, **more)[0] for _ in range(times)]


@pytest.mark.parametrize("window", [None, 2, 4])
def test_a_kernel_that_is_right_is_taken_from_the_second_call_on(window, monkeypatch):
    (expected,) = attend(None, monkeypatch, times=1, sliding_window=window)
    first, second, third = attend(exact, monkeypatch, times=3, sliding_window=window)
    assert len(CALLS) == 3
    assert torch.equal(first, expected)
    assert torch.allclose(second, expected, atol=1e-5)
    assert torch.equal(second, third)


@pytest.mark.parametrize("wrong", [leaking, failing])
def test_a_kernel_that_fails_or_is_wrong_is_tried_once(wrong, monkeypatch):
    (expected,) = attend(None, monkeypatch, times=1)
    assert all(torch.equal(found, expected) for found in attend(wrong, monkeypatch, times=3))
    assert len(CALLS) == 1


def test_the_cpu_and_other_dtypes_have_no_kernel():
    assert not kernel.has_kernel(torch.device("cpu"), torch.bfloat16)
    assert not kernel.has_kernel(torch.device("cuda"), torch.float32)
    assert not kernel.has_kernel(torch.device("cuda"), torch.float64)
    assert kernel.has_kernel(torch.device("cuda"), torch.bfloat16)
