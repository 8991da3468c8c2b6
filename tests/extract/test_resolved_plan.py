"""The stored dtype of a plan: decided once for a backbone, stored with room, and an error where it does not fit."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from permafrost.data.latents import maintenance
from permafrost.data.latents.find_store import find_store
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.store.errors import StoreError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.extract import loader
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor, matching_extractor
from permafrost.extract.resolved_plan import resolve_plan
from tests.support.models.backbones import no_pilot, word_tokenizer
from tests.support.models.families import FAMILIES

ROOT = Path(__file__).parents[2]


def spec_of(folder: Path, **others: Any) -> ExtractSpec:
    return ExtractSpec(cache=str(folder / "cache"), device="cpu", **others)


def plan_of(folder: Any, **others: Any) -> CapturePlan:
    return CapturePlan(backbone=str(folder), **{"max_tokens": 32, **others})


def changed(folder: Path, target: Path, name: str, change: Any) -> Path:
    """A copy of a model folder with one weight changed in place."""
    copy = Path(shutil.copytree(folder, target))
    weights = load_file(copy / "model.safetensors")
    change(weights[name])
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.fixture(scope="module")
def massive(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like Gemma 3: a decoder whose hidden states exceed float16."""
    folder = tmp_path_factory.mktemp("massive") / "model"
    return changed(tiny("llama"), folder, "embed_tokens.weight", lambda weight: weight.mul_(5e5))


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_is_float16_for_latents_far_below_its_limit(family, tiny, tmp_path):
    for dtype in ("float32", "bfloat16"):
        identity = resolve_plan(plan_of(tiny(family), compute_dtype=dtype), spec_of(tmp_path)).identity
        assert identity.stored_dtype == "float16"


@pytest.mark.parametrize("view", ["mean", "tokens"])
def test_latents_beyond_float16_are_stored_by_default_and_read_right_by_h5py_alone(view, massive, texts, tmp_path):
    plan = plan_of(massive, views=(view,))
    store = extract(plan, texts, spec_of(tmp_path)).store
    assert store.identity.stored_dtype == "bfloat16"
    (path,) = store.path.glob("*.h5")
    with h5py.File(path) as file:
        order = np.argsort(file["keys"][:].view("S16")[:, 0])[np.argsort(np.argsort(text_keys(texts)))]
        stored = file["latents/mean" if view == "mean" else "tokens/states"][:]
        offsets = np.arange(len(texts) + 1) if view == "mean" else file["tokens/offsets"][:]
    read = store.read(texts, view, range(4)) if view == "mean" else store.read_tokens(texts, range(4)).states
    found = np.concatenate([stored[:, offsets[row] : offsets[row + 1]] for row in order], axis=1)
    np.testing.assert_array_equal(found, read)
    assert np.abs(found).max() > 65_504

    backbone = load_backbone(resolve_plan(plan, spec_of(tmp_path)).source, plan, "float32", "cpu")
    backbone.model.norm = torch.nn.Identity()
    alone = []
    for text in texts:
        with torch.inference_mode():
            ids = torch.tensor([backbone.tokenizer.encode(text).ids])
            states = torch.stack(backbone.model(ids, output_hidden_states=True).hidden_states)[:, 0]
        alone.append(states if view == "tokens" else states.mean(1, keepdim=True))
    expected = torch.cat(alone, 1).numpy()
    rounding = {"float32": 2.0**-8, "bfloat16": 2.0**-5}[store.identity.compute_dtype]
    largest = np.abs(expected).max(-1, keepdims=True)
    np.testing.assert_array_less(np.abs(found - expected) / largest, rounding)
    peaks = maintenance.store_details(store.path)["peaks"][view]
    assert peaks == pytest.approx(dict(enumerate(np.abs(found).max((1, 2)))), rel=1e-5)


def test_latents_in_memory_are_those_of_the_store(massive, tmp_path):
    plan, texts = plan_of(massive, compute_dtype="float32", views=("mean", "tokens")), ["the dog", "grass", "a stove"]
    store = extract(plan, texts, spec_of(tmp_path)).store
    for extractor in (
        Extractor(plan, spec_of(tmp_path)),
        matching_extractor(plan, spec_of(tmp_path / "another"), store.identity, "runs/x"),
    ):
        latents = extractor(texts, plan.columns(4))
        np.testing.assert_array_equal(latents["mean"], store.read(texts, "mean", range(4)))
        np.testing.assert_array_equal(latents["tokens"].states, store.read_tokens(texts, range(4)).states)


def test_a_value_that_does_not_fit_stops_the_run_and_what_is_committed_stays(tiny, texts, tmp_path):
    stove = word_tokenizer(special=False).token_to_id("stove")  # no pilot text has it
    folder = changed(tiny("gpt2"), tmp_path / "model", "wte.weight", lambda weight: weight[stove].fill_(1e6))
    plan, spec = plan_of(folder, compute_dtype="float32"), spec_of(tmp_path, batch_tokens=40, shard_bytes=1)
    quiet = [text for text in texts if "stove" not in text]
    asked = [*quiet, "the warm stove"]
    with pytest.raises(
        StoreError, match=r"layer 0, view mean, text '.*stove'.* \|value\| .* does not fit float16; set plan.stored_dt"
    ):
        extract(plan, asked, spec)
    held = find_store(tmp_path / "cache", plan)
    committed = int(held.has_column(text_keys(quiet), "mean", 3).sum())
    assert committed > 0
    assert not list(maintenance.verify([held.path]))
    assert extract(plan, quiet, spec).texts_run == len(quiet) - committed
    wide = extract(replace(plan, stored_dtype="bfloat16"), asked, spec)
    assert np.abs(wide.store.read(["the warm stove"], "mean", [0])).max() > 20_000


def test_one_pilot_serves_every_plan_of_a_backbone(tiny, tmp_path, monkeypatch):
    plan, spec = plan_of(tiny("gpt2"), compute_dtype="float32"), spec_of(tmp_path)
    resolve_plan(plan, spec)
    monkeypatch.setattr(loader, "pilot_peak", lambda *_: no_pilot())
    for others in ({"template": "so {text}"}, {"views": ("tokens",)}, {"layers": (1,)}, {"max_tokens": 9}):
        assert resolve_plan(replace(plan, **others), spec).identity.stored_dtype == "float16"  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="pilot ran"):
        resolve_plan(plan_of(tiny("bert"), compute_dtype="float32"), spec)
    assert resolve_plan(plan_of(tiny("bert"), stored_dtype="float32"), spec).identity.stored_dtype == "float32"


def test_the_backbone_is_loaded_once_for_pilot_and_run(tiny, texts, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(loader, "load_backbone", lambda *given: loaded.append(1) or load_backbone(*given))
    extract(plan_of(tiny("bert")), texts, spec_of(tmp_path))
    assert len(loaded) == 1


def test_a_store_of_float16_from_before_there_was_auto_is_the_one_that_auto_uses(tiny, texts, tmp_path):
    before = extract(plan_of(tiny("bert"), stored_dtype="float16"), texts, spec_of(tmp_path))
    after = extract(plan_of(tiny("bert")), texts, spec_of(tmp_path))
    assert (after.store.path, after.texts_run) == (before.store.path, 0)


def test_a_warm_start_with_auto_imports_no_transformers(massive, texts, tmp_path):
    plan = plan_of(massive)
    path = extract(plan, texts, spec_of(tmp_path)).store.path
    program = f"""
import sys
for name in ("transformers", "tokenizers", "huggingface_hub"):
    sys.modules[name] = None
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.extraction import extract
plan = CapturePlan(backbone={str(massive)!r}, max_tokens=32)
done = extract(plan, {texts!r}, ExtractSpec(cache={str(tmp_path / "cache")!r}, device="cpu"))
print(done.store.path, done.texts_run)
"""
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == [str(path), "0"]
    assert LatentStore.open(path).identity.stored_dtype == "bfloat16"
