"""Tiny random backbones of every family, with tokenizers."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

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
WINDOWED = GROUPED | {"sliding_window": 4}
TYPED = WINDOWED | {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
EXTRA = {"qwen2": GROUPED, "llama": GROUPED, "mistral": WINDOWED, "gemma3_text": TYPED} | {
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "mpnet": {"pad_token_id": 1},
}


def tiny_folder(family: str, folder: Path, seed: int = 0, width: int = 32, blocks: int = 3) -> Path:
    """A model folder as ``save_pretrained`` writes it: a tiny random backbone of a family, with a tokenizer."""
    from transformers import AutoConfig

    tokenizer = byte_tokenizer() if family == "qwen2" else word_tokenizer(special=family != "gpt2")
    sizes = SIZES.get(family, USUAL | EXTRA.get(family, {}))
    sizes = sizes | {name: width for name in ("n_embd", "dim", "hidden_size") if name in sizes}
    sizes |= {name: blocks for name in ("n_layer", "n_layers", "num_hidden_layers") if name in sizes}
    config = AutoConfig.for_model(family, vocab_size=tokenizer.get_vocab_size(), **sizes)
    save_tokenizer(tokenizer, folder)
    return save_random(config, folder, seed)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> Path:
    """Save a tokenizer as ``save_pretrained`` does."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return folder


def save_random(config: Any, folder: Path, seed: int = 0) -> Path:
    """Save a model of a configuration with random weights, as wide as trained ones."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
        for name, weight in model.named_parameters():  # else blocks do nearly nothing
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
            elif "bias" in name:
                torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    return folder


def no_pilot() -> float:
    """The peak of a plan that names its stored dtype, which nothing asks for."""
    raise AssertionError("the stored dtype is given, and a pilot ran")


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
