"""Runs that are right start without a false alarm: random texts and plans, real and random weights, both dtypes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.text import Segments, TextError
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.extraction import extract
from tests.support.models.backbones import WORDS, tiny_folder
from tests.support.models.families import FAMILIES
from tests.support.real import DEVICE, real_model

pytestmark = pytest.mark.slow

STARTS = 20
RANDOM = (*FAMILIES, "mistral", "gemma3_text")
"""Families of the backbones with random weights."""

LETTERS = [*map(chr, range(97, 123)), *"éß中文犬🐕กि ،.,!?'\"\n\t 0123456789"]
TEMPLATES = ("{text}", "This : “{text}” means", "a {text}, then {text}", "{text}{text}")
VIEWS = ("last", "mean", "weighted_mean", "cls", "max", "sum", "tokens")


def drawn_text(rng: np.random.Generator) -> str:
    """Words that begin like others, repetitions, one word, more words than fit, or letters of several scripts."""
    kind = rng.integers(5)
    if kind == 0:
        return " ".join([*WORDS[: rng.integers(0, 8)], *rng.choice(WORDS, rng.integers(1, 25))])
    if kind == 1:
        return " ".join([str(rng.choice(WORDS))] * int(rng.integers(1, 30)))
    if kind == 2:
        return str(rng.choice(WORDS))
    if kind == 3:
        return " ".join([*WORDS[: rng.integers(0, 8)], *rng.choice(WORDS, 90)])
    return "x" + "".join(rng.choice(LETTERS, rng.integers(1, 60)))


def drawn_texts(rng: np.random.Generator, pairs: bool) -> list[Any]:
    texts = list(dict.fromkeys(drawn_text(rng) for _ in range(int(rng.choice([1, 2, 3, 8, 40])))))
    return [Segments(f"{text[:12]}?", text) for text in texts] if pairs else texts


def drawn_plan(rng: np.random.Generator, folder: str, dtype: str) -> CapturePlan:
    pairs = bool(rng.integers(2))
    source = find_backbone(CapturePlan(backbone=folder, max_tokens=8))
    return CapturePlan(
        backbone=folder,
        views=tuple(rng.choice(VIEWS, rng.integers(1, 5), replace=False).tolist()),
        layers=tuple(rng.choice(source.layers, rng.integers(1, 4), replace=False).tolist()),
        template="{text}" if pairs else str(rng.choice(TEMPLATES)),
        max_tokens=int(rng.integers(48, 62) if pairs else rng.integers(24, 62)),
        truncation="windows" if pairs else "cut",
        stride=2,
        final_norm=bool(source.architecture.tail) and bool(rng.integers(2)),
        compute_dtype=dtype,  # type: ignore[arg-type]
        stored_dtype="float32",
    )


def loud(folder: Path, target: Path, family: str) -> Path:
    """A copy of a model folder with a massive activation."""
    from safetensors.torch import load_file, save_file

    from tests.extract.proofs.test_self_check import LOUD

    copy = Path(shutil.copytree(folder, target))
    weights = load_file(copy / "model.safetensors")
    weights[LOUD[family]][5] = weights[LOUD[family]][5] * 1000 if family == "llama" else 20_000
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "name", [*RANDOM, "gpt2-loud", "llama-loud", "bert-loud", "stories260K", "babyllama", "minilm"]
)
def test_a_right_run_starts(name, dtype, tmp_path):
    family, _, massive = name.partition("-")
    started = 0
    for seed in range(STARTS):
        rng = np.random.default_rng([seed, *name.encode(), *dtype.encode()])
        if name == "minilm":
            folder = name
        elif family in RANDOM:
            folder = str(tiny_folder(family, tmp_path / f"model{seed}", seed))
            folder = str(loud(Path(folder), tmp_path / f"loud{seed}", family)) if massive else folder
        else:
            folder = str(real_model(name))
        plan = drawn_plan(rng, folder, dtype)
        texts = drawn_texts(rng, plan.truncation == "windows")
        spec = ExtractSpec(
            cache=str(tmp_path / f"cache{seed}"), device=DEVICE, batch_tokens=int(rng.choice([16, 100, 1024]))
        )
        try:
            started += extract(plan, texts, spec).texts_run > 0
        except TextError:  # a first segment that fills all, as drawn: no start, and no alarm
            started += 1
    assert started == STARTS
