"""Texts in blocks: the bits of one request, whatever is killed or repeated, and nothing of a block outlives it."""

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.data.store.store import LatentStore
from permafrost.data.text import TextError
from permafrost.extract.capture import runner
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.extraction import extract, extract_together
from permafrost.extract.proofs.self_check import SelfCheck
from permafrost.extract.text_blocks import text_blocks

ROOT = Path(__file__).parents[2]

WORDS = ["dog", "grass", "stove", "winter", "small", "brown", "runs", "over", "green", "then"]
TEXTS = [f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} {'runs ' * (i % 5)}{WORDS[i // 100]}" for i in range(220)]
BLOCK = 50


class Notes:
    """Notices and bars, as they are shown."""

    def __init__(self) -> None:
        self.notes, self.bars, self.steps = list[str](), list[Any](), 0

    def note(self, message: str) -> None:
        self.notes.append(message)

    def event(self, name: str, **facts: Any) -> None:
        self.last = (name, facts)

    def bar(self, label: str, total: int | None) -> Any:
        self.bars.append(total)
        return self

    def __enter__(self) -> Any:
        return self.advance

    def __exit__(self, *error: object) -> None: ...

    def advance(self, steps: int) -> None:
        self.steps += steps


@pytest.fixture
def plan(tiny: Any) -> CapturePlan:
    return CapturePlan(backbone=str(tiny("llama")), max_tokens=32, compute_dtype="float32", stored_dtype="float32")


@pytest.fixture
def spec(tmp_path: Any) -> ExtractSpec:
    return ExtractSpec(cache=str(tmp_path / "cache"), device="cpu", block_texts=BLOCK, batch_tokens=60)


def bits(store: LatentStore) -> np.ndarray:
    return store.read(TEXTS, "mean", (0, 1, 2, 3))


def elsewhere(spec: ExtractSpec, name: str, **more: Any) -> ExtractSpec:
    return replace(spec, cache=f"{spec.cache}-{name}", **more)


def test_blocks_are_of_distinct_texts_and_cover_the_stream():
    stream = iter(["a", "b", "a", "c", "b", "c", "d", "a"])
    blocks = [(block.texts, block.read, block.is_last) for block in text_blocks(stream, 2)]
    assert blocks == [(["a", "b"], 3, False), (["c", "b"], 3, False), (["d", "a"], 2, True)]
    assert [block.is_last for block in text_blocks("abcd", 2)] == [False, True]
    assert list(text_blocks([], 2)) == [([], 0, True)]


def test_a_list_a_stream_and_a_request_for_each_block_give_the_same_bits(plan, spec):
    """A text that an earlier block had is not run again, and the self-check is done once."""
    told, told_of_stream = Notes(), Notes()
    in_list = extract(plan, TEXTS, spec, told)
    repeated = [*TEXTS[:BLOCK], TEXTS[3], *TEXTS[BLOCK:]]
    streamed = extract(plan, (text for text in repeated), elsewhere(spec, "stream"), told_of_stream)
    single = elsewhere(spec, "single", block_texts=len(TEXTS))
    for start in range(0, len(TEXTS), BLOCK):
        alone = extract(plan, TEXTS[start : start + BLOCK], single)
    assert in_list.texts_run == streamed.texts_run == len(TEXTS)
    np.testing.assert_array_equal(bits(in_list.store), bits(streamed.store))
    np.testing.assert_array_equal(bits(in_list.store), bits(alone.store))
    assert (told.bars, told_of_stream.bars) == ([len(TEXTS)], [None])
    assert told.steps == len(TEXTS)
    assert told_of_stream.steps == len(repeated)
    assert sum("self-check" in note for note in told.notes) == 1
    assert f"{len(TEXTS)} texts" in told.notes[0]
    assert f"{BLOCK} texts" in told_of_stream.notes[0]
    again = extract(plan, iter([*repeated, TEXTS[0], TEXTS[BLOCK]]), elsewhere(spec, "again"))
    assert again.texts_run == len(TEXTS)
    np.testing.assert_allclose(bits(again.store), bits(in_list.store), atol=1e-5)  # the last block has other packs
    warm = Notes()
    assert extract(plan, iter(TEXTS), spec, warm).texts_run == 0
    assert not warm.notes


def test_blocks_that_are_laid_out_ahead_give_the_same_bits(plan, spec, monkeypatch):
    """And an error of a text in a later block, which is found ahead, comes in its place."""
    here = extract(plan, TEXTS, spec)
    monkeypatch.setattr("permafrost.extract.extraction._Request.overlaps", True)
    real, threads = BackboneRunner.tokenize, list[str]()

    def tokenized(self: BackboneRunner, *given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(self, *given)

    monkeypatch.setattr(BackboneRunner, "tokenize", tokenized)
    ahead = extract(plan, iter(TEXTS), elsewhere(spec, "ahead"))
    assert ahead.texts_run == len(TEXTS)
    assert len(threads) == -(-len(TEXTS) // BLOCK), "each block is tokenized once"
    assert "stage 0" in threads
    np.testing.assert_array_equal(bits(ahead.store), bits(here.store))
    with pytest.raises(TextError, match=f"the {4 * BLOCK} texts of the blocks before it are stored"):
        extract(
            replace(plan, truncation="refuse"), iter([*TEXTS[: 4 * BLOCK], "dog " * 60]), elsewhere(spec, "refused")
        )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stage ")]


def test_a_request_of_one_block_is_announced_as_before(plan, spec):
    told = Notes()
    extract(plan, TEXTS, replace(spec, block_texts=len(TEXTS)), told)
    assert told.bars == [len(TEXTS)]
    assert "block_texts" not in told.notes[0]
    assert "about" not in told.notes[0]


def test_killed_in_each_block_nothing_committed_runs_again_and_the_bits_are_the_same(plan, spec, monkeypatch):
    whole = bits(extract(plan, iter(TEXTS), elsewhere(spec, "whole")).store)
    ran = list[int]()
    real = runner.BackboneRunner._block

    def interrupted(self: Any, *given: Any) -> Any:
        if len(ran) in (2, 6, 10):
            ran.append(0)
            raise KeyboardInterrupt
        block = real(self, *given)
        ran.append(len(block.keys))
        return block

    monkeypatch.setattr(runner.BackboneRunner, "_block", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            extract(plan, iter(TEXTS), spec)
    done = extract(plan, iter(TEXTS), spec)
    assert sum(ran) == len(TEXTS)
    np.testing.assert_array_equal(bits(done.store), whole)


def test_requests_of_a_batch_run_in_blocks_too(plan, spec):
    requests = [(plan, TEXTS[:120]), (replace(plan, layers=(1,)), TEXTS[100:])]
    assert extract_together(requests, spec, Notes()) == len(TEXTS)
    assert extract_together(requests, spec, Notes()) == 0
    assert extract(plan, TEXTS[:120], spec).texts_run == 0


def test_nothing_of_a_block_outlives_it(plan, spec, monkeypatch):
    """Neither its tokens, nor its self-check, nor the store of its shards."""
    checks, stores = list[Any](), list[Any]()
    real_check, real_at = SelfCheck.__init__, LatentStore.at.__func__  # type: ignore[attr-defined]

    def check(self: Any, run: Any, texts: Any, tokens: Any) -> None:
        checks.extend((weakref.ref(self), weakref.ref(tokens)))
        real_check(self, run, texts, tokens)

    def at(*given: Any) -> LatentStore:
        stores.append(weakref.ref(store := real_at(LatentStore, *given)))
        return store

    monkeypatch.setattr(SelfCheck, "__init__", check)
    monkeypatch.setattr(LatentStore, "at", at)
    alive = list[tuple[int, int]]()

    def stream() -> Iterator[str]:
        for number, text in enumerate(TEXTS):
            if number % BLOCK == BLOCK // 2:
                gc.collect()
                alive.append(tuple(sum(ref() is not None for ref in refs) for refs in (checks, stores)))
            yield text

    extract(plan, stream(), spec)
    assert len(checks) == 2
    assert len(stores) > 4
    assert alive[1:] == [(0, 1)] * (len(alive) - 1), "only the store of the last block is there"


PROGRAM = """
import resource, sys
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.extraction import extract
texts = (f"dog {' '.join('runs' for _ in range(i % 7))} {i}" for i in range(int(sys.argv[1])))
plan = CapturePlan(backbone=sys.argv[2], layers=(-1,), max_tokens=32)
extract(plan, texts, ExtractSpec(cache=sys.argv[3], device="cpu", block_texts=4000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_memory_is_that_of_a_block(tiny, tmp_path):
    def peak(texts: int) -> int:
        command = [sys.executable, "-c", PROGRAM, str(texts), str(tiny("bert")), str(tmp_path / str(texts))]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert peak(80_000) < 1.1 * peak(8_000)


def test_a_text_that_is_refused_in_a_later_block_leaves_the_earlier_ones(plan, spec):
    strict = replace(plan, truncation="refuse")
    texts = [*TEXTS[: 2 * BLOCK], "dog " * 60, *TEXTS[2 * BLOCK :]]
    with pytest.raises(TextError, match="Nothing of this block was run; the 100 texts of the blocks") as error:
        extract(strict, iter(texts), spec)
    assert "Nothing was run." not in str(error.value)
    assert extract(strict, TEXTS[: 2 * BLOCK], spec).texts_run == 0
    with pytest.raises(TextError, match="Nothing was run"):
        extract(strict, iter(["dog " * 60]), spec)


def test_bytes_are_refused_before_a_list_runs_and_block_by_block_for_a_stream(plan, spec):
    allowed = replace(spec, max_bytes=80_000)  # 120 texts of 4 layers, 32 dimensions, 4 bytes
    with pytest.raises(SpecError, match=r"about 11\d,\d{3} bytes .* Nothing was run"):
        extract(plan, TEXTS, allowed)
    with pytest.raises(SpecError, match=r"of the blocks before took .* the 150 texts of the blocks before it are"):
        extract(plan, islice(TEXTS, None), allowed)
    with pytest.raises(SpecError, match="block_texts must be at least 1"):
        replace(spec, block_texts=0)
