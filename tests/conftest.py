"""What several tests share: tiny backbones of every family, real corpora and models where they are."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers side by side; read when torch is first imported

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from data.plan import Identity
from data.shard import Block

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
REAL_MODELS = SHARED / "models"
DEVICE = os.environ.get("PERMAFROST_DEVICE", "cpu")
"""Where the self-check is tried."""

REAL_DATA = Path(os.environ.get("PERMAFROST_DATA", SHARED / "data"))

WORDS = ["the", "a", "small", "brown", "dog", "runs", "over", "green", "grass", "and", "then"]
WORDS += ["it", "sleeps", "near", "an", "old", "warm", "stove", "in", "winter"]
SIZES = {"gpt2": {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 64}} | {
    "distilbert": {"n_layers": 3, "dim": 32, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
}
USUAL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
GROUPED = {"num_key_value_heads": 2}
EXTRA = {"qwen2": GROUPED, "llama": GROUPED, "roberta": {"pad_token_id": 1}, "mpnet": {"pad_token_id": 1}}


def tiny_folder(family: str, folder: Path, seed: int = 0, width: int = 32, blocks: int = 3) -> Path:
    """A model folder as ``save_pretrained`` writes it: a tiny random backbone of a family, with a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    tokenizer = byte_tokenizer() if family == "qwen2" else word_tokenizer(special=family != "gpt2")
    sizes = SIZES.get(family, USUAL | EXTRA.get(family, {}))
    sizes = sizes | {name: width for name in ("n_embd", "dim", "hidden_size") if name in sizes}
    sizes |= {name: blocks for name in ("n_layer", "n_layers", "num_hidden_layers") if name in sizes}
    config = AutoConfig.for_model(family, vocab_size=tokenizer.get_vocab_size(), **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
        for name, weight in model.named_parameters():  # as wide as trained weights, so that blocks do something
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
            elif "bias" in name:
                torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return folder


def word_tokenizer(special: bool) -> Tokenizer:
    """One token a word; with ``special``, a token at each end."""
    known = ["<s>", "<pad>", "</s>", "<unk>", *WORDS, *(word.title() for word in WORDS), ".", ","]
    tokenizer = Tokenizer(models.WordLevel({word: code for code, word in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        ends = [("<s>", 0), ("</s>", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
        )
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """Byte-level BPE: the kind that transformers insists on for Qwen2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    return tokenizer


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test draws the same numbers from torch, whichever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Family name, width and number of blocks -> folder of a tiny random backbone, made once a session."""
    made: dict[tuple[str, int, int], Path] = {}

    def folder(family: str, width: int = 32, blocks: int = 3) -> Path:
        sizes = width, blocks
        if (family, *sizes) not in made:
            made[family, *sizes] = tiny_folder(family, tmp_path_factory.mktemp(family), 0, *sizes)
        return made[family, *sizes]

    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Any:
    """A bench on which ``run pairs`` is done, with two seeds, and what it said."""
    from bench import Bench

    import pipeline

    bench = Bench(tmp_path_factory.mktemp("finished"), tiny("bert"))
    return bench, pipeline.run("pairs", bench.of_pairs("train.seeds=0,1"), bench.runs)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no figures and few bootstrap samples, which take longer than all else of a small one."""
    monkeypatch.setattr("probes.runs.write_report", lambda folder: None)
    monkeypatch.setattr("probes.metrics.RESAMPLES", 50)


@pytest.fixture
def texts() -> list[str]:
    """Texts of 1 to 24 words; many begin alike, one is the beginning of another, two differ only in their end."""
    rng = np.random.default_rng(0)
    starts = [WORDS[:6], WORDS[3:5], WORDS[8:9]]
    made = [" ".join(starts[i % 3] + list(rng.choice(WORDS, rng.integers(0, 18)))) for i in range(40)]
    return list(
        dict.fromkeys([*made, " ".join(WORDS[:6]), " ".join(WORDS[:6]) + " winter", "dog", "The dog , asleep ."])
    )


@pytest.fixture
def identity() -> Identity:
    return Identity("w", "t", "{text}", "[]", 16, "float32", "float32", False)


def block_of(
    keys: Any, columns: dict[str, tuple[int, ...]], width: int = 4, dtype: str = "float32", seed: int = 0
) -> Block:
    """A block of random latents under given keys."""
    rng = np.random.default_rng(seed)
    latents = {v: rng.normal(size=(len(ls), len(keys), width)).astype(dtype) for v, ls in columns.items()}
    return Block(keys, np.arange(1, len(keys) + 1, dtype=np.int32), columns, latents)


def real_data(name: str) -> Path:
    """The folder of a real corpus; the test is skipped where it is not."""
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"real corpus {name} is not at {folder}; set PERMAFROST_DATA")
    return folder


def real_model(name: str) -> Path:
    """The folder of a small real model; the test is skipped where it is not."""
    folder = REAL_MODELS / name
    if not folder.is_dir():
        pytest.skip(f"real model {name} is not at {folder}")
    return folder
