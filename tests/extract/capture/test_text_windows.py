"""Texts in windows: every view is that of the windows run alone by transformers, each token counted once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.ragged import NO_SPAN
from permafrost.data.spec import SpecError
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.data.store.store import LatentStore
from permafrost.extract.capture import runner
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.tokenization.token_ids import read_token_ids
from tests.extract.capture.test_forward import VIEWS, naive_view, reference
from tests.support.blocks import assert_equal_tokens
from tests.support.models.backbones import WORDS

KINDS = ("gpt2", "llama", "bert")
LAYERS = range(4)
FLOAT32 = {"compute_dtype": "float32", "stored_dtype": "float32"}


def settings(folder: Path, **more: Any) -> ExtractSpec:
    return ExtractSpec(cache=str(folder / "cache"), device="cpu", **more)


def plan_of(folder: Path, **more: Any) -> CapturePlan:
    standard = {"views": VIEWS, "max_tokens": 16, "truncation": "windows", "stride": 5, **FLOAT32}
    return CapturePlan(backbone=str(folder), **standard | more)


@pytest.fixture
def long_texts() -> list[str]:
    """Texts of 1 to 150 words, of one token each."""
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, size)) for size in (1, 14, 15, 16, 17, 40, 90, 150)]


def words_of_windows(words: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Windows of a text whose words are tokens: each begins ``stride`` tokens before the end of the last."""
    windows = [(0, min(room, words))]
    while windows[-1][1] < words:
        start = windows[-1][1] - stride
        windows.append((start, min(start + room, words)))
    return windows


def states_by_definition(
    folder: Path, tokenizer: Any, text: str, template: str, plan: CapturePlan
) -> tuple[torch.Tensor, int, int]:
    """``[layer, token, width]`` of a text in a template, each token from one window; and its own tokens' range."""
    before, after = template.split("{text}")
    ids = tokenizer.encode(template.replace("{text}", text)).ids
    special = tokenizer.encode("a").special_tokens_mask
    first = len(before.split()) + special[0]
    last = len(ids) - len(after.split()) - special[-1]
    if len(ids) <= plan.token_limit:
        return reference(folder, np.array(ids), False), first, last
    windows = words_of_windows(last - first, plan.token_limit - len(ids) + last - first, plan.stride)
    states: list[Any] = [None] * len(ids)
    for number, (start, end) in enumerate(windows):
        held = [*range(first), *range(first + start, first + end), *range(last, len(ids))]
        alone = reference(folder, np.array([ids[token] for token in held]), False)
        for token, state in zip(held, alone.unbind(1), strict=True):
            inner = [min(token - first - low, high - 1 - token + first) for low, high in windows]
            counts_in = 0 if token < first else len(windows) - 1 if token >= last else int(np.argmax(inner))
            if number == counts_in:
                states[token] = state
    return torch.stack(states, 1), first, last


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("template", "changes"),
    [
        ("{text}", {}),
        ("{text}", {"stride": 0}),
        ("{text}", {"stride": 11, "max_tokens": 14}),
        ("the small {text} in winter", {}),
    ],
)
def test_every_view_is_that_of_the_windows_alone(kind, template, changes, tiny, long_texts, tmp_path):
    plan = plan_of(tiny(kind), template=template, **changes)
    store = extract(plan, long_texts, settings(tmp_path)).store
    extractor = Extractor(plan, settings(tmp_path))
    tokenizer = extractor.backbone.tokenizer
    read = store.read_tokens(long_texts, LAYERS)
    by_view = {view: store.read(long_texts, view, LAYERS) for view in VIEWS if view != "tokens"}
    in_memory = extractor(long_texts, dict.fromkeys(VIEWS, tuple(LAYERS)))
    for index, text in enumerate(long_texts):
        states, first, last = states_by_definition(tiny(kind), tokenizer, text, template, plan)
        own = states[:, first:last]
        mine = read.select(np.array([index]))
        assert mine.ids.tolist() == tokenizer.encode(template.replace("{text}", text)).ids
        assert_close(mine.states, states)
        for view, values in by_view.items():
            seen = own if template != "{text}" and view in ("mean", "weighted_mean", "max", "sum") else states
            wanted = own[:, -1] if view == "text_last" else naive_view(view, seen, -1)
            assert_close(values[:, index], wanted)
            np.testing.assert_array_equal(in_memory[view][:, index], values[:, index])
    assert_equal_tokens(read, in_memory["tokens"])


def assert_close(actual: np.ndarray, wanted: torch.Tensor) -> None:
    scale = np.maximum(1, np.abs(wanted.numpy()).max(-1, keepdims=True))
    assert (np.abs(actual - wanted.numpy()) <= 1e-5 * scale).all()


@pytest.mark.parametrize("kind", ["qwen2", "bert"])
def test_the_token_view_has_every_token_once_with_its_characters(kind, tiny, tmp_path):
    rng = np.random.default_rng(2)
    text = "  ".join(rng.choice([*WORDS, "Überraschung", "日本語", "naïveté,"], 80))
    plan = plan_of(tiny(kind), views=("tokens",), template="the small {text} in winter", max_tokens=32)
    store = extract(plan, [text], settings(tmp_path)).store
    read = store.read_tokens([text], [])
    whole = extract(replace(plan, max_tokens=10_000, stride=0, truncation="cut", views=("tokens",)), [], None) if 0 else None
    assert whole is None
    encoding = Extractor(plan, settings(tmp_path)).backbone.tokenizer.encode(plan.template.replace("{text}", text))
    assert read.ids.tolist() == encoding.ids
    assert store.lengths([text]).tolist() == [len(encoding.ids)]
    shift = len("the small ")
    for (start, end), (low, high), special in zip(
        read.spans.tolist(), encoding.offsets, encoding.special_tokens_mask, strict=True
    ):
        inside = not special and high > shift and low < shift + len(text) and high > low
        clipped = max(low - shift, 0), min(high - shift, len(text))
        assert (start, end) == (clipped if inside else (NO_SPAN, NO_SPAN))
