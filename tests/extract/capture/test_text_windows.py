"""Texts in windows: every view is that of the windows run alone by transformers, each token counted once."""

import resource
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.ragged import NO_SPAN
from permafrost.data.spec import SpecError
from permafrost.data.store.block import Block
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.extract.capture import runner
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.tokenization.token_ids import read_token_ids
from permafrost.probes.inputs.finetuned import cached_states
from tests.extract.capture.test_forward import VIEWS, naive_view
from tests.support.blocks import assert_equal_tokens
from tests.support.marks import slow_but_first
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


@cache
def model_of(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def states_alone(folder: Path, ids: list[int]) -> torch.Tensor:
    """``[layer, token, width]`` of one window from transformers alone."""
    states = model_of(folder)(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.cat(states)


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
        return states_alone(folder, ids), first, last
    windows = words_of_windows(last - first, plan.token_limit - len(ids) + last - first, plan.stride)
    states: list[Any] = [None] * len(ids)
    for number, (start, end) in enumerate(windows):
        held = [*range(first), *range(first + start, first + end), *range(last, len(ids))]
        alone = states_alone(folder, [ids[token] for token in held])
        for token, state in zip(held, alone.unbind(1), strict=True):
            inner = [min(token - first - low, high - 1 - token + first) for low, high in windows]
            counts_in = 0 if token < first else len(windows) - 1 if token >= last else int(np.argmax(inner))
            if number == counts_in:
                states[token] = state
    return torch.stack(states, 1), first, last


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("template", "changes"),
    slow_but_first(
        [
            ("the small {text} in winter", {}),
            ("{text}", {}),
            ("{text}", {"stride": 0}),
            ("{text}", {"stride": 11, "max_tokens": 14}),
        ]
    ),
)
def test_every_view_is_that_of_the_windows_alone(kind, template, changes, tiny, long_texts, tmp_path):
    plan = plan_of(tiny(kind), template=template, final_norm=kind != "bert", **changes)
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


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_fit_have_the_bits_that_they_have_without_windows(kind, tiny, long_texts, tmp_path):
    fitting = [" ".join(WORDS[start : start + size]) for start in range(8) for size in (1, 5, 9)]
    plan = plan_of(tiny(kind))
    cut = extract(replace(plan, truncation="cut"), fitting, settings(tmp_path)).store
    for texts, folder in ((fitting, "a"), ([*long_texts[-3:], *fitting], "b")):
        windows = extract(plan, texts, settings(tmp_path / folder)).store
        assert_equal_tokens(windows.read_tokens(fitting, LAYERS), cut.read_tokens(fitting, LAYERS))
        for view in VIEWS:
            if view != "tokens":
                np.testing.assert_array_equal(
                    windows.read(fitting, view, LAYERS), cut.read(fitting, view, LAYERS), err_msg=view
                )


def test_an_interrupted_run_ends_with_the_same_bits_and_runs_no_text_twice(tiny, long_texts, tmp_path, monkeypatch):
    plan, ran = plan_of(tiny("llama")), []
    real = runner.BackboneRunner._block

    def interrupted(self: Any, *given: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(real(self, *given))
        return ran[-1]

    monkeypatch.setattr(runner.BackboneRunner, "_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(plan, long_texts, settings(tmp_path, batch_tokens=16))
    monkeypatch.setattr(runner.BackboneRunner, "_block", real)
    done = extract(plan, long_texts, settings(tmp_path, batch_tokens=16))
    assert done.texts_run == len(long_texts) - sum(len(block.keys) for block in ran)
    assert extract(plan, long_texts[::-1], settings(tmp_path, batch_tokens=16)).texts_run == 0
    whole = extract(plan, long_texts, settings(tmp_path / "whole", batch_tokens=16)).store
    assert_equal_tokens(done.store.read_tokens(long_texts, LAYERS), whole.read_tokens(long_texts, LAYERS))
    np.testing.assert_array_equal(done.store.read(long_texts, "mean", LAYERS), whole.read(long_texts, "mean", LAYERS))


def test_a_text_that_an_earlier_version_cut_is_run_again(tiny, long_texts, tmp_path):
    """It was stored under the identity of the same plan, with the key of the text alone."""
    plan = plan_of(tiny("bert"))
    identity = Extractor(plan, settings(tmp_path)).identity
    old = extract(replace(plan, truncation="cut"), long_texts, settings(tmp_path / "old")).store
    block = Block(
        keys=text_keys(long_texts),
        lengths=old.lengths(long_texts),
        columns=dict.fromkeys(sorted(VIEWS), tuple(LAYERS)),
        latents={view: old.read(long_texts, view, LAYERS) for view in VIEWS if view != "tokens"},
        tokens=old.read_tokens(long_texts, LAYERS),
    )
    store = LatentStore.at(tmp_path / "cache", plan.backbone, identity)
    store.append(block, old.shards[0].provenance)
    assert extract(plan, long_texts, settings(tmp_path)).texts_run == len(long_texts)
    assert store.lengths(long_texts).tolist() == [len(text.split()) + 2 for text in long_texts]
    assert (np.diff(store.read_tokens(long_texts, []).offsets) == store.lengths(long_texts)).all()


@pytest.mark.slow
def test_a_text_of_a_million_characters_is_one_row(tiny, tmp_path):
    rng = np.random.default_rng(0)
    text = " ".join(rng.choice(WORDS, 215_000))
    assert len(text) > 1_000_000
    plan = plan_of(tiny("bert", 8, 1), views=("mean", "max", "last"), max_tokens=64, layers=(1,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = extract(plan, [text, "the dog"], settings(tmp_path)).store
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000, "in kB"
    assert store.lengths([text]).tolist() == [215_002]
    assert np.isfinite(store.read([text], "mean", [1])).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 14}, r"plan.stride = 14 must be less than 14, the tokens of a text that a window has room for"),
        ({"template": "a b c d e f g h i j k l m n {text}"}, "leaves no room for a text"),
    ],
)
def test_windows_that_cannot_go_on_are_refused(changes, message, tiny, long_texts, tmp_path):
    with pytest.raises(SpecError, match=message):
        extract(plan_of(tiny("bert"), **changes), long_texts, settings(tmp_path))


def test_a_template_that_has_the_text_twice_is_refused_with_the_plan(tiny):
    with pytest.raises(SpecError, match=r'needs a template that has {text} once; set truncation = "cut"'):
        plan_of(tiny("bert"), template="{text} again {text}")


def test_blocks_that_are_trained_are_given_no_text_in_windows(tiny, long_texts, tmp_path):
    plan = plan_of(tiny("bert"), views=("tokens",))
    message = r"a text has 152 tokens, .* at most plan.max_tokens = 16, .* set plan.truncation = \"cut\""
    with pytest.raises(SpecError, match=message):
        read_token_ids(plan, long_texts, str(tmp_path / "cache"))
    with pytest.raises(SpecError, match=message):
        cached_states(extract(plan, long_texts, settings(tmp_path)), long_texts)
    assert read_token_ids(plan, long_texts[:2], str(tmp_path / "cache"))[1].longest == 16
    assert cached_states(extract(plan, long_texts[:2], settings(tmp_path)), long_texts[:2]).tokens.longest == 16
