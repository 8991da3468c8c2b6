"""Top blocks: fed from the store they give, and learn, what the whole model does with its lower part frozen."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.data.text import Segments
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.finetuning.top_blocks import TopBlocks
from permafrost.extract.tokenization.tokenize import tokenize
from tests.support.models.families import FAMILIES

FAMILY = pytest.mark.parametrize("family", FAMILIES)
CUTS = (0, 1, 2, "none")
DROPOUT = 0.3
BELOW = {"bert": "embeddings", "roberta": "embeddings", "distilbert": "embeddings", "mpnet": "embeddings"} | {
    "gpt2": "wte wpe drop", "qwen2": "embed_tokens", "llama": "embed_tokens"
}  # fmt: skip


@pytest.fixture
def some(texts: list[str]) -> list[str]:
    return texts[:10]


@pytest.fixture
def plan_of(tiny: Any, tmp_path: Path) -> Callable[..., CapturePlan]:
    """Plan of a tiny backbone of a family, with a dropout of its own where asked for."""

    def made(family: str, dropout: float | None = None, **more: Any) -> CapturePlan:
        folder = tiny(family)
        if dropout is not None:
            folder = shutil.copytree(folder, tmp_path / f"{family}-dropping")
            config = json.loads((folder / "config.json").read_text())
            changed = {key: dropout for key, value in config.items() if "drop" in key and value is not None}
            (folder / "config.json").write_text(json.dumps(config | changed))
        settings: dict[str, Any] = {"compute_dtype": "float32", "stored_dtype": "float32", "max_tokens": 32}
        settings["final_norm"] = bool(FAMILIES[family].final_norm)
        return CapturePlan(backbone=str(folder), views=("tokens",), **(settings | more))

    return made


@pytest.fixture
def below_of(tmp_path: Path) -> Callable[..., tuple[Tensor, Tensor]]:
    """Plan, texts, cut -> what lies below the cut as the store has it, padded with NaN; and the mask."""

    def read(plan: CapturePlan, texts: list[Any], cut: Any) -> tuple[Tensor, Tensor]:
        layer = 0 if cut == "none" else cut
        store = extract(plan, texts, ExtractSpec(cache=str(tmp_path / "cache"), device="cpu")).store
        tokens = store.read_tokens(texts, [layer])
        flat = torch.from_numpy(tokens.ids).long() if cut == "none" else torch.from_numpy(tokens.states[0])
        nothing = -1 if cut == "none" else float("nan")
        parts = flat.split(tokens.lengths.tolist())
        real = torch.arange(max(map(len, parts))) < torch.tensor(tokens.lengths)[:, None]
        return nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=nothing), real

    return read


def whole(plan: CapturePlan) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(plan.backbone, dtype=torch.float32).eval()


def all_layers(model: Any, ids: Tensor, real: Tensor, final_norm: bool) -> Tensor:
    """``[layer, text, token, width]`` by transformers alone."""
    outputs: list[Any] = []
    blocks = model.get_submodule(FAMILIES[model.config.model_type].blocks)
    handle = blocks[-1].register_forward_hook(lambda _, __, output: outputs.append(output))
    states = model(ids.clamp(min=0), attention_mask=real.long(), output_hidden_states=True).hidden_states
    handle.remove()
    last = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    return torch.stack([*states[:-1], states[-1] if final_norm else last])


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    deviation = (found - expected).detach().abs().max()
    assert deviation <= 1e-5 * max(1, float(expected.detach().abs().max()))


@pytest.mark.parametrize(
    ("family", "final_norm"),
    [(name, norm) for name, family in FAMILIES.items() for norm in (False, True)[: 1 + bool(family.final_norm)]],
)
def test_every_layer_above_every_cut_is_that_of_the_whole_model(family, final_norm, plan_of, below_of, some):
    plan = plan_of(family, final_norm=final_norm)
    ids, real = below_of(plan, some, "none")
    with torch.no_grad():
        expected = all_layers(whole(plan), ids, real, final_norm)
        for cut in CUTS:
            blocks = TopBlocks(plan, cut, "all")
            found = blocks(*below_of(plan, some, cut))
            assert blocks.layers == tuple(range(4))[-len(found) :]
            assert len(found) == (3 if cut == "none" else 3 - cut)
            assert_close(found[:, real], expected[-len(found) :, real])


def steps(model: nn.Module, states: Callable[[], Tensor], real: Tensor) -> None:
    """A few steps towards states drawn at random."""
    torch.manual_seed(1)
    target = torch.randn(*real.shape, 32)
    # The bias of a key has no gradient but for rounding, which Adam with its usual eps would blow up to whole steps.
    moved = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(moved, lr=1e-3, eps=1e-4, weight_decay=0.01)
    for _ in range(4):
        optimiser.zero_grad()
        ((states() - target)[real] ** 2).mean().backward()
        optimiser.step()


def freeze(model: Any, family: str, cut: int) -> Iterator[nn.Module]:
    """The parts of a whole model that a cut freezes."""
    yield from (model.get_submodule(name) for name in BELOW[family].split())
    yield from model.get_submodule(FAMILIES[family].blocks)[:cut]
    if family == "mpnet" and cut:  # all blocks share it: were it trained, frozen blocks would change
        yield model.encoder.relative_attention_bias


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@FAMILY
def test_training_gives_the_weights_that_the_whole_model_gets_with_its_lower_part_frozen(
    family, cut, plan_of, below_of, some
):
    """With the same dropout in the same places: what is frozen has none, or the draws would not be the same."""
    plan = plan_of(family, DROPOUT)
    below, real = below_of(plan, some, cut)
    ids, _ = below_of(plan, some, "none")
    blocks = TopBlocks(plan, cut).train()
    steps(blocks, lambda: blocks(below, real)[0], real)

    model = whole(plan).train()
    for part in freeze(model, family, cut) if cut != "none" else ():
        part.eval().requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    mask = real.long()
    steps(model, lambda: model(ids.clamp(min=0), attention_mask=mask).last_hidden_state, real)

    trained, expected = blocks.model.state_dict(), model.state_dict()
    assert set(trained) <= set(expected)
    moved = {name for name in expected if not torch.equal(before[name], expected[name])}
    free = {name: weight.dim() for name, weight in blocks.model.named_parameters() if weight.requires_grad}
    assert {name for name, axes in free.items() if axes > 1} <= moved <= set(free)
    for name, weight in trained.items():
        assert_close(weight, expected[name])


@FAMILY
def test_dropout_is_that_of_the_top_blocks_alone(family, plan_of, below_of, some):
    plan = plan_of(family, 0.5)
    below, real = below_of(plan, some, 0)
    blocks = TopBlocks(plan, 0)
    assert torch.equal(blocks(below, real), blocks(below, real))
    blocks.train()
    entered: list[Tensor] = []
    first = next(blocks.model.get_submodule(FAMILIES[family].blocks).children())
    first.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    assert not torch.equal(blocks(below, real)[:, real], blocks(below, real)[:, real])
    assert torch.equal(entered[0][real], below[real])


@FAMILY
def test_padding_changes_nothing_whatever_it_holds(family, plan_of, below_of, some):
    plan = plan_of(family)
    for cut in (1, "none"):
        below, real = below_of(plan, some, cut)
        blocks = TopBlocks(plan, cut)
        found = blocks(below, real)
        assert torch.equal(blocks(below.masked_fill(~real.view(*real.shape, *[1] * (below.dim() - 2)), 3), real), found)
        short = [index for index, length in enumerate(real.sum(1).tolist()) if length < real.shape[1]]
        length = int(real[short[0]].sum())
        alone = blocks(below[short[:1], :length], real[short[:1], :length])
        assert_close(alone[0, 0], found[0, short[0], :length])
        found[:, real].sum().backward()
        assert all(weight.grad.isfinite().all() for weight in blocks.parameters() if weight.grad is not None)


def test_only_what_is_trained_is_in_memory(plan_of):
    blocks = TopBlocks(plan_of("gpt2", final_norm=False), 1, (2,))
    assert {name.split(".")[1:3] == ["h", "1"] for name, _ in blocks.named_parameters()} == {True}
    norm = TopBlocks(plan_of("gpt2"), 2)
    assert {name.split(".")[1] for name, _ in norm.named_parameters()} == {"h", "ln_f"}
    assert all(weight.requires_grad for weight in (*blocks.parameters(), *norm.parameters()))


def test_what_frozen_blocks_share_with_trained_ones_is_frozen(plan_of):
    for cut, trained in ((0, True), (1, False), ("none", True)):
        blocks = TopBlocks(plan_of("mpnet"), cut)
        assert blocks.model.encoder.relative_attention_bias.weight.requires_grad is trained


def test_two_segments_run_from_ids_when_told_which_is_which(plan_of, below_of, some):
    plan = plan_of("bert")
    pairs = [Segments(first, second) for first, second in zip(some[:3], some[3:6], strict=True)]
    ids, real = below_of(plan, pairs, "none")
    tokens = tokenize(load_tokenizer(Path(plan.backbone)), pairs, "{text}", 32)
    kinds = torch.zeros_like(ids)
    kinds[real] = torch.from_numpy(tokens.token_type_ids).long()
    with torch.inference_mode():
        stored = below_of(plan, pairs, 3)[0]
        blocks = TopBlocks(plan, "none")
        assert_close(blocks(ids, real, kinds)[0][real], stored[real])
        assert (blocks(ids, real)[0][real] - stored[real]).abs().max() > 0.01


def nudged(blocks: TopBlocks) -> TopBlocks:
    """As if trained."""
    with torch.no_grad():
        for weight in blocks.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    return blocks


@pytest.mark.parametrize("cut", [1, "none"])
@FAMILY
def test_what_was_trained_is_saved_as_an_ordinary_model(family, cut, plan_of, below_of, some, tmp_path):
    plan = plan_of(family)
    below, real = below_of(plan, some, cut)
    blocks = nudged(TopBlocks(plan, cut))
    folder = tmp_path / "saved" / "model"
    blocks.save(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    with torch.inference_mode():
        made = blocks(below, real)[0][real]
        saved = replace(plan, backbone=str(folder))
        ids = below_of(plan, some, "none")[0]
        assert_close(whole(saved)(ids.clamp(min=0), attention_mask=real.long()).last_hidden_state[real], made)
        extractor = Extractor(saved, ExtractSpec(cache=str(tmp_path / "cache"), device="cpu"))
        assert_close(torch.from_numpy(extractor(some, {"tokens": (3,)})["tokens"].states[0]), made)
    before, after, own = whole(plan).state_dict(), whole(saved).state_dict(), dict(blocks.model.named_parameters())
    for name, weight in after.items():
        if "pooler" not in name:
            assert torch.equal(weight, own.get(name, before[name])), name
    config, old = (json.loads((Path(plan.backbone) / "config.json").read_text()) for plan in (saved, plan))
    assert {key for key in old if config[key] != old[key]} <= {"dtype", "transformers_version"}


def test_an_untrained_backbone_is_saved_too(plan_of, some, tmp_path):
    plan = plan_of("gpt2", init="random", init_seed=3)
    blocks = nudged(TopBlocks(plan, 2))
    blocks.save(tmp_path / "saved")
    spec = ExtractSpec(cache=str(tmp_path / "cache"), device="cpu")
    columns = {"tokens": (2,)}
    saved = Extractor(replace(plan, backbone=str(tmp_path / "saved"), init="pretrained"), spec)(some, columns)
    assert_close(
        torch.from_numpy(saved["tokens"].states),
        torch.from_numpy(Extractor(plan, spec)(some, columns)["tokens"].states),
    )


def test_a_model_is_whole_or_absent_and_never_written_over(plan_of, tmp_path, monkeypatch):
    blocks = TopBlocks(plan_of("bert"), 1)
    folder = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            blocks.save(folder)
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()
    with pytest.raises(BackboneError, match=r"new exists already, and a model is never written over"):
        blocks.save(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("cut", [-1, 3, 12])
def test_a_cut_outside_the_model_is_refused(cut, plan_of):
    with pytest.raises(SpecError, match=rf"cut = {cut}, but .* has 3 blocks: .*to 2, or is \"none\""):
        TopBlocks(plan_of("bert"), cut)


def test_what_top_blocks_cannot_run_on_is_refused(plan_of):
    plan = plan_of("bert")
    with pytest.raises(SpecError, match="layer 1 is out of range: there are layers 2 to 3"):
        TopBlocks(plan, 1, (1, 3))
    with pytest.raises(SpecError, match=r"names \{text\} twice"):
        TopBlocks(replace(plan, template="{text} . {text}"), 1)
    blocks, whole_model, real = TopBlocks(plan, 1), TopBlocks(plan, "none"), torch.ones(2, 5, dtype=torch.bool)
    states = torch.zeros(2, 5, 32)
    broken = states.clone()
    broken[1, 4, 7] = float("nan")
    late = real.clone()
    late[0, 0] = False
    for module, below, mask, message in (
        (blocks, states[..., :16], real, r"has states \[text, token, 32\], and these are \[2, 5, 16\]"),
        (blocks, torch.zeros(2, 5, dtype=torch.int64), real, r"has states \[text, token, 32\], and these are \[2, 5\]"),
        (blocks, broken, real, "the states of layer 1 of .* hold NaN or infinity"),
        (blocks, states, late, "pad texts on the right"),
        (blocks, states, real[:, :4], r"these are \[2, 5\] tokens, and their mask is \[2, 4\]"),
        (whole_model, states, real, "from token ids"),
    ):
        with pytest.raises(BackboneError, match=message) as caught:
            module(below, mask)
        assert "\n" not in str(caught.value)
