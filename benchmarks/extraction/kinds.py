"""Kinds of models: the road that each takes, and how far its latents are from those of each text alone.

    python -m benchmarks.extraction.kinds
    python -m benchmarks.extraction.kinds --kinds gpt2,bert

Tiny models with random weights are made of the default configuration of each kind and run through the product, with
texts longer than their windows. A deviation is the largest over all layers, texts and two views, as a share of the
largest value of a latent, or of 1.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe, parse_options
from permafrost.data.errors import PermafrostError
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.extractor import Extractor
from tests.support.models.backbones import save_random, save_tokenizer, word_tokenizer
from tests.support.models.kinds import CHANGES, REFUSED, ROADS, made_texts, states_alone, tiny_config

VIEWS = {"last": lambda states: states[-1], "mean": lambda states: states.mean(0)}


def line_of(kind: str, folder: Path) -> str:
    """Kind, road, deviation and what was found; or why it is refused."""
    tokenizer = save_tokenizer(word_tokenizer(special=False), folder / "tokenizer")
    plan = CapturePlan(
        backbone=str(save_random(tiny_config(kind, **CHANGES.get(kind, {})), folder / "model")),
        tokenizer=str(tokenizer),
        views=tuple(VIEWS),
        max_tokens=40,
        compute_dtype="float32",
        stored_dtype="float32",
    )
    try:
        extractor = Extractor(plan, ExtractSpec(cache=str(folder / "cache"), device="cpu"))
    except PermafrostError as error:
        reason = str(error).partition(": ")[2].replace(f"'{plan.backbone}' ", "").partition(" (")[0]
        return f"{kind:22} refused: {reason.rstrip('.')}"
    texts, architecture = made_texts(), extractor.backbone.source.architecture
    latents = extractor(texts, dict.fromkeys(VIEWS, tuple(range(architecture.layers))))
    deviation = max(_deviations(extractor, texts, latents))
    found = ["causal" if architecture.causal else "bidirectional", *architecture.layer_types]
    found += [f"window {architecture.window}"] * bool(architecture.window)
    found += ["hidden_states of transformers shifted"] * (not architecture.reported)
    return f"{kind:22} {extractor.road:24} {deviation:9.1e}  {', '.join(found)}"


def _deviations(extractor: Extractor, texts: list[str], latents: dict[str, Any]) -> list[float]:
    backbone, deviations = extractor.backbone, []
    for number, text in enumerate(texts):
        ids = backbone.tokenizer.encode(text).ids[:40]
        for layer, states in enumerate(states_alone(backbone.model, backbone.source.architecture, ids)):
            for view, pooled in VIEWS.items():
                expected = pooled(states)
                difference = np.abs(latents[view][layer, number] - expected).max()
                deviations.append(float(difference / max(1, np.abs(expected).max())))
    return deviations


def main() -> None:
    """Print a line for every kind, or for those asked for."""
    options = parse_options(__doc__, kinds=",".join([*" ".join(ROADS.values()).split(), *REFUSED]))
    torch.set_num_threads(1)
    print(describe("cpu"))
    print(f"{'kind':22} {'road':24} {'deviation':>9}  what was found")
    for kind in options.kinds.split(","):
        with TemporaryDirectory() as folder:
            print(line_of(kind, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
