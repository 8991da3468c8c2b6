"""Tiny random models of many kinds: every layer and view is that of each text alone, or the kind is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.extractor import Extractor
from permafrost.extract.proofs.proof import SelfCheckError
from tests.support.models.backbones import save_random, save_tokenizer, word_tokenizer
from tests.support.models.kinds import CHANGES, REFUSED, ROADS, made_texts, states_alone, tiny_config

QUICK = ("llama", "mistral", "gemma3_text", "bloom", "bert", "fnet")
"""A kind of each road; what is tried on further ones is slow."""

CASES = [
    pytest.param(kind, road, marks=() if kind in QUICK else pytest.mark.slow)
    for road, kinds in ROADS.items()
    for kind in kinds.split()
]

TOLERANCE = 1e-5
"""As a share of the largest value, or of 1: the rounding of float32 in the blocks of tiny models."""

SCANNED = {"jamba": 1e-4}
"""Kinds with a larger tolerance: rows of other lengths are summed up in another order, and this is fed back."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that no kind of model changes, as no ``config.json`` is beside it."""
    return save_tokenizer(word_tokenizer(special=False), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    """Passes run side by side, on replicas of the backbone."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def extractor_of(kind: str, tokenizer: Path, folder: Path) -> Extractor:
    settings: dict[str, Any] = {"compute_dtype": "float32", "stored_dtype": "float32", "views": ("last", "mean")}
    backbone = save_random(tiny_config(kind, **CHANGES.get(kind, {})), folder / "model")
    plan = CapturePlan(backbone=str(backbone), tokenizer=str(tokenizer), max_tokens=40, **settings)
    return Extractor(plan, ExtractSpec(cache=str(folder / "cache"), device="cpu", batch_tokens=128))


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
    with pytest.raises((BackboneError, SelfCheckError), match=REFUSED[kind]):
        extractor_of(kind, tokenizer, tmp_path)
