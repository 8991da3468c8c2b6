"""Upper inputs: before any training, what blocks make of what lies below them is what stage one caches of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost import stage_one
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.checks import resolve_problems
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.variants.workspace import Workspace
from tests.support.bench import pairs, write
from tests.support.marks import slow_but_first
from tests.support.synthetic import layout

CUTS = (0, 1, "none")
POOLED = ("last", "text_last", "mean", "weighted_mean", "sum", "max", "cls")
FAMILIES = ("bert", "gpt2", "mpnet")
WINDOWS = {"truncation": "windows", "max_tokens": 32, "stride": 4}
TOLERANCE = {"float32": 1e-5, "float16": 3e-3}
"""Of the largest value. In float16 half a thousandth is lost at the cut, which blocks of weights so wide make more of,
and as much at the end."""


@pytest.fixture
def workspace():
    return Workspace(stage_one.PROVIDER, NoProgress())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for a corpus and a cache: latents of a plan are extracted once, whichever tests read them."""
    return tmp_path_factory.mktemp("finetuned")


@pytest.fixture
def recipe(folder, tiny):
    """A recipe of a family and view, of pairs of texts or of questions about contexts; frozen."""

    def made(family: str = "bert", view: str = "mean", segments: bool = False, **plan) -> Recipe:
        if segments:
            corpus = CorpusSpec(name="samples-questions", limits={"train": 6, "validation": 3, "test": 3})
        else:
            path = write(folder / "pairs.csv", ["first", "second", "score", "split"], pairs())
            corpus = CorpusSpec(path=str(path), columns=("first", "second", "score"), target="score")
        settings = {"compute_dtype": "float32", "stored_dtype": "float32", "max_tokens": 32} | plan
        return Recipe(
            corpus=corpus,
            plan=CapturePlan(backbone=str(tiny(family)), views=(view,), layers=(2, 3), **settings),
            extract=ExtractSpec(cache=str(folder / "cache"), device="cpu"),
            probe=ProbeSpec(layers=(-2, -1)),
        )

    return made


def learning(recipe: Recipe, cut, beside=()) -> Recipe:
    return replace(recipe, finetune=FinetuneSpec(cut, beside))


def both(workspace: Workspace, recipe: Recipe, cut) -> tuple[ProbeInputs, ProbeInputs]:
    """What is cached of two layers, and what blocks above a cut make."""
    made = workspace.finetuned_inputs(learning(recipe, cut))
    cached = workspace.inputs(recipe, recipe.corpus)
    assert [column[1:] for column in made.columns] == [column[1:] for column in cached.columns]
    assert made.widths == cached.widths
    return cached, made


def assert_same(found: torch.Tensor, expected: torch.Tensor, dtype: str = "float32") -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, float(expected.abs().max())))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("view", slow_but_first(["mean", *sorted({*POOLED} - {"mean"})]))
def test_a_view_of_whole_texts_is_the_cached_one(view, family, cut, workspace, recipe):
    dtype = "float16" if view == "mean" else "float32"
    cached, made = both(workspace, recipe(family, view, stored_dtype=dtype), cut)
    texts = np.arange(40)[::-1].copy()
    for layer in (0, 1):
        assert_same(made.pooled(layer, texts), cached.pooled(layer, texts), dtype)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", slow_but_first(TOLERANCE))
def test_tokens_are_the_cached_ones_where_they_were_with_what_they_cover(dtype, family, cut, workspace, recipe):
    cached, made = both(workspace, recipe(family, "tokens", stored_dtype=dtype), cut)
    np.testing.assert_array_equal(made.tokens.offsets, cached.tokens.offsets)
    np.testing.assert_array_equal(made.tokens.spans, cached.tokens.spans)
    np.testing.assert_array_equal(made.tokens.starts, cached.tokens.starts)
    windows = np.array([3, 0, 7, 3])
    assert_same(made.token_states(windows, [1, 0]).detach(), cached.token_states(windows, [1, 0]), dtype)
    assert_same(made.pooled(0, windows), cached.pooled(0, windows), dtype)


@pytest.mark.parametrize("cut", slow_but_first([1, 0, "none"]))
@pytest.mark.parametrize("view", POOLED)
def test_views_leave_out_the_words_of_a_template_as_the_cached_ones_do(view, cut, workspace, recipe):
    cached, made = both(workspace, recipe("bert", view, template="then {text} , near an old stove"), cut)
    plain, _ = both(workspace, recipe("bert", view), cut)
    texts = np.arange(20)
    for layer in (0, 1):
        assert_same(made.pooled(layer, texts), cached.pooled(layer, texts))
        assert not torch.allclose(plain.pooled(layer, texts), cached.pooled(layer, texts), atol=1e-2)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_windows_of_questions_and_contexts_are_the_cached_ones(family, cut, workspace, recipe):
    cached, made = both(workspace, recipe(family, "tokens", True, **WINDOWS), cut)
    assert len(made.tokens.offsets) > len(made.tokens.starts)  # some are too long for one window
    np.testing.assert_array_equal(made.tokens.starts, cached.tokens.starts)
    np.testing.assert_array_equal(made.tokens.spans, cached.tokens.spans)
    everything = np.arange(len(made.tokens.offsets) - 1)
    assert_same(made.token_states(everything, [0, 1]).detach(), cached.token_states(everything, [0, 1]))


@pytest.mark.parametrize("view", slow_but_first(["mean", "tokens"]))
@pytest.mark.parametrize(("beside", "layers"), [("0..1", (0, 1, 2, 3)), ((-1,), (1, 2, 3)), ((0,), (0, 2, 3))])
def test_layers_at_and_below_the_cut_are_read_beside_those_above(beside, layers, view, workspace, recipe):
    made = workspace.finetuned_inputs(replace(learning(recipe("bert", view), 1, beside), probe=ProbeSpec(layers="all")))
    frozen = recipe("bert", view)
    cached = workspace.inputs(
        replace(frozen, plan=replace(frozen.plan, layers=layers), probe=ProbeSpec()), frozen.corpus
    )
    assert [column.layer for column in made.columns] == list(layers)
    assert (
        workspace.finetuned_inputs(learning(frozen, 1, beside)).columns == made.columns
    )  # probe.layers counts those above
    texts = np.arange(20)
    for place in range(len(layers)):
        assert_same(made.pooled(place, texts), cached.pooled(place, texts))


@pytest.mark.parametrize(
    ("cut", "beside", "message"),
    [
        (2, (3,), "layers at or below the cut, 2: layer 3 is out of range: there are layers 0 to 2"),
        (2, "low", "layers at or below the cut, 2: layers must be all, a list, or a range"),
        (1, (0, -2), "layers at or below the cut, 1: layers names one twice"),
        ("none", (0,), 'cut = "none" caches none; set cut to a layer'),
        ("frozen", "all", 'cut = "frozen" caches none'),
    ],
)
def test_layers_that_are_not_cached_below_the_cut_are_refused(cut, beside, message):
    with pytest.raises(SpecError, match=message):
        FinetuneSpec(cut, beside)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("view", ["mean", "tokens"])
def test_sides_and_moments_are_the_cached_ones(view, cut, workspace, recipe):
    cached, made = both(workspace, recipe("bert", view), cut)
    sides = workspace.corpus(recipe().corpus).split("train").texts[None, :9]
    for layers in ((0, 1), (1,)):
        reads = shared_reads(layout([layers], (32, 32)))
        for mine, theirs in zip(made.text_states(reads, sides), cached.text_states(reads, sides), strict=True):
            if view == "tokens":
                assert torch.equal(mine.mask, theirs.mask)
                mine, theirs = (one.values[:, one.mask] for one in (mine, theirs))
            assert_same(mine.detach(), theirs)
    texts = np.unique(sides)
    for center, scale, by_token in ((True, "layer", False), (False, "dimension", False), (True, "layer", True)):
        if by_token and view != "tokens":
            continue
        found = [one.moments(texts, center, scale, by_token) for one in (made, cached)]
        for mine, theirs in zip(*found, strict=True):
            assert_same(mine, theirs)


@pytest.mark.parametrize("cut", [0, 1, 2, "none"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("view", ["mean", "tokens"])
def test_gradients_reach_every_block_above_the_cut_and_nothing_below(view, family, cut, workspace, recipe):
    made = workspace.finetuned_inputs(replace(learning(recipe(family, view), cut), probe=ProbeSpec(layers=(-1,))))
    reads = shared_reads(layout([(0,)], (32,)))
    sides = workspace.corpus(recipe().corpus).split("train").texts[None, :9]
    found = made.text_states(reads, sides)
    values = [one.values[:, one.mask] if view == "tokens" else one for one in found]
    torch.cat(values, 1).square().mul(torch.linspace(-1, 1, 32)).sum().backward()
    reached = {name for name, part in made.blocks.named_parameters() if part.grad is not None and part.grad.any()}
    blocks = {name for name, _ in made.blocks.named_parameters() if ".layer." in name or ".h." in name}
    numbers = {int(part) for name in blocks for part in name.split(".") if part.isdigit()}
    assert numbers == set(range(0 if cut == "none" else cut, 3))
    silent = {name for name in blocks - reached if not name.endswith((".key.bias", ".attn.k.bias"))}
    assert silent == set()  # the bias of keys shifts all scores of a query alike
    assert any("embedding" in name or ".wte." in name for name in reached) == (cut == "none")
    assert {name for name, part in made.blocks.named_parameters() if not part.requires_grad}.isdisjoint(reached)


@pytest.mark.parametrize("cut", [1, "none"])
@pytest.mark.parametrize("view", ["mean", "tokens"])
def test_a_text_that_occurs_twice_in_a_batch_is_run_once(view, cut, workspace, recipe):
    made = workspace.finetuned_inputs(learning(recipe("bert", view), cut))
    lengths = (made.tokens or made.below.tokens).lengths
    ran: list[int] = []
    made.blocks.register_forward_pre_hook(lambda _, given: ran.append(sum(given[1])))
    sides = np.array([[[4, 2], [2, 4], [4, 4], [5, 2]]])
    found = made.text_states(shared_reads(layout([(0, 1)], (32, 32))), sides)
    assert sum(ran) == lengths[[2, 4, 5]].sum()
    first, second = ([one.values[:, row, : lengths[4]] for row, one in ((0, found[0]), (1, found[1]))]
                     if view == "tokens" else [found[0][:, 0], found[1][:, 1]])  # fmt: skip
    assert torch.equal(first, second)


def test_what_is_run_at_once_where_nothing_is_learnt_is_counted_in_tokens(workspace, recipe):
    made = workspace.finetuned_inputs(learning(recipe(), 1))
    assert made.longest == made.below.tokens.lengths.max() > 1


@pytest.mark.parametrize("cut", [1, "none"])
def test_a_view_of_whole_texts_is_not_made_of_windows(cut, workspace, recipe):
    with pytest.raises(
        SpecError, match=r'a view of whole texts cannot be made of windows; set plan\.truncation = "cut"'
    ):
        workspace.finetuned_inputs(learning(recipe("bert", "mean", True, **WINDOWS), cut))


def test_views_of_whole_questions_and_contexts_are_refused_before_anything_runs(workspace, recipe):
    one = learning(recipe("bert", "mean", True, **WINDOWS), 1)
    with pytest.raises(SpecError, match="reads tokens, and the probe is given mean"):
        resolve_problems({"one": one}, workspace)


def test_members_that_take_rows_in_orders_of_their_own_are_not_run(workspace, recipe):
    made = workspace.finetuned_inputs(learning(recipe(), 1))
    with pytest.raises(ValueError, match="rows in one order"):
        made.text_states(shared_reads(layout([(0, 1)], (32, 32))), np.zeros((2, 3, 2), np.int64))
