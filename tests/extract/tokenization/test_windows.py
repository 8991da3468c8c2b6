"""Texts of two segments in the store: windows that follow each other without a tokenizer, and the same bits again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.latents.find_store import find_store
from permafrost.data.plan.plan import VIEWS, CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.data.store.errors import StoreError
from permafrost.data.text import Segments, TextError
from permafrost.extract import loader
from permafrost.extract.capture import runner
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.probes.inputs.providers import CacheProvider
from tests.support.blocks import assert_equal_tokens
from tests.support.marks import slow_but_first
from tests.support.models.backbones import WORDS
from tests.support.models.families import FAMILIES

FLOAT32 = {"compute_dtype": "float32", "stored_dtype": "float32"}


def settings(folder: Path, **more: Any) -> ExtractSpec:
    return ExtractSpec(cache=str(folder / "cache"), device="cpu", **more)


@pytest.fixture
def plan(tiny: Any) -> CapturePlan:
    return CapturePlan(
        backbone=str(tiny("bert")), views=("tokens", "mean"), max_tokens=32, truncation="windows", stride=6, **FLOAT32
    )


@pytest.fixture
def pairs() -> list[Any]:
    """Questions on contexts of 1 to 90 words, two questions of one context, and texts of one segment."""
    rng = np.random.default_rng(0)
    made: list[Any] = []
    for number in range(12):
        context = " ".join(rng.choice(WORDS, rng.integers(1, 90)))
        made += [Segments(f"the {word} runs", context) for word in rng.choice(WORDS, 1 + number % 2, replace=False)]
    return [*made, "the dog runs", " ".join(rng.choice(WORDS, 60))]


@pytest.fixture
def no_backbone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it, and from then on nothing can be loaded."""

    def forbid() -> None:
        monkeypatch.setattr(loader, "load_backbone", lambda *given: pytest.fail("a backbone was loaded"))

    return forbid


def test_the_windows_in_a_store_are_found_without_a_tokenizer(plan, pairs, tmp_path, no_backbone):
    done = extract(plan, pairs, settings(tmp_path))
    windows, offsets = Extractor(plan, settings(tmp_path)).windowed(pairs)
    assert done.texts_run == len(windows)
    assert done.truncated == 0
    no_backbone()
    found, places = done.store.expand_windows(pairs)
    assert found == windows
    np.testing.assert_array_equal(places, offsets)
    assert np.diff(offsets).max() > 3
    again = extract(plan, pairs, settings(tmp_path))
    assert (again.texts_run, again.truncated) == (0, 0)
    twice = [pairs[3], pairs[0], pairs[3]]
    assert done.store.expand_windows(twice)[0] == [
        window for text in twice for window in windows if str(window) == str(text)
    ]
    assert done.store.expand_windows([])[1].tolist() == [0]


def test_windows_hold_the_whole_second_segment(plan, pairs, tmp_path):
    store = extract(plan, pairs, settings(tmp_path)).store
    windows, offsets = store.expand_windows(pairs)
    read = store.read_tokens(windows, [1])
    assert read.lengths[:-1].max() == 32
    assert read.lengths[-1] == 62, "a text of one segment has one row"
    assert np.isfinite(read.states).all()
    for index, text in enumerate(pairs[:-2]):
        spans = read.spans[read.offsets[offsets[index]] : read.offsets[offsets[index + 1]]]
        covered = {text.second[start:end] for start, end in spans if start >= 0}
        letters = {at for start, end in spans if start >= 0 for at in range(start, end)}
        assert covered == set(text.second.split())
        assert letters == {at for at, letter in enumerate(text.second) if letter != " "}


def test_a_token_sees_its_own_window_and_no_other(plan, tmp_path):
    context = " ".join(WORDS * 3)
    changed = context.rsplit(" ", 1)[0] + " dog"
    texts = [Segments("the dog runs", context), Segments("the dog runs", changed)]
    store = extract(plan, texts, settings(tmp_path)).store
    windows, offsets = store.expand_windows(texts)
    read = store.read_tokens(windows, [3])
    last = offsets[1] - 1
    mine, theirs = (read.select(np.array(part)) for part in (range(last), range(offsets[1], offsets[2] - 1)))
    np.testing.assert_allclose(mine.states, theirs.states, atol=1e-5 * np.abs(mine.states).max())
    ends = [read.select(np.array([at])).states for at in (last, offsets[2] - 1)]
    assert not np.allclose(*ends, atol=1e-2)


def test_pooled_views_see_every_token_of_a_window(plan, pairs, tmp_path):
    store = extract(plan, pairs, settings(tmp_path)).store
    windows, _ = store.expand_windows(pairs)
    read, means = store.read_tokens(windows, [2]), store.read(windows, "mean", [2])
    sums = np.add.reduceat(read.states, read.offsets[:-1], axis=1)
    np.testing.assert_allclose(sums / read.lengths[:, None], means, atol=1e-5 * np.abs(read.states).max())


@pytest.mark.parametrize("family", slow_but_first(FAMILIES))
def test_a_window_depends_on_nothing_but_itself(family, tiny, pairs, tmp_path):
    """Order, batch size, company and restart change nothing beyond the tolerance of float32 sums; nor does the road."""
    plan = CapturePlan(
        backbone=str(tiny(family)), views=VIEWS, max_tokens=32, truncation="windows", stride=6, **FLOAT32
    )
    base = extract(plan, pairs, settings(tmp_path / "a")).store
    small = settings(tmp_path / "b", batch_tokens=70, shard_bytes=20_000)
    extract(plan, pairs[9:12], small)
    other = extract(plan, pairs[::-1], small).store
    assert len(other.shards) > 2
    windows, _ = base.expand_windows(pairs)
    extractor = Extractor(plan, settings(tmp_path / "a"))
    assert extractor.windowed(pairs)[0] == other.expand_windows(pairs)[0] == windows
    made = extractor(windows, plan.columns(4))
    assert_equal_tokens(base.read_tokens(windows, range(4)), made["tokens"])
    for view in VIEWS:
        if view == "tokens":
            mine, theirs = (store.read_tokens(windows, range(4)).states for store in (base, other))
        else:
            mine, theirs = (store.read(windows, view, range(4)) for store in (base, other))
            np.testing.assert_array_equal(mine, made[view])
        scale = np.maximum(1, np.abs(mine).max(axis=2, keepdims=True))
        assert (np.abs(mine - theirs) <= 1e-5 * scale).all(), view


def test_further_texts_and_columns_run_what_is_missing_alone(plan, pairs, tmp_path):
    first = extract(replace(plan, views=("mean",)), pairs[:7], settings(tmp_path))
    grown = extract(replace(plan, views=("mean",)), pairs, settings(tmp_path))
    windows, _ = grown.store.expand_windows(pairs)
    assert grown.texts_run == len(windows) - first.texts_run
    more = extract(plan, pairs, settings(tmp_path))
    assert more.texts_run == len(windows)
    assert {view for shard in more.store.shards for view in shard.columns} == {"mean", "tokens"}


def test_an_interrupted_run_ends_with_the_same_bits(plan, pairs, tmp_path, monkeypatch):
    spec, ran = settings(tmp_path, batch_tokens=64), []
    real = runner.BackboneRunner._block

    def interrupted(self: Any, *given: Any) -> Any:
        if len(ran) == 4:
            raise KeyboardInterrupt
        ran.append(real(self, *given))
        return ran[-1]

    monkeypatch.setattr(runner.BackboneRunner, "_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(plan, pairs, spec)
    monkeypatch.undo()
    done = extract(plan, pairs, spec)
    windows, _ = done.store.expand_windows(pairs)
    assert done.texts_run == len(windows) - sum(len(block.keys) for block in ran) > 0
    whole = extract(plan, pairs, settings(tmp_path / "whole", batch_tokens=64)).store
    assert_equal_tokens(done.store.read_tokens(windows, range(4)), whole.read_tokens(windows, range(4)))
    np.testing.assert_array_equal(done.store.read(windows, "mean", range(4)), whole.read(windows, "mean", range(4)))


def test_a_text_that_is_run_in_windows_loses_nothing_and_a_cut_one_does(plan, pairs, tmp_path):
    long = [Segments("the dog", " ".join(WORDS * 4)), " ".join(WORDS * 4)]
    for stride, cut in ((6, 0), (None, 2)):
        asked = plan if stride else replace(plan, truncation="cut", stride=0)
        done = extract(asked, [*long, "the dog"], settings(tmp_path))
        found = CacheProvider().latents(
            asked, settings(tmp_path), Corpus(name="c", texts=(*long, "the dog"), splits={}), NoProgress()
        )
        assert (done.truncated, found.truncated) == (cut, cut)


def test_a_window_that_is_missing_is_named(plan, tmp_path, monkeypatch):
    text = Segments("the dog runs", " ".join(WORDS * 3))
    ran: list[Any] = []
    real = runner.BackboneRunner._block

    def interrupted(self: Any, members: Any, captured: Any, request: Any) -> Any:
        if ran:
            raise KeyboardInterrupt
        ran.append([request.texts[index] for index in members])
        return real(self, members, captured, request)

    monkeypatch.setattr(runner.BackboneRunner, "_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(plan, [text], settings(tmp_path, batch_tokens=32))
    store = find_store(tmp_path / "cache", plan)
    with pytest.raises(StoreError, match=r"text 'the dog runs \| the a small .*' is not in the store"):
        store.expand_windows([text])
    with pytest.raises(StoreError, match="is not in the store"):
        store.expand_windows([Segments("the dog", "runs")])


def test_stores_of_windows_and_of_cut_texts_are_two(plan, pairs, tmp_path):
    cut = replace(plan, truncation="cut")
    done, windows = (extract(made, pairs, settings(tmp_path)) for made in (cut, plan))
    assert done.store.path != windows.store.path
    assert (done.texts_run, done.truncated) == (
        len(pairs),
        1 + int((np.diff(windows.store.expand_windows(pairs)[1]) > 1).sum()),
    )
    assert done.store.expand_windows(pairs)[0] == pairs
    assert done.store.expand_windows(pairs)[1].tolist() == list(range(len(pairs) + 1))
    for asked, store in ((cut, done.store), (replace(cut, stride=3), done.store), (plan, windows.store)):
        assert find_store(tmp_path / "cache", asked).path == store.path
    with pytest.raises(StoreError, match="no latents of this plan"):
        find_store(tmp_path / "cache", replace(plan, stride=7))
    fits = next(text for text in pairs if len(str(text).split()) < 20)
    np.testing.assert_allclose(done.store.read([fits], "mean", [3]), windows.store.read([fits], "mean", [3]), atol=1e-5)


def test_two_segments_that_are_too_long_can_be_refused(plan, pairs, tmp_path):
    strict = replace(plan, truncation="refuse")
    for cache in (tmp_path, tmp_path / "cold"):
        with pytest.raises(TextError, match=r"texts exceed plan.max_tokens = 32, the longest has \d+ tokens \('the "):
            extract(strict, pairs, settings(cache))
        extract(replace(plan, truncation="cut"), pairs, settings(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "say {text}"}, "plan.template = 'say {text}' is for texts of one segment"),
        ({"views": ("mean",), "rewording": ("lower_case",)}, "plan.rewording = .* is for texts of one segment"),
    ],
)
def test_what_is_done_to_one_segment_is_refused_for_two(changes, message, plan, pairs, tmp_path, no_backbone):
    for road in (extract, lambda plan, texts, spec: Extractor(plan, spec)(texts, {"mean": (1,)})):
        with pytest.raises(SpecError, match=message):
            road(replace(plan, **changes), pairs, settings(tmp_path))
    extract(replace(plan, **changes), pairs[-2:], settings(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": -1}, "stride must be 0 or more, got -1"),
        ({"stride": 32}, "stride = 32 must be less than max_tokens = 32"),
    ],
)
def test_a_stride_that_cannot_be_is_refused_with_the_plan(changes, message, plan):
    with pytest.raises(SpecError, match=message):
        replace(plan, **changes)
    assert replace(plan, truncation="cut", stride=32).overlap == -1
