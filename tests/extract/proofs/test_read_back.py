"""What was computed and what is stored, or handed on in memory, are the same, of every view, or the run is stopped."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from permafrost.data.plan.plan import TOKENS, ExtractSpec
from permafrost.data.ragged import TokenLatents
from permafrost.extract import extractor, shard_writer
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.proofs.proof import SelfCheckError
from tests.extract.proofs.test_self_check import made_texts, plan_of, wrapped
from tests.support.models.backbones import tiny_folder

Change = Callable[[TokenLatents], TokenLatents]

TOKEN_CHANGES: dict[str, tuple[Change, str]] = {
    "states": (lambda latents: replace(latents, states=np.roll(latents.states, 1, 1)), "computed|latents of another"),
    "ids": (lambda latents: replace(latents, ids=np.roll(latents.ids, 1)), "tokens of others"),
    "spans": (lambda latents: replace(latents, spans=np.roll(latents.spans, 1, 0)), "tokens of others"),
}
"""What is moved from a token to the next, and what is said of it."""

VIEWS = ("mean", TOKENS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_folder("bert", tmp_path_factory.mktemp("bert") / "model", 3)


@pytest.mark.parametrize("stored_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("moved", TOKEN_CHANGES)
def test_tokens_that_are_moved_on_the_way_to_the_disk_are_found(moved, stored_dtype, model, tmp_path, monkeypatch):
    change, said = TOKEN_CHANGES[moved]
    plan = plan_of(model, "float32", views=VIEWS, stored_dtype=stored_dtype)
    spec = ExtractSpec(cache=str(tmp_path), device="cpu", batch_tokens=100)
    wrapped(
        monkeypatch,
        shard_writer.ShardWriter,
        "add",
        lambda real, writer, block: real(writer, replace(block, tokens=change(block.tokens))),
    )
    with pytest.raises(SelfCheckError, match=said):
        extract(plan, made_texts(0), spec)
    assert not list(tmp_path.rglob("*.h5"))
    monkeypatch.undo()
    assert extract(plan, made_texts(0), spec).texts_run


def handed_on(change: Callable[[dict[str, Any]], dict[str, Any]], patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, extractor, "_in_order", lambda real, *given: change(real(*given)))


@pytest.mark.parametrize("moved", TOKEN_CHANGES)
def test_tokens_that_are_handed_on_as_those_of_others_are_found(moved, model, tmp_path, monkeypatch):
    change, said = TOKEN_CHANGES[moved]
    plan = plan_of(model, "float32", views=VIEWS)
    made = Extractor(plan, ExtractSpec(cache=str(tmp_path), device="cpu", batch_tokens=100))
    handed_on(lambda latents: latents | {TOKENS: change(latents[TOKENS])}, monkeypatch)
    with pytest.raises(SelfCheckError, match=said):
        made(made_texts(0), plan.columns(4))


def test_latents_that_are_handed_on_as_those_of_others_are_found_and_named(model, tmp_path, monkeypatch):
    plan, texts = plan_of(model, "bfloat16"), made_texts(0)
    made = Extractor(plan, ExtractSpec(cache=str(tmp_path), device="cpu", batch_tokens=100))
    handed_on(lambda latents: latents | {"last": np.roll(latents["last"], 1, 1)}, monkeypatch)
    for _ in range(2):
        with pytest.raises(SelfCheckError, match=r"self-check: text '.*' is given the latents of another"):
            made(texts, plan.columns(4))
    monkeypatch.undo()
    assert made(texts, plan.columns(4))["last"].shape[1] == len(texts)
