"""What the token view costs beside a pooled one: sentences of CoNLL-2003, every layer, from text to committed shards.

    python -m benchmarks.extraction.token_store --texts 14041

Arms take turns in one process, each round on the same texts and into an empty store. Loading is outside the clock;
tokenising, the self-check, packing, pooling, conversion and writing are inside.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import clock, describe, parse_options
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.machine import pick_device
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.readers.load import load_corpus
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.extract.job import ExtractionJob, stored_bytes
from permafrost.extract.resolved_plan import resolve_plan


class Arm:
    """One view of every layer, run into a store of its own."""

    def __init__(self, view: str, options: argparse.Namespace, device: str, folder: Path) -> None:
        self.plan = CapturePlan(backbone=options.backbone, views=(view,), max_tokens=options.max_tokens)
        self.folder = folder / view
        self.runner = resolve_plan(self.plan, ExtractSpec(cache=str(self.folder), device=device)).runner()
        self.source, self.identity = self.runner.source, self.runner.identity
        self.columns = self.plan.columns(self.source.layers)
        self.seconds: list[float] = []
        self.bytes = self.estimate = 0

    def run(self, texts: Sequence[Text], device: str) -> None:
        """One round; what it wrote is measured and removed."""
        store = LatentStore.at(self.folder, self.folder.name, self.identity)
        started = clock(device)
        missing = store.missing_columns(text_keys(texts), self.columns)
        ExtractionJob(self.runner, self.plan, NoProgress()).run(store, texts, missing)
        self.seconds.append(clock(device) - started)
        self.bytes = sum(path.stat().st_size for path in store.path.glob("*.h5"))
        tokens = self.runner.tokenize_and_pack(texts)[0]
        self.estimate = stored_bytes(self.runner, tokens, self.columns, np.arange(len(texts)))
        shutil.rmtree(self.folder)


def main() -> None:
    """Print one table."""
    options = parse_options(__doc__, backbone="minilm", texts=2048, rounds=3, max_tokens=128, device="auto")

    device, corpus = pick_device(options.device), load_corpus(CorpusSpec(name="conll2003"))
    texts = [corpus.texts[text] for text in dict.fromkeys(corpus.splits["train"].texts[:, 0].tolist())]
    texts = [texts[index] for index in np.random.default_rng(0).permutation(len(texts))[: options.texts]]
    with tempfile.TemporaryDirectory() as folder:
        arms = {view: Arm(view, options, device, Path(folder)) for view in ("mean", "tokens")}
        for number in range(options.rounds + 1):
            for arm in arms.values():
                arm.run(texts, device)
                if not number:  # that one warmed up
                    arm.seconds.clear()

    print(describe(device))
    pooled = arms["mean"]
    dtype = pooled.identity.compute_dtype
    print(f"{options.backbone}, {pooled.source.layers} layers of width {pooled.source.width}, {dtype}; ", end="")
    print(f"{len(texts):,} distinct texts of CoNLL-2003 train; {options.rounds} rounds, arms interleaved")
    print(f"{'':10}{'texts/s':>9}{'min-max':>12}{'x mean':>9}{'MB':>10}{'of estimate':>13}")
    for view, arm in arms.items():
        rates = len(texts) / np.array(arm.seconds)
        ratio = np.median(np.array(pooled.seconds) / np.array(arm.seconds))
        spread = f"{rates.min():.0f}-{rates.max():.0f}"
        print(f"{view:10}{np.median(rates):9.0f}{spread:>12}{ratio:9.2f}", end="")
        print(f"{arm.bytes / 1e6:10.1f}{arm.bytes / arm.estimate:13.3f}")


if __name__ == "__main__":
    main()
