"""What the self-check costs: its share of a cold extraction, and what a warm start takes.

    python -m benchmarks.extraction.self_check --dtype float32

Distinct sentences of STS-B and SNLI, every layer, mean view, each round in a cache of its own, so nothing was proven
before. Importing transformers and the first load are outside the clock; loading the backbone, choosing the road,
tokenising, packing, capture and writing are inside.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.machine import describe, parse_options
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.machine import pick_device
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.readers.load import load_corpus
from permafrost.extract import loader
from permafrost.extract.backbones.identity import compute_dtype
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.extraction import extract
from permafrost.extract.proofs.read_back import ReadBack
from permafrost.extract.proofs.self_check import SelfCheck
from permafrost.extract.resolved_plan import resolve_plan


def count_time(
    seconds: dict[str, float], what: str, owner: Any, name: str, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Add the time that a function or method of a module or class takes to ``seconds[what]`` from now on."""
    function: Callable[..., Any] = getattr(owner, name)

    def timed(*given: Any, **named: Any) -> Any:
        started = clock()
        try:
            return function(*given, **named)
        finally:
            seconds[what] += clock() - started

    setattr(owner, name, timed)


def pick_texts(many: int) -> list[str]:
    """Distinct sentences, in a shuffled order."""
    found = [text for name in ("stsb", "snli") for text in load_corpus(CorpusSpec(name=name)).texts]
    texts = list(dict.fromkeys(map(str, found)))
    return [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:many]]


def main() -> None:
    """Print one table."""
    options = parse_options(__doc__, backbone="minilm", texts=10_000, rounds=5, device="auto", dtype="auto")

    device = pick_device(options.device)
    plan = CapturePlan(backbone=options.backbone, views=("mean",), compute_dtype=options.dtype)
    texts, dtype = pick_texts(options.texts), compute_dtype(plan, device)
    load_backbone(find_backbone(plan), plan, dtype, device)
    spent: dict[str, float] = defaultdict(float)
    count_time(spent, "proof", loader, "on_fastest_road")
    count_time(spent, "proof", SelfCheck, "__init__")
    count_time(spent, "proof", SelfCheck, "check_before_run")
    count_time(spent, "read-back", ReadBack, "__call__")
    count_time(spent, "read-back", ReadBack, "watch", time.thread_time)  # while others compute it may wait for them
    print(describe(device))
    print(f"{options.backbone}, {dtype}; {len(texts):,} texts; each round in a cache of its own")
    print(f"{'':8}{'cold s':>9}{'proof s':>9}{'read-back s':>13}{'share':>8}{'warm s':>9}{'identity s':>12}")
    shares = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            spent.clear()
            spec = ExtractSpec(cache=cache, device=device)
            cold = extract(plan, texts, spec).seconds
            proof, back = spent["proof"], spent["read-back"]
            warm = min(extract(plan, texts, spec).seconds for _ in range(5))
            started = time.perf_counter()
            resolve_plan(plan, spec)
            known = time.perf_counter() - started
        shares.append((proof + back) / cold)
        share = f"{100 * shares[-1]:.2f} %"
        print(f"{number + 1:<8}{cold:9.2f}{proof:9.3f}{back:13.3f}{share:>8}{warm:9.3f}{known:12.4f}")
    print(f"median share {100 * np.median(shares):.2f} %")


if __name__ == "__main__":
    main()
