"""Stage one against its peers: every layer of a backbone, mean view, from text to arrays in memory.

    python -m benchmarks.extraction.speed --backbone minilm
    python -m benchmarks.extraction.speed --backbone gpt2-medium --tokenizer FOLDER

FOLDER is that of a tokenizer, for a backbone without its own.

Texts are runs of neighbours in the sorted distinct STS-B sentences, shuffled anew for every arm. Arms take turns in one
process. The peers: a plain transformers loop (batches of 32 in corpus order, ``output_hidden_states=True``), and, for
minilm, ``sentence-transformers`` ``encode``, which makes one vector a text where we make one per layer. gpt2-medium has
random weights: speed is the same. Loading is outside the clock; tokenising, packing, pooling and conversion are inside.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import clock, describe, matmul_gflops, parse_options
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.machine import pick_device
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.readers.load import load_corpus
from permafrost.extract.backbones.identity import compute_dtype
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.extractor import Extractor
from permafrost.extract.tokenization.tokenize import tokenize

Arm = Callable[[Sequence[str]], Any]

HiddenStates = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""Token ids and mask of a padded batch, ``[text, token]``, to the states of every layer, ``[text, token, width]``."""


def pick_texts(runs: int, neighbours: int) -> list[str]:
    """Runs of neighbours of the sorted distinct STS-B sentences, seed 0."""
    ordered = sorted(load_corpus(CorpusSpec(name="stsb")).texts)
    starts = np.random.default_rng(0).integers(0, len(ordered) - neighbours, runs)
    return [text for start in starts for text in ordered[start : start + neighbours]]


def ours(plan: CapturePlan, dtype: str, cache: str, device: str) -> tuple[Arm, Backbone]:
    """Our road: tokenise, pack, capture, pool, all layers."""
    made = replace(plan, compute_dtype=dtype)
    extractor = Extractor(made, ExtractSpec(cache=cache, device=device))
    columns = made.columns(find_backbone(made).layers)
    return (lambda texts: extractor(texts, columns)["mean"]), extractor.backbone


def plain_loop(plan: CapturePlan, dtype: str, device: str) -> Arm:
    """What one writes first: padded batches of 32 in corpus order, all hidden states, masked mean of each."""
    model = unmodified(find_backbone(plan), dtype, device)

    def hidden_states(ids: Tensor, mask: Tensor) -> Sequence[Tensor]:
        return model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states

    return padded_loop(plan, device, hidden_states)


def padded_loop(plan: CapturePlan, device: str, hidden_states: HiddenStates) -> Arm:
    """Padded batches of 32 in corpus order, and the masked mean of each of the hidden states of a batch."""
    tokenizer = load_tokenizer(find_backbone(plan).tokenizer)
    tokenizer.enable_padding()
    tokenizer.enable_truncation(plan.token_limit)

    def run(texts: Sequence[str]) -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), 32):
                batch = tokenizer.encode_batch(list(texts[start : start + 32]))
                ids = torch.tensor([one.ids for one in batch], device=device)
                mask = torch.tensor([one.attention_mask for one in batch], device=device)
                weights = mask[:, :, None].float()
                means = [(states.float() * weights).sum(1) / weights.sum(1) for states in hidden_states(ids, mask)]
                parts.append(torch.stack(means).cpu().numpy())
        return np.concatenate(parts, axis=1)

    return run


def unmodified(source: Source, dtype: str, device: str, kind: str = "AutoModel") -> Any:
    """The model as transformers loads or builds it, activation function included; ``kind`` is a class of theirs."""
    import transformers
    from transformers import AutoConfig

    auto = getattr(transformers, kind)
    if source.folder:
        model = auto.from_pretrained(source.folder, dtype=dtype)
    else:
        config = dict(source.config)
        model = auto.from_config(AutoConfig.for_model(config.pop("model_type"), **config), dtype=dtype)
    return model.eval().requires_grad_(False).to(device)


def sentence_transformers_encode(folder: Path, device: str) -> Arm:
    """The library's own ``encode``: one vector a text, its default settings."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device=device)
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def main() -> None:
    """Print one table."""
    options = parse_options(__doc__, backbone="minilm", tokenizer="", runs=8, neighbours=64, rounds=5, device="auto")

    device = pick_device(options.device)
    init = "pretrained" if options.backbone == "minilm" else "random"
    plan = CapturePlan(backbone=options.backbone, init=init, tokenizer=options.tokenizer, views=("mean",))
    default = compute_dtype(plan, device)
    texts = pick_texts(options.runs, options.neighbours)
    with tempfile.TemporaryDirectory() as cache:
        arms: dict[str, Arm] = {}
        for dtype in dict.fromkeys(["float32", default]):
            arms[f"ours, {dtype}"], backbone = ours(plan, dtype, cache, device)
            arms[f"transformers, {dtype}"] = plain_loop(plan, dtype, device)
        source = find_backbone(plan)
        if source.folder and (source.folder / "modules.json").is_file():
            arms["sentence-transformers, float32"] = sentence_transformers_encode(source.folder, device)
        seconds = race(arms, texts, options.rounds, device)

    tokens = tokenize(backbone.tokenizer, texts, plan.template, plan.token_limit)
    roofs = {dtype: matmul_gflops(getattr(torch, dtype), device) for dtype in ("float32", default)}
    print(describe(device))
    print(*(f"{dtype} matmul {roof:,.0f} GFLOP/s" for dtype, roof in roofs.items()), sep=", ", end="; ")
    print(f"default dtype {default}")
    print(f"{options.backbone} ({init} weights), {source.layers} layers of width {source.width}; ", end="")
    print(f"{len(texts)} texts, {len(tokens.ids):,} tokens; {options.rounds} rounds,", end=" ")
    print("arms interleaved, texts shuffled for every arm")
    base = np.median(seconds["transformers, float32"])
    print(f"{'':32}{'texts/s':>9}{'min-max':>14}{'x transformers float32':>24}{'x same dtype':>14}")
    for name, took in seconds.items():
        peer = np.median(seconds[f"transformers, {name.split(', ')[1]}"])
        rates = len(texts) / np.array(took)
        spread = f"{rates.min():.0f}-{rates.max():.0f}"
        row = f"{name:32}{len(texts) / np.median(took):9.0f}{spread:>14}"
        print(f"{row}{base / np.median(took):24.2f}{peer / np.median(took):14.2f}")


def race(arms: dict[str, Arm], texts: list[str], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every arm in every round; the first round warms up and does not count."""
    rng = np.random.default_rng(1)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            shuffled = [texts[index] for index in rng.permutation(len(texts))]
            started = clock(device)
            arm(shuffled)
            if number:
                seconds[name].append(clock(device) - started)
    return seconds


if __name__ == "__main__":
    main()
