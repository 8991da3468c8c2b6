"""A GPU against the CPU of the same machine: that both compute the same, and how fast each is; under 8 minutes.

    python -m benchmarks.device.gpu --tokenizer FOLDER
    python -m benchmarks.device.gpu --scale tiny --device cpu --backbones FOLDER

FOLDER of --tokenizer is that of a tokenizer, for backbones without their own, which have random weights.

Parity: latents of all layers in float32; and one epoch of every recipe on the samples that ship, without dropout, whose
masks are drawn on the device. Extraction: texts/s of all layers, beside a plain transformers loop and, where there is
one, sentence-transformers; and the share of the matmul peak of this process, by two operations for every weight of a
block and token. Training: seconds an epoch of three recipes on the GPU, and on a tenth of the rows on the CPU.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.speed import Arm, ours, pick_texts, plain_loop, race, sentence_transformers_encode
from benchmarks.machine import describe, matmul_gflops, parse_options
from permafrost import api
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import InputError
from permafrost.data.machine import pick_device
from permafrost.data.plan.plan import CapturePlan
from permafrost.data.progress import EventsOnly
from permafrost.data.readers.load import load_corpus
from permafrost.extract.backbones.identity import compute_dtype
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.tokenization.tokenize import tokenize
from permafrost.probes.config.load import load_recipe

WINDOWS = ["plan.max_tokens=48", "plan.stride=4"]
SENTENCES = ["pretraining.corpus.name=samples-sentences", "pretraining.corpus.limit=200", "pretraining.train.epochs=1"]
SAMPLES = {
    "sts": ["corpus.name=samples-pairs"],
    "nli": ["corpus.name=samples-nli"],
    "question": ["corpus.name=samples-topics"],
    "sentiment-tuned": ["corpus.name=samples-tones", "corpus.limits={train=64}"],
    "multilabel": ["corpus.name=samples-labels"],
    "rank": ["corpus.name=samples-ranking"],
    "ner": ["corpus.name=samples-tags", "corpus.held_out=0.2"],
    "ner-tuned": ["corpus.name=samples-tags", "corpus.limits={train=64}"],
    "qa": ["corpus.name=samples-questions", *WINDOWS],
    "qa-tuned": ["corpus.name=samples-questions", "corpus.limits={train=32}", *WINDOWS],
    "freeze-sts": [
        "corpus.name=samples-pairs",
        "pretraining.corpus.name=samples-sentences",
        "pretraining.train.epochs=1",
    ],
    "topic-sentiment": [],
}
"""Recipe -> the samples that it is trained on; one recipe of each head, of each kind of fine-tuning, of pretraining
and of several tasks."""

VARIANTS = {"freeze-sts": "autoencoder", "topic-sentiment": "upper"}
"""Recipe -> the variant that is trained, if it is not the first one."""

DETERMINED = ["probe.dropout=0.0", "probe.noise=0.0", "finetune.dropout=0.0", "train.compute_dtype=float32"]
"""Settings without which the devices would train on different numbers."""

TIMED = {"sts": ("stsb", "samples-pairs", 5000), "ner": ("conll2003", "samples-tags", 4000)}
TIMED |= {"qa-tuned": ("squad", "samples-questions", 4000)}
"""Recipe -> its corpus, the samples in its place, and training rows on the GPU."""


MATMUL_SIZE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Kind of device -> rows of the square matrices whose product tells the peak: a small one ends before a GPU is busy."""


class Epochs(EventsOnly):
    """Losses and seconds of the trainings of a command."""

    def __init__(self) -> None:
        super().__init__(self._hear)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def _hear(self, name: str, **facts: Any) -> None:
        if name == "epoch":
            self.losses += [value for values in facts["loss"].values() for value in values if value is not None]
        if name == "trained":
            self.seconds.append(facts["seconds"] / facts["epochs"])


def train(recipe: str, settings: Sequence[str], device: str, folder: Path) -> Epochs:
    """One epoch of one variant of a recipe."""
    heard = Epochs()
    places = [f"extract.cache={folder / 'cache'}", f"device={device}", "train.epochs=1", "train.seeds=0"]
    _, loaded = load_recipe(recipe)
    first = [variant.name for variant in loaded.variants][:1]
    only = [VARIANTS[recipe]] if recipe in VARIANTS else first
    api.run(recipe, [*settings, *places], folder / "runs", heard, only)
    return heard


def sample_texts(count: int) -> list[str]:
    """Some sentences that ship."""
    return [str(text) for text in load_corpus(CorpusSpec(name="samples-sentences")).texts[:count]]


def latents_apart(plan: CapturePlan, device: str, folder: str, texts: Sequence[str]) -> float:
    """Largest difference of a latent between the devices, by the largest deviation of its layer."""
    on_cpu, on_device = (ours(plan, "float32", folder, place)[0](texts) for place in ("cpu", device))
    first, second = (np.asarray(values, np.float64) for values in (on_cpu, on_device))
    return float((np.abs(first - second).max((1, 2)) / first.std((1, 2))).max())


def parity(backbones: Sequence[CapturePlan], recipes: Sequence[str], device: str, folder: Path) -> Iterator[str]:
    """Lines: how far latents, and losses of an epoch, lie apart on the two devices."""
    for plan in backbones:
        apart = latents_apart(plan, device, str(folder), sample_texts(32))
        yield f"latents of {plan.backbone:28} {apart:.1e} of the spread apart"
    for recipe in recipes:
        settings = [*SAMPLES[recipe], *DETERMINED, f"plan.backbone={backbones[0].backbone}"]
        settings += ["plan.compute_dtype=float32", "plan.stored_dtype=float32"]
        first, second = (np.array(train(recipe, settings, place, folder).losses) for place in ("cpu", device))
        yield f"loss of {recipe:32} {np.abs(first - second).max():.1e} apart, {first.mean():.4f} on the CPU"


def extraction(plan: CapturePlan, device: str, folder: str, rounds: int, texts: list[str]) -> Iterator[str]:
    """Lines: texts a second of a backbone in its default precision, beside its peers."""
    dtype, source, arms = compute_dtype(plan, device), find_backbone(plan), dict[str, Arm]()
    arms[f"ours, {dtype}"], backbone = ours(plan, dtype, folder, device)
    arms[f"transformers, {dtype}"] = plain_loop(plan, dtype, device)
    if source.folder and (source.folder / "modules.json").is_file():
        arms["sentence-transformers, float32"] = sentence_transformers_encode(source.folder, device)
    peak = matmul_gflops(backbone.dtype, device, MATMUL_SIZE[device.split(":", maxsplit=1)[0]])
    operations = 2 * block_weights(backbone) * len(tokenize(backbone.tokenizer, texts, plan.template, 256).ids) / 1e9
    yield f"{plan.backbone}: {dtype} matmul {peak:,.0f} GFLOP/s"
    for name, seconds in race(arms, texts, rounds, device).items():
        rates, share = len(texts) / np.array(seconds), operations / np.median(seconds) / peak
        yield f"  {name:34}{np.median(rates):9,.0f} texts/s ({rates.min():,.0f}-{rates.max():,.0f}){share:8.2f} of it"


def block_weights(backbone: Backbone) -> int:
    """Weights of all blocks that multiply a token: those of two axes."""
    return sum(weight.numel() for block in backbone.blocks for weight in block.parameters() if weight.dim() > 1)


def training(recipe: str, device: str, folder: Path, backbone: str, scale: str) -> str:
    """Line: seconds an epoch on the device, and on a tenth of the rows on the CPU."""
    corpus, samples, rows = TIMED[recipe]
    settings = [f"plan.backbone={backbone}"]
    try:
        if scale == "tiny":
            raise InputError("tiny")
        load_corpus(CorpusSpec(name=corpus, limits={"train": 1}))
    except InputError:
        corpus, rows = samples, 40
    seconds = {}
    for place, count in ((device, rows), ("cpu", rows // 10)):
        limited = [*settings, f"corpus.name={corpus}", f"corpus.limits={{train={count}}}"]
        seconds[place, count] = sum(train(recipe, limited, place, folder).seconds)
    (there, here), times = seconds.values(), f"{rows:,} rows of {corpus}"
    return f"{recipe:10} {times:28} {there:8.2f} s; a tenth on the CPU {here:8.2f} s: {10 * here / there:6.1f} times"


def main() -> None:
    """Print parity, extraction and training."""
    named = "minilm,gpt2-medium,qwen2-0.5b"
    options = parse_options(__doc__, device="auto", scale="full", backbones=named, tokenizer="", rounds=3)
    device, tiny = pick_device(options.device), options.scale == "tiny"
    plans = []
    for name in options.backbones.split(","):
        own = name == "minilm" or Path(name).is_dir()
        plan = CapturePlan(backbone=name, init="pretrained" if own else "random", views=("mean",))
        plans.append(plan if own else replace(plan, tokenizer=options.tokenizer))
    texts = sample_texts(8) if tiny else list(dict.fromkeys(pick_texts(64, 128)))  # passes enough to overlap
    print(describe(device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in parity(plans, list(SAMPLES)[:1] if tiny else list(SAMPLES), device, folder):
            print(line, flush=True)
        for plan in plans:
            for line in extraction(plan, device, name, 1 if tiny else options.rounds, texts):
                print(line, flush=True)
        for recipe in list(TIMED)[: 1 if tiny else None]:
            print(training(recipe, device, folder, plans[0].backbone, options.scale), flush=True)


if __name__ == "__main__":
    main()
