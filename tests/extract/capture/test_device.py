"""What is done for a GPU, on the CPU: threads, memory that is short, and tensors that lie where the backbone does."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.errors import MachineError
from permafrost.data.latents.find_store import find_store
from permafrost.data.plan.plan import TOKENS, CapturePlan, ExtractSpec
from permafrost.extract.capture import forward, runner
from permafrost.extract.capture.packing import Layout
from permafrost.extract.capture.roads import Road, candidate_roads
from permafrost.extract.capture.runner import BackboneRunner, tokens_that_fit
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.proofs import proof

META = torch.device("meta")
VIEWS = ("mean", "last", TOKENS)
THREADS = pytest.mark.parametrize("threads", [False, True])


def plan_of(folder: Path, **more: Any) -> CapturePlan:
    dtypes = {"compute_dtype": "float32", "stored_dtype": "float32"}
    return CapturePlan(backbone=str(folder), **{"views": VIEWS, "max_tokens": 32, **dtypes, **more})


def latents(plan: CapturePlan, texts: Sequence[str], folder: Path, **more: Any) -> dict[str, np.ndarray]:
    """View -> latents in the order of the texts, through the store."""
    found = extract(plan, texts, ExtractSpec(cache=str(folder), device="cpu", **more))
    assert found.texts_run == len(texts)
    return {
        view: found.store.read_tokens(texts, layers).states if view == TOKENS else found.store.read(texts, view, layers)
        for view, layers in found.columns.items()
    }


def on_threads(monkeypatch: pytest.MonkeyPatch, threads: bool = True) -> None:
    monkeypatch.setattr(BackboneRunner, "overlaps", threads)


def stages() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("stage ")]


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let passes of more tokens fail after their first block, as for want of memory; return the tokens of each pass."""
    real, tried = forward.capture_on_device, list[int]()

    def limited(backbone: Any, layout: Layout, *given: Any) -> Any:
        found = real(backbone, layout, *given)
        if backbone.dtype == torch.float64:  # of the proof
            return found
        tried.append(layout.ids.size)
        if layout.ids.size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return found

    monkeypatch.setattr(forward, "capture_on_device", limited)
    return tried


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_threads_change_no_bit(family, tiny, texts, tmp_path, monkeypatch):
    plan = plan_of(tiny(family))
    inline = latents(plan, texts, tmp_path / "a", batch_tokens=40, shard_bytes=4000)
    on_threads(monkeypatch)
    threaded = latents(plan, texts, tmp_path / "b", batch_tokens=40, shard_bytes=4000)
    for view, values in inline.items():
        np.testing.assert_array_equal(threaded[view], values, err_msg=view)
    assert not stages()


@pytest.fixture
def three_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gpt2", {}),
        ("bert", {"compute_dtype": "bfloat16"}),
        ("bert", {"max_tokens": 12, "stride": 4, "truncation": "windows"}),
    ],
)
def test_passes_side_by_side_give_the_same_shards_as_one_after_another(
    family, more, three_cores, tiny, texts, tmp_path, monkeypatch
):
    plan = plan_of(tiny(family), **more)
    at_once = list[int]()
    beside = runner.run_side_by_side

    def counted(run: Any, items: Any, threads: int, alone: Any) -> Any:
        at_once.append(threads)
        return beside(run, items, threads, alone)

    monkeypatch.setattr(runner, "run_side_by_side", counted)
    found = latents(plan, texts, tmp_path / "a", batch_tokens=40, shard_bytes=4000)
    assert set(at_once) == {3}
    assert torch.get_num_threads() == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("side by side")]
    at_once.clear()
    torch.set_num_threads(1)
    alone = latents(plan, texts, tmp_path / "b", batch_tokens=40, shard_bytes=4000)
    assert not at_once, "one thread runs one after another"
    for view, values in alone.items():
        np.testing.assert_array_equal(found[view], values, err_msg=view)
    shards = [sorted(shard.keys.tolist() for shard in find_store(tmp_path / name, plan).shards) for name in "ab"]
    assert len(shards[0]) > 2
    assert shards[0] == shards[1]


def test_a_long_text_runs_by_itself(three_cores, tiny, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SMALL_PASS", 12)
    plan = plan_of(tiny("bert"))
    extractor = Extractor(plan, ExtractSpec(cache=str(tmp_path), device="cpu", batch_tokens=12))
    real, passes = forward.capture_on_device, set[tuple[bool, int]]()

    def watched(backbone: Any, layout: Layout, *given: Any) -> Any:
        passes.add((layout.ids.size > 12, torch.get_num_threads()))
        return real(backbone, layout, *given)

    monkeypatch.setattr(forward, "capture_on_device", watched)
    extractor(texts, plan.columns(4))
    assert (False, 1) in passes
    assert (True, 3) in passes
    assert (True, 1) not in passes


@pytest.mark.parametrize(
    ("family", "more", "threads"),
    [("gpt2", {}, True), ("bert", {}, False), ("bert", {"truncation": "windows"}, True)],
)
def test_passes_that_memory_does_not_hold_run_in_halves(family, more, threads, tiny, texts, tmp_path, monkeypatch):
    plan = plan_of(tiny(family), **({"max_tokens": 12, "stride": 4, **more} if more else {}))
    whole = latents(plan, texts, tmp_path / "a")
    on_threads(monkeypatch, threads)
    tried = limit_memory(monkeypatch, 40)
    found = latents(plan, texts, tmp_path / "b")
    for view, values in whole.items():
        assert np.abs(found[view] - values).max() <= 1e-5 * np.abs(values).max(), view
    failed = [size for size in tried if size > 40]
    assert failed, "none was too large"
    largest = tried[tried.index(failed[-1]) + 1 :]
    assert max(largest) <= 40, "later passes stay small"


@THREADS
def test_a_text_that_memory_does_not_hold_is_told_in_a_line(threads, tiny, texts, tmp_path, monkeypatch):
    on_threads(monkeypatch, threads)
    limit_memory(monkeypatch, 5)
    with pytest.raises(MachineError) as error:
        latents(plan_of(tiny("bert")), texts, tmp_path)
    assert "does not hold the forward pass of one text" in str(error.value)
    assert 'set extract.device = "cpu"' in str(error.value)
    assert "\n" not in str(error.value)
    assert not stages()


@pytest.mark.parametrize("stage", ["_lay_out", "start_forward", "_block"])
def test_what_fails_in_a_stage_comes_once_and_what_was_whole_is_kept(stage, tiny, texts, tmp_path, monkeypatch):
    on_threads(monkeypatch)
    plan, spec = plan_of(tiny("bert")), ExtractSpec(cache=str(tmp_path), device="cpu", batch_tokens=40)
    ready = BackboneRunner.blocks, getattr(BackboneRunner, stage)
    calls = [0]

    def failing(self: BackboneRunner, *given: Any, **named: Any) -> Any:
        calls[0] += self.on_forward is not None  # not in the checks before
        if calls[0] > 3:
            raise ArithmeticError("planted")
        return ready[1](self, *given, **named)

    monkeypatch.setattr(BackboneRunner, stage, failing)
    with pytest.raises(ArithmeticError, match="planted") as error:
        extract(plan, texts, spec)
    assert "failing" in [entry.name for entry in error.traceback]
    assert not stages()
    monkeypatch.setattr(BackboneRunner, stage, ready[1])
    assert 0 < extract(plan, texts, spec).texts_run < len(texts)
    assert extract(plan, texts, spec).texts_run == 0


def test_more_free_memory_and_narrower_states_allow_larger_passes():
    columns = {"mean": tuple(range(25))}
    assert tokens_that_fit(120 << 30, 1024, 2, columns) > 16_384
    assert 1_000 < tokens_that_fit(2 << 30, 1024, 2, columns) < 16_384
    assert tokens_that_fit(0, 1024, 2, columns) == runner.ROW_TOKENS
    sizes = [tokens_that_fit(4 << 30, 1024, 2, {"tokens": tuple(range(layers))}) for layers in (1, 5, 25)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("family", ["gpt2", "bert", "qwen2", "roberta", "mpnet", "distilbert"])
def test_what_a_forward_pass_makes_lies_where_the_backbone_does(family, tiny, texts, tmp_path):
    """Every road of it, inside the meta device, where a tensor lies that is made without a device."""
    extractor = Extractor(
        plan_of(tiny(family), views=(*VIEWS, "cls", "max", "weighted_mean", "text_last")),
        ExtractSpec(cache=str(tmp_path)),
    )
    made, columns = extractor._runner, extractor._runner.plan.columns(4)
    roads = candidate_roads(made.source.architecture, rows=family == "bert")
    assert {Road.EQUAL} < set(roads)
    for road in roads:
        made.road = road
        tokens, packs = made.tokenize_and_pack(texts[:12], characters=True)
        expected = [made.forward(pack, tokens, columns) for pack in packs]
        with META:
            found = [made.forward(pack, tokens, columns) for pack in packs]
        for one, other in zip(expected, found, strict=True):
            for view, values in one.items():
                np.testing.assert_array_equal(other[view], values, err_msg=f"{road}, {view}")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts lie back to back on the CPU too, where they are attended to in padded groups."""
    monkeypatch.setattr(proof, "has_kernel", lambda device, dtype: True)


@pytest.mark.parametrize(("family", "exact"), [("bert", True), ("gpt2", False), ("roberta", False), ("mpnet", False)])
def test_encoders_run_back_to_back_where_that_is_proven(family, exact, rows, tiny, texts, tmp_path, monkeypatch):
    plan = plan_of(tiny(family), views=(*VIEWS, "cls", "max"))
    found = Extractor(plan, ExtractSpec(cache=str(tmp_path), device="cpu"))
    assert (found.road is Road.ROWS) == exact
    if exact:
        packed, columns = found._runner.tokenize_and_pack(texts, True), plan.columns(4)
        assert all(found._runner._lay_out(pack, packed[0]).real.all() for pack in packed[1]), "there is no padding"
        there = found(texts, columns)
        monkeypatch.setattr(proof, "has_kernel", lambda device, dtype: False)
        here = Extractor(plan, ExtractSpec(cache=str(tmp_path), device="cpu"))
        assert here.road is Road.PADDED, "it is remembered for devices with a kernel alone"
        expected = here(texts, columns)
        for view, values in there.items():
            values, wanted = (getattr(each, "states", each) for each in (values, expected[view]))
            assert np.abs(values - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max()), view
