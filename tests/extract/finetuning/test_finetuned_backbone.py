"""Fine-tuned backbones: texts back to back give and learn what each text alone does; token ids of texts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.data.text import Segments, TextError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.attention.varlen import MAX_GROUP_TOKENS, group_by_length, rows_of
from permafrost.extract.capture.pooling import POOLINGS
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone
from permafrost.extract.finetuning.top_blocks import TopBlocks
from permafrost.extract.tokenization.token_ids import read_token_ids
from tests.support.marks import slow_but_first
from tests.support.models.families import FAMILIES

FAMILY = pytest.mark.parametrize("family", FAMILIES)
CUTS = (0, 2, "none")


@pytest.fixture
def plan_of(tiny: Any) -> Any:
    def made(family: str, **more: Any) -> CapturePlan:
        settings: dict[str, Any] = {"compute_dtype": "float32", "stored_dtype": "float32", "max_tokens": 32}
        settings["final_norm"] = bool(FAMILIES[family].final_norm)
        return CapturePlan(backbone=str(tiny(family)), **(settings | {"views": ("tokens",)} | more))

    return made


@pytest.fixture
def below_of(tmp_path: Path) -> Any:
    """Plan, texts, cut, layers beside -> what lies below, back to back; how long each text is; and the segments."""

    def read(
        plan: CapturePlan, texts: list[Any], cut: Any, beside: tuple[int, ...] = ()
    ) -> tuple[Tensor, list[int], Tensor | None]:
        if cut == "none":
            batch, tokens = read_token_ids(plan, texts)
            ids, kinds = batch.rows(np.arange(len(tokens.lengths)))
            told = None if kinds is None else torch.from_numpy(kinds)
            return torch.from_numpy(ids), tokens.lengths.tolist(), told
        spec = ExtractSpec(cache=str(tmp_path / "cache"), device="cpu")
        layers = sorted({*beside, cut})
        latents = extract(replace(plan, layers=tuple(layers)), texts, spec).store.read_tokens(texts, layers)
        return torch.from_numpy(latents.states), latents.lengths.tolist(), None

    return read


@pytest.fixture
def some(texts: list[str]) -> list[str]:
    return texts[:12]


def each_alone(blocks: TopBlocks, below: Tensor, lengths: list[int], view: str) -> Tensor:
    """Text by text through the blocks as transformers runs them."""
    found = []
    for part in (below if below.dim() == 1 else below[-1]).split(lengths):
        real = torch.ones(1, len(part), dtype=torch.bool)
        states = blocks(part[None], real)
        found.append(states[:, 0] if view == "tokens" else POOLINGS[view](states, real))
    return torch.cat(found, 1)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1, float(expected.detach().abs().max())))


@pytest.mark.parametrize("cut", slow_but_first(CUTS))
@FAMILY
def test_texts_together_give_and_learn_what_each_alone_does(family, cut, plan_of, below_of, some):
    below, lengths, _ = below_of(plan_of(family), some, cut)
    together, alone = FinetunedBackbone(plan_of(family), cut, "all"), TopBlocks(plan_of(family), cut, "all")
    for view in ("tokens", *POOLINGS):
        found, expected = together(below, lengths, view), each_alone(alone, below, lengths, view)
        assert_close(found, expected)
        weights = torch.randn_like(expected)
        for module, states in ((together, found), (alone, expected)):
            module.zero_grad()
            (states * weights).mean().backward()
        for one, other in zip(together.parameters(), alone.parameters(), strict=True):
            assert (one.grad is None) is (other.grad is None)
            if one.grad is not None:
                assert_close(one.grad, other.grad)


@pytest.mark.parametrize("cut", CUTS)
def test_what_comes_of_the_cut_is_what_stage_one_extracts(cut, plan_of, below_of, some, tmp_path):
    plan = plan_of("bert", views=("tokens", "mean"))
    extracted = Extractor(plan, ExtractSpec(cache=str(tmp_path / "other"), device="cpu"))(
        some, {"tokens": (2, 3), "mean": (3,)}
    )
    model = FinetunedBackbone(plan, cut, (-1,) if cut == 2 else (2, 3))
    below, lengths, _ = below_of(plan_of("bert"), some, cut)
    layers = model.layers
    tokens = extracted["tokens"].states[[(2, 3).index(layer) for layer in layers]]
    with torch.no_grad():
        assert_close(model(below, lengths, "tokens"), torch.from_numpy(tokens))
        assert_close(model(below, lengths, "mean", layers=[3]), torch.from_numpy(extracted["mean"]))


def test_layers_are_given_in_the_order_they_are_asked_for(plan_of, below_of, some):
    model = FinetunedBackbone(plan_of("gpt2"), 0, "all")
    assert (model.cut, model.layers, model.width) == (0, (1, 2, 3), 32)
    below, lengths, _ = below_of(plan_of("gpt2"), some, 0)
    with torch.no_grad():
        every = model(below, lengths, "last")
        assert torch.equal(model(below, lengths, "last", layers=[3, 1]), every[[2, 0]])


@pytest.mark.parametrize("beside", [(0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("view", slow_but_first(["tokens", "mean", "last"]))
def test_layers_beside_are_the_cached_ones_and_change_nothing_above(view, beside, plan_of, below_of, some, tmp_path):
    plan = plan_of("gpt2", views=(view,))
    below, lengths, _ = below_of(plan_of("gpt2"), some, 2, beside)
    model = FinetunedBackbone(plan, 2, "all", frozen_layers=beside)
    assert model.layers == (*beside, 3)
    extracted = Extractor(plan, ExtractSpec(cache=str(tmp_path / "other"), device="cpu"))(some, {view: model.layers})[
        view
    ]
    made = model(below, lengths, view)
    assert_close(made, torch.from_numpy(extracted.states if view == "tokens" else extracted))
    assert torch.equal(made[-1:], FinetunedBackbone(plan, 2, "all")(below[-1:], lengths, view))
    assert torch.equal(model(below, lengths, view, layers=[3, beside[0]]), made[[-1, 0]])
    made[: len(beside)].sum().backward()
    assert not any(part.grad is not None and part.grad.any() for part in model.parameters())


def test_states_in_half_precision_are_computed_in_single(plan_of, below_of, some):
    model = FinetunedBackbone(plan_of("bert"), 2)
    below, lengths, _ = below_of(plan_of("bert"), some, 2)
    with torch.no_grad():
        half = model(below.half(), lengths, "mean")
        assert half.dtype == torch.float32
        assert torch.equal(half, model(below.half().float(), lengths, "mean"))
        with torch.autocast("cpu", torch.bfloat16):
            assert model(below, lengths, "tokens").dtype == torch.float32


def test_two_segments_run_with_the_kind_of_every_token(plan_of, below_of, some, tmp_path):
    plan = plan_of("bert", views=("mean",))
    pairs = [Segments(first, second) for first, second in zip(some[:5], some[5:10], strict=True)]
    below, lengths, kinds = below_of(plan, pairs, "none")
    expected = Extractor(plan, ExtractSpec(cache=str(tmp_path / "other"), device="cpu"))(pairs, {"mean": (3,)})["mean"]
    model = FinetunedBackbone(plan, "none")
    with torch.no_grad():
        assert_close(model(below, lengths, "mean", kinds), torch.from_numpy(expected))
        assert (model(below, lengths, "mean") - torch.from_numpy(expected)).abs().max() > 0.01


def test_lengths_that_are_not_those_of_the_tokens_are_refused(plan_of):
    with pytest.raises(ValueError, match="2 texts of 7 tokens, and 6 tokens are given"):
        FinetunedBackbone(plan_of("bert"), 2)(torch.zeros(1, 6, 32), [3, 4], "mean")


def drops(model: FinetunedBackbone) -> set[tuple[str, float]]:
    """The dropouts of the blocks by the last words of their path."""
    modules = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    numbers = {
        f"{name}.attention_dropout": module.attention_dropout
        for name, module in model.named_modules()
        if hasattr(module, "attention_dropout") and isinstance(module.attention_dropout, float)
    }
    return {(name, share) for name, share in (modules | numbers).items()}


@FAMILY
def test_dropout_is_that_asked_for_and_else_that_of_the_configuration(family, plan_of):
    plan = plan_of(family)
    usual, both, apart = (FinetunedBackbone(plan, 1, (-1,), *asked) for asked in ((), (0.25,), (0.25, 0.5)))
    assert {share for _, share in drops(usual)} == ({0.0} if family in ("llama", "qwen2") else {0.1})
    assert {share for _, share in drops(both)} == {0.25}
    of_weights = {name for name, share in drops(apart) if share == 0.5}
    assert len(of_weights) == 2  # one in each block that is trained
    assert {share for name, share in drops(apart) if name not in of_weights} <= {0.25}


@FAMILY
def test_each_kind_of_dropout_drops_in_training_alone(family, plan_of, below_of, some):
    plan = plan_of(family)
    below, lengths, _ = below_of(plan, some, 1)
    for asked in ((0.0, 0.5), (0.5, 0.0)):
        model = FinetunedBackbone(plan, 1, (-1,), *asked)
        drops_some = asked[1] > 0 or family not in ("llama", "qwen2")  # those two know the weights of attention alone
        with torch.no_grad():
            still = model(below, lengths, "mean")
            assert torch.equal(still, model(below, lengths, "mean"))
            model.train()
            assert ((model(below, lengths, "mean") - still).abs().max() > 0.01) == drops_some


def test_groups_hold_every_text_once_and_are_alike():
    rng = np.random.default_rng(0)
    for lengths in (rng.integers(1, 70, 64), np.array([5]), np.full(9, 7), np.array([1, 1, 400, 380])):
        groups = group_by_length(lengths)
        assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
        places = sum(len(group) * lengths[group].max() for group in groups)
        assert places < 1.5 * lengths.sum()
    assert len(group_by_length(np.array([10, 11, 12]))) == 1
    assert [len(group) for group in group_by_length(np.array([10, 300, 10, 290]))] == [2, 2]


def test_no_group_has_more_places_than_there_is_room_for():
    groups = group_by_length(np.full(100, MAX_GROUP_TOKENS // 10))
    assert {len(group) for group in groups} == {10}
    assert [len(group) for group in group_by_length(np.array([2 * MAX_GROUP_TOKENS, 2 * MAX_GROUP_TOKENS]))] == [1, 1]


def test_rows_hold_every_token_once_and_no_more_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr("permafrost.extract.attention.varlen.MAX_GROUP_TOKENS", 60)
    lengths = np.array([3, 59, 3, 20, 90, 21, 4, 4])
    rows = rows_of(lengths, torch.device("cpu"))
    assert sorted(torch.cat([row.tokens for row in rows]).tolist()) == list(range(lengths.sum()))
    assert {len(row.tokens) for row in rows if len(row.tokens) > 60} == {90}
    assert max(len(row.groups) for row in rows) > 1
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    for row in rows:
        assert (row.tokens - row.positions).tolist() == starts[row.tokens].tolist()
        values = torch.randn(len(row.tokens), 2)
        assert torch.equal(torch.cat([group.packed(group.padded(values)) for group in row.groups]), values)


@FAMILY
def test_what_takes_several_rows_is_the_same(family, plan_of, below_of, some, monkeypatch):
    model = FinetunedBackbone(plan_of(family), 1)
    below, lengths, _ = below_of(plan_of(family), some, 1)
    with torch.no_grad():
        expected = {view: model(below, lengths, view) for view in ("tokens", "max")}
        monkeypatch.setattr("permafrost.extract.attention.varlen.MAX_GROUP_TOKENS", 30)
        for view, states in expected.items():
            assert_close(model(below, lengths, view), states)


@FAMILY
def test_ids_are_those_that_the_token_view_has(family, plan_of, below_of, texts, tmp_path):
    plan = plan_of(family)
    batch, tokens = read_token_ids(plan, texts)
    stored = Extractor(plan, ExtractSpec(cache=str(tmp_path / "cache"), device="cpu"))(texts, {"tokens": (0,)})[
        "tokens"
    ]
    for mine, theirs in (
        (batch.ids, stored.ids),
        (tokens.spans, stored.spans),
        (tokens.offsets, stored.offsets),
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert batch.token_type_ids is None
    some = np.array([3, 0, 3])
    taken, _ = batch.rows(some)
    np.testing.assert_array_equal(taken, stored.select(some).ids)


def test_windows_of_two_segments_come_one_after_another(plan_of, some):
    plan = plan_of("bert", max_tokens=16, truncation="windows", stride=2)
    pairs = [Segments("the dog", " ".join(some[:3])), Segments("the dog", "it runs")]
    batch, tokens = read_token_ids(plan, pairs)
    assert tokens.starts.tolist() == [0, len(tokens.offsets) - 2, len(tokens.offsets) - 1]
    assert tokens.starts[1] > 1
    ids, kinds = batch.rows(np.arange(tokens.starts[1], tokens.starts[2]))
    assert kinds.tolist() == [0] * 4 + [1] * 3
    np.testing.assert_array_equal(ids, read_token_ids(plan, pairs[1:])[0].ids)


def test_ids_are_of_texts_as_the_plan_has_them(plan_of):
    plan = plan_of("bert", views=("mean",), rewording=("lower_case",))
    assert read_token_ids(plan, ["The dog ."])[0].ids.tolist() == read_token_ids(plan, ["the dog ."])[0].ids.tolist()
    with pytest.raises(TextError, match=r"1 texts exceed plan.max_tokens = 4, the longest has 6 tokens"):
        read_token_ids(plan_of("bert", max_tokens=4, truncation="refuse"), ["the dog runs over"])


@pytest.mark.parametrize("more", [{"template": "so: {text}"}, {"rewording": ("lower_case",)}])
def test_two_segments_have_no_template_and_are_not_reworded(more, plan_of):
    with pytest.raises(SpecError, match="is for texts of one segment, and this corpus has texts of two"):
        read_token_ids(plan_of("bert", views=("mean",), **more), [Segments("the dog", "it runs")])


def test_a_tokenizer_of_another_model_is_refused(plan_of, tiny, texts, tmp_path):
    plan = plan_of("bert", tokenizer=str(tiny("qwen2")))
    for made in (
        lambda: read_token_ids(plan, texts),
        lambda: extract(plan, texts, ExtractSpec(cache=str(tmp_path / "other"), device="cpu")),
    ):
        with pytest.raises(
            BackboneError, match=r"gives token \d+, and '.*' knows \d+: it is of another model"
        ) as caught:
            made()
        assert "\n" not in str(caught.value)


def test_no_weights_are_read_for_ids(plan_of, monkeypatch):
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
    assert len(read_token_ids(plan_of("bert"), ["the dog"])[0].ids) == 4
