"""Tiny random models of many kinds: every layer and view is that of each text alone, or the kind is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.extract.backbones.configuration import BackboneError
from permafrost.extract.backbones.discover import call, watched
from permafrost.extract.capture.roads import Road
from permafrost.extract.extraction import Extractor
from tests.support.backbones import WORDS, save_random, save_tokenizer, word_tokenizer
from tests.support.kinds import tiny_config

ROADS: dict[Road, str] = {
    Road.TREE: """
        gpt2 opt llama gpt_neox gptj codegen falcon phi phi3 stablelm starcoder2 qwen2 qwen3 qwen3_moe gemma
        olmo olmo2 olmoe granite granitemoe cohere mixtral deepseek_v2 deepseek_v3 nemotron glm glm4 smollm3 xglm biogpt
        ctrl jetmoe arcee helium persimmon
    """,
    Road.WINDOWED_TREE: "mistral",
    Road.TYPED_TREE: """
        gemma2 gemma3 gemma3_text gemma4_text olmo3 cohere2 gpt_oss exaone4 llama4_text modernbert-decoder
    """,
    Road.UNMASKED: """
        bloom mpt gpt_neo openai-gpt clip clip_text_model qwen3_next qwen3_5_text mamba mamba2 falcon_mamba jamba bamba
        lfm2 recurrent_gemma falcon_h1 rwkv
    """,
    Road.PADDED: """
        bert roberta distilbert mpnet albert electra ernie xlm-roberta camembert rembert roformer megatron-bert deberta
        deberta-v2 modernbert nomic_bert eurobert xlm flaubert big_bird ibert luke t5 mt5 umt5 longt5 bart mbart pegasus
        blenderbot marian m2m_100 switch_transformers
    """,
    Road.EQUAL: "fnet convbert nystromformer yoso mobilebert xlnet prophetnet",
}
"""The fastest road that is exact for a kind."""

QUICK = ("llama", "mistral", "gemma3_text", "bloom", "bert", "fnet")
"""A kind of each road; what is tried on further ones is slow."""

CASES = [
    pytest.param(kind, road, marks=() if kind in QUICK else pytest.mark.slow)
    for road, kinds in ROADS.items()
    for kind in kinds.split()
]

REFUSED = {
    "gemma3n_text": "several streams or skips tokens",
    "deepseek_v4": "several streams or skips tokens",
    "longformer": "several streams or skips tokens",  # it pads texts to whole windows
    "led": "several streams or skips tokens",
    "canine": "none of its modules is called once for each of its 2 blocks",  # it has blocks before and after those
    "squeezebert": "none of its modules is called once for each of its 2 blocks",
    "vit": "it is no model of text",
    "wav2vec2": "it is no model of text",
}

CHANGES: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16, "attn_layer_indices": [1, 3]},  # heads x width = 2 x hidden_size
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2},  # as many as heads; has no default
    "deepseek_v3": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_ssm": 32},
    "gemma3n_text": {"num_kv_shared_layers": 0},  # of more blocks than there are
    "gemma4_text": {"per_layer_config": {}},  # likewise
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},  # else no block has attention
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},  # likewise, no convolution
    "mamba2": {"head_dim": 16, "n_groups": 1},  # heads x width = 2 x hidden_size
    "nemotron": {"num_key_value_heads": 2},  # has no default
}
"""What the generic rules for sizes do not know of a kind."""

TOLERANCE = 1e-5
"""As a share of the largest value, or of 1: the rounding of float32 in the blocks of tiny models."""

SCANNED = {"jamba": 1e-4}
"""Kinds with a larger tolerance: rows of other lengths are summed up in another order, and this is fed back."""


def made_texts() -> list[str]:
    """Texts of 1 to 40 words, longer than every window; some begin alike."""
    rng = np.random.default_rng(0)
    alone = [" ".join(rng.choice(WORDS, size)) for size in (1, 2, 5, 9, 14, 20, 33, 40)]
    return list(dict.fromkeys([*alone, *(" ".join(WORDS[:size]) for size in (2, 5, 16)), " ".join(WORDS[:5] * 3)]))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that no kind of model changes, as no ``config.json`` is beside it."""
    return save_tokenizer(word_tokenizer(special=False), tmp_path_factory.mktemp("tokenizer"))


def extractor_of(kind: str, tokenizer: Path, folder: Path) -> Extractor:
    settings: dict[str, Any] = {"compute_dtype": "float32", "stored_dtype": "float32", "views": ("last", "mean")}
    backbone = save_random(tiny_config(kind, **CHANGES.get(kind, {})), folder / "model")
    plan = CapturePlan(backbone=str(backbone), tokenizer=str(tokenizer), max_tokens=40, **settings)
    return Extractor(plan, ExtractSpec(cache=str(folder / "cache"), device="cpu"))


def states_alone(tower: Any, architecture: Any, ids: list[int]) -> list[np.ndarray]:
    """[layer] hidden states ``[token, width]`` of a text: those that transformers reports, else those in its blocks."""
    with watched(tower, architecture.blocks) as watch:
        output = call(tower, input_ids=torch.tensor([ids]), output_hidden_states=True)
    below = output.hidden_states[:-1] if architecture.reported else watch.entering
    layers = [*below, watch.leaving[-1] if architecture.chained else output[0]]
    return [(states.transpose(0, 1) if architecture.tokens_first else states)[0].numpy() for states in layers]


@pytest.mark.parametrize(("kind", "road"), CASES)
def test_every_layer_and_view_of_a_kind_is_that_of_the_text_alone(kind, road, tokenizer, tmp_path):
    from transformers import AutoModel

    extractor, texts = extractor_of(kind, tokenizer, tmp_path), made_texts()
    architecture = extractor.backbone.source.architecture
    latents = extractor(texts, {view: tuple(range(architecture.layers)) for view in ("last", "mean")})
    tower = AutoModel.from_pretrained(tmp_path / "model").eval().get_submodule(architecture.tower)
    for number, text in enumerate(texts):
        ids = extractor.backbone.tokenizer.encode(text).ids[:40]
        for layer, states in enumerate(states_alone(tower, architecture, ids)):
            for view, expected in (("last", states[-1]), ("mean", states.mean(0))):
                error = np.abs(latents[view][layer, number] - expected).max() / max(1, np.abs(expected).max())
                assert error <= SCANNED.get(kind, TOLERANCE), (view, layer, text)
    assert extractor._runner.road is road


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_that_is_refused_is_so_before_any_text(kind, tokenizer, tmp_path):
    with pytest.raises(BackboneError, match=REFUSED[kind]):
        extractor_of(kind, tokenizer, tmp_path)
