"""Upper blocks trained from a cached cut against fine-tuning the same blocks with the frozen part running.

    python -m benchmarks.training.finetuning
    python -m benchmarks.training.finetuning --backbone gpt2-medium --tokenizer FOLDER --texts 256

The upper third of the blocks and a linear head learn one epoch of SST-2 (of a small corpus that ships with the project
where PERMAFROST_DATA is not set) from the mean view; AdamW, no dropout. Arms take turns; they have the same weights to
begin with, and the same batches in the same order. "ours" reads float32 states of the layer at the cut from the store.
The peers are transformers' own AutoModel, its lower part without gradients, on texts that are tokenised beforehand: one
pads each batch to its longest text, as is usual; the other runs each batch in groups of like length, those that ours
makes. Losses of every step and trained weights are compared. All but minilm have random weights: speed is the same.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import clock, describe
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.readers.load import load_corpus
from permafrost.extract.attention.varlen import group_by_length
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.extraction import extract
from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone
from permafrost.extract.finetuning.top_blocks import TopBlocks
from permafrost.extract.tokenization.token_ids import read_token_ids

TOLERANCE = 1e-3
"""Largest difference of a loss: float32 sums in another order, carried through the steps of an epoch."""

Latents = Callable[[np.ndarray], Tensor]
"""Texts of a batch to their latents, ``[text, width]``."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Rows of the benchmark: texts, their sides and classes."""

    name: str
    texts: Sequence[str]
    sides: np.ndarray
    """``[row]``: its text."""

    classes: Tensor
    """``[row]``."""


def training_set(rows: int) -> TrainingSet:
    """Rows of SST-2, or of what ships."""
    name = "sst2" if "PERMAFROST_DATA" in os.environ else "samples-topics"
    corpus = load_corpus(CorpusSpec(name=name, limits={"train": rows}, spread=True))
    chosen = corpus.splits["train"]
    used, sides = np.unique(chosen.texts[:, 0], return_inverse=True)
    classes = torch.from_numpy(chosen.targets.astype(np.int64))
    texts = [str(corpus.texts[text]) for text in used]
    return TrainingSet(name=name, texts=texts, sides=sides, classes=classes)


class Arm:
    """A model to be trained, and how it makes latents of a batch."""

    def __init__(self, model: nn.Module, latents: Latents) -> None:
        self.model, self.latents = model, latents
        trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
        self.start = {name: weight.detach().clone() for name, weight in trained}
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def epoch(self, batches: Sequence[np.ndarray], rows: TrainingSet, options: argparse.Namespace) -> None:
        """Train from the first weights on."""
        self.model.load_state_dict(self.start, strict=False)
        self.model.train()
        torch.manual_seed(0)
        head = nn.Linear(options.width, int(rows.classes.max()) + 1).to(options.device)
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW([*weights, *head.parameters()], lr=5e-5, fused=True)
        losses = []
        started = clock(options.device)
        for batch in batches:
            with torch.autocast(options.device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
                logits = head(self.latents(rows.sides[batch]))
                loss = nn.functional.cross_entropy(logits.float(), rows.classes[batch].to(options.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        self.losses = torch.stack(losses).tolist()
        self.seconds.append(clock(options.device) - started)


def ours(plan: CapturePlan, cut: int, store: Any, texts: Sequence[str], device: str) -> Arm:
    """States of the layer at the cut, from the store."""
    backbone = FinetunedBackbone(plan, cut, dropout=0.0).to(device)
    reader = store.token_reader(texts, (cut,))

    def latents(batch: np.ndarray) -> Tensor:
        cached = reader.read(batch)
        pooled: Tensor = backbone(torch.from_numpy(cached.states), cached.lengths, "mean")
        return pooled[0]

    return Arm(backbone, latents)


def peer(plan: CapturePlan, cut: int, texts: Sequence[str], device: str, grouped: bool) -> Arm:
    """The whole model from ids, with its lower part frozen."""
    model = _whole(plan, cut).to(device)
    tokens, _ = read_token_ids(plan, texts)
    ids = [torch.from_numpy(text).long() for text in np.split(tokens.ids, tokens.offsets[1:-1])]
    lengths = tokens.lengths

    def padded(group: np.ndarray) -> Tensor:
        chosen = nn.utils.rnn.pad_sequence([ids[text] for text in group], batch_first=True).to(device)
        real = (torch.arange(chosen.shape[1]) < torch.from_numpy(lengths[group])[:, None]).to(device)
        states = model(input_ids=chosen, attention_mask=real.long()).last_hidden_state.float()
        return (states * real[:, :, None]).sum(1) / real.sum(1)[:, None]

    def latents(batch: np.ndarray) -> Tensor:
        if not grouped:
            return padded(batch)
        groups = group_by_length(lengths[batch])
        back = torch.from_numpy(np.argsort(np.concatenate(groups))).to(device)
        return torch.cat([padded(batch[group]) for group in groups])[back]

    return Arm(model, latents)


def _whole(plan: CapturePlan, cut: int) -> nn.Module:
    """Everything below the cut frozen, nothing dropped; without the pooler, which no mean needs."""
    source = find_backbone(plan)
    trained = {name for name, weight in TopBlocks(plan, cut).model.named_parameters() if weight.requires_grad}
    model = load_backbone(source, plan, "float32", "cpu").model
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in trained)
    return model


def report(arms: dict[str, Arm], texts: int, options: argparse.Namespace) -> None:
    """A line per arm, and how far results lie apart."""
    base = np.array(arms["ours"].seconds)
    print(f"{'':34}{'texts/s':>9}{'seconds an epoch (min-max)':>28}{'times ours (min-max)':>24}{'losses differ':>15}")
    for name, arm in arms.items():
        took = np.array(arm.seconds)
        spread = f"{np.median(took):.2f} ({took.min():.2f}-{took.max():.2f})"
        ratios = took / base
        ratio = f"{np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"
        differ = np.abs(np.subtract(arm.losses, arms["ours"].losses)).max()
        print(f"{name:34}{texts / np.median(took):9,.0f}{spread:>28}{ratio:>24}{differ:15.1e}")
        if options.dtype == "float32" and not differ <= TOLERANCE:
            raise SystemExit(f"'{name}' learns something else: losses differ by {differ:.2g}, {TOLERANCE} is allowed.")
    trained = dict(arms["ours"].model.named_parameters())
    whole = dict(arms["transformers, groups as ours"].model.named_parameters())
    start = arms["ours"].start
    pairs = [(trained[name], whole[name.removeprefix("blocks.model.")], name) for name in start]
    apart = max(float((mine - theirs).detach().abs().max()) for mine, theirs, _ in pairs)
    moved = max(float((mine - start[name]).detach().abs().max()) for mine, _, name in pairs)
    print(f"trained weights differ by {apart:.1e} at most; training moved them by {moved:.1e}")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--tokenizer", default="", help="folder of a tokenizer, for a backbone without its own")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of training")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    training = training_set(options.texts)
    plan, init = plan_of(options)
    source = find_backbone(plan)
    blocks = source.layers - 1
    cut, options.width = blocks - blocks // 3, source.width
    rows = len(training.sides)
    order = np.random.default_rng(0).permutation(rows)
    batches = [order[at : at + options.batch] for at in range(0, rows, options.batch)]
    with tempfile.TemporaryDirectory() as cache:
        done = extract(replace(plan, layers=(cut,)), training.texts, ExtractSpec(cache=cache, device=options.device))
        arms = {
            "ours": ours(plan, cut, done.store, training.texts, options.device),
            "transformers, groups as ours": peer(plan, cut, training.texts, options.device, True),
            "transformers, padded to longest": peer(plan, cut, training.texts, options.device, False),
        }
        for arm in arms.values():  # a few batches warm up and do not count
            arm.epoch(batches[:4], training, options)
            arm.seconds.clear()
        for arm in [*arms.values()] * options.rounds:
            arm.epoch(batches, training, options)
        tokens = done.store.read_tokens(training.texts, []).lengths[training.sides].sum()
    print(describe(options.device))
    print(f"{options.backbone} ({init} weights), blocks {cut + 1} to {blocks} of {blocks} trained in {options.dtype}")
    print(f"{rows:,} rows of {training.name}, {tokens:,} tokens, batches of {options.batch}; ", end="")
    print(f"{options.rounds} rounds, arms interleaved")
    print(f"once for all epochs: {done.seconds:.1f} s for the states of layer {cut} of {len(training.texts):,} texts")
    report(arms, rows, options)


def plan_of(options: argparse.Namespace) -> tuple[CapturePlan, str]:
    """Tokens in float32 throughout, as transformers gives them; and what the weights are."""
    init = "pretrained" if options.backbone == "minilm" else "random"
    exact: dict[str, Any] = {"compute_dtype": "float32", "stored_dtype": "float32"}
    plan = CapturePlan(backbone=options.backbone, init=init, tokenizer=options.tokenizer, views=("tokens",), **exact)
    return replace(plan, final_norm=bool(find_backbone(plan).architecture.tail)), init


if __name__ == "__main__":
    main()
