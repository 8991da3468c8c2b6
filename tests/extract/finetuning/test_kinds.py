"""Many kinds of models: blocks above a cut have the states and the gradients of the whole model, or are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.extract.architecture.discover import watched
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.finetuning import cut_proof
from permafrost.extract.finetuning.cut import Batching, CutRoad
from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone
from permafrost.extract.finetuning.proven_cut import check_cut, proven_road
from tests.support.models.backbones import save_random, save_tokenizer, word_tokenizer
from tests.support.models.kinds import BLOCKS, CHANGES, ROADS, made_texts, tiny_config

KINDS = [kind for kinds in ROADS.values() for kind in kinds.split() if kind != "qwen2"]  # it has a tokenizer of its own
QUICK = ("gemma3_text", "modernbert", "t5", "albert")
REFUSED = {
    "gemma4_text": "their states differ",  # each block is given embeddings of the tokens
    "flaubert": "their states differ",  # what enters a block is not all that is handed on
    "xlm": "their states differ",
    "rwkv": "itself changes its weights",
    "fsmt": "cannot be run so",
}
"""Kinds that cannot be cut anywhere, with the reason."""

TOLERANCE = 2e-5
"""As a share of the largest value, or of 1: the rounding of float32 in the blocks of tiny models."""


def cases(kinds: Any) -> list[Any]:
    return [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in kinds]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(word_tokenizer(special=False), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def plan_of(tokenizer: Path, tmp_path: Path) -> Any:
    def made(kind: str) -> CapturePlan:
        backbone = save_random(tiny_config(kind, **CHANGES.get(kind, {})), tmp_path / kind)
        settings: dict[str, Any] = {"compute_dtype": "float32", "stored_dtype": "float32", "views": ("tokens",)}
        plan = CapturePlan(backbone=str(backbone), tokenizer=str(tokenizer), max_tokens=40, **settings)
        return replace(plan, final_norm=bool(find_backbone(plan).architecture.tail))

    return made


def stored(plan: CapturePlan, folder: Path, layers: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    spec, texts = ExtractSpec(cache=str(folder / "cache"), device="cpu"), made_texts()
    latents = extract(replace(plan, layers=layers), texts, spec).store.read_tokens(texts, list(layers))
    return torch.from_numpy(latents.states), latents.lengths.tolist()


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("kind", cases(KINDS))
def test_states_above_a_cut_are_those_of_stage_one_or_the_kind_is_refused(kind, plan_of, tmp_path):
    plan, cut, cache = plan_of(kind), 2, str(tmp_path / "cache")
    if kind in REFUSED:
        for each in (0, cut):
            with pytest.raises(SpecError, match=rf"finetune.cut.*of the kind '{kind}'.*{REFUSED[kind]}.*Set finetune"):
                check_cut(plan, each, cache=cache)
        return
    if kind == "albert":
        with pytest.raises(SpecError, match=r"'albert', cannot be trained: they share their weights.* = 0 or "):
            check_cut(plan, cut, cache=cache)
        cut = 0
    states, lengths = stored(plan, tmp_path, tuple(range(BLOCKS + 1)))
    model = FinetunedBackbone(plan, cut, "all", dropout=0.1, cache=cache)
    with torch.no_grad():
        assert_close(model(states[cut : cut + 1], lengths, "tokens"), states[cut + 1 :])


LEARNING = {"gemma3_text": 2, "modernbert": 2, "t5": 2, "deberta-v2": 0, "albert": 0, "olmoe": 2, "mamba": 1} | {
    "deberta": 2, "qwen3_next": 1, "xlm-roberta": 2, "bart": 1, "mistral": 1,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "cut"), [pytest.param(*case.values, cut, marks=case.marks) for case, cut in zip(
    cases(LEARNING), LEARNING.values(), strict=True)])  # fmt: skip
def test_gradients_are_those_of_the_whole_model(kind, cut, plan_of, tmp_path):
    plan = plan_of(kind)
    states, lengths = stored(plan, tmp_path, (cut,))
    weights = torch.randn(sum(lengths), states.shape[-1])
    model = FinetunedBackbone(plan, cut, dropout=0.1, cache=str(tmp_path / "cache"))
    (model(states, lengths, "tokens")[0] * weights).mean().backward()

    backbone = load_backbone(find_backbone(plan), plan, "float32", "cpu")
    tower: Any = backbone.model.requires_grad_(True)
    tokens = [torch.tensor([backbone.tokenizer.encode(text).ids[:40]]) for text in made_texts()]
    outputs = []
    for ids in tokens:
        with watched(tower, backbone.source.architecture.blocks) as watch:
            output = tower(input_ids=ids)[0]
        outputs.append((output if plan.final_norm else watch.leaving[-1])[0])
    (torch.cat(outputs) * weights).mean().backward()
    expected = dict(tower.named_parameters())
    learning = {name: weight.grad for name, weight in model.blocks.model.named_parameters() if weight.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in learning.values())
    for name, gradient in learning.items():
        assert (gradient - expected[name].grad).abs().max() <= 1e-4 * largest, name
    blocks = {name for name, weight in expected.items() if weight.grad is not None and weight.grad.abs().max() > 1e-6}
    if cut == 0:  # all but the embeddings
        assert blocks - set(learning) <= {name for name in blocks if "embed" in name and "rel_" not in name}
    else:
        assert len(learning) >= len(blocks) * (BLOCKS - cut) / BLOCKS / 2


def test_a_kind_that_does_not_run_in_bfloat16_says_what_to_set(plan_of, tmp_path):
    states, lengths = stored(plan_of("deberta"), tmp_path, (2,))
    model = FinetunedBackbone(plan_of("deberta"), 2, cache=str(tmp_path / "cache"))
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(SpecError, match=r"of the kind 'deberta', do not run in bfloat16 .* train.compute_dtype = "),
    ):
        model(states, lengths, "tokens")


SAVED = ("gemma3_text", "t5", "deberta-v2", "albert", "olmoe", "mamba", "modernbert", "clip")


@pytest.mark.parametrize("kind", cases(SAVED))
def test_what_was_trained_is_saved_as_an_ordinary_model(kind, plan_of, tmp_path):
    plan, cut, cache = plan_of(kind), 0 if kind == "albert" else 2, str(tmp_path / "cache")
    states, lengths = stored(plan, tmp_path, (cut,))
    model = FinetunedBackbone(plan, cut, dropout=0.1, cache=cache)
    with torch.no_grad():
        before = model(states, lengths, "mean")
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        expected = model(states, lengths, "mean")
    model.save(tmp_path / "saved")
    saved = replace(plan, backbone=str(tmp_path / "saved"), tokenizer="", views=("mean",))
    texts = made_texts()
    found = Extractor(saved, ExtractSpec(cache=cache, device="cpu"))(texts, {"mean": (BLOCKS,)})["mean"]
    assert_close(torch.from_numpy(found), expected)
    assert (before - expected).abs().max() > 0.01


@pytest.mark.parametrize(
    ("kind", "road"),
    [
        ("t5", CutRoad(batching=Batching.PADDED, runs_first=True)),  # its first block makes the position bias of all
        ("gemma3_text", CutRoad(batching=Batching.ROWS)),
        ("qwen3_next", CutRoad(batching=Batching.PADDED)),  # recurrent blocks would go on from text to text
        ("fnet", CutRoad(batching=Batching.EQUAL)),
    ],
)
def test_the_road_is_proven_once(kind, road, plan_of, tmp_path, monkeypatch):
    plan = plan_of(kind)
    source = find_backbone(plan)
    assert proven_road(source, 2, plan.final_norm, str(tmp_path)) == road
    FinetunedBackbone(plan, 2, cache=str(tmp_path))
    monkeypatch.setattr(Memo, "write", lambda *_: pytest.fail("it was proven again"))
    assert proven_road(source, 3, plan.final_norm, str(tmp_path)) == road
    FinetunedBackbone(plan, 2, cache=str(tmp_path))


def test_layers_that_were_not_compared_before_are(plan_of, tmp_path):
    plan, compared = plan_of("t5"), list[tuple[int, ...]]()
    for layers in ((3, 4), (3,), (3,)):
        blocks = FinetunedBackbone(plan, 2, layers, cache=str(tmp_path)).blocks
        compared += [blocks.layers] * bool(blocks._check._texts)
    assert compared == [(3, 4), (3,)]


def test_a_cut_of_the_backbone_itself_that_is_wrong_is_refused(plan_of, tmp_path, monkeypatch):
    """The proof on a small model is passed over, as if that did not show what is wrong."""
    monkeypatch.setattr(cut_proof, "choose_road", lambda *_: CutRoad(batching=Batching.PADDED))
    message = r"cut = 2: the blocks of .*, of the kind 't5', cannot be trained from there: in float32 .* at layer 4"
    with pytest.raises(SpecError, match=message) as caught:
        FinetunedBackbone(plan_of("t5"), 2, cache=str(tmp_path))
    assert "\n" not in str(caught.value)
