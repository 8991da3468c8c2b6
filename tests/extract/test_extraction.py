"""Stage one runs what is missing and nothing else, and gives the same bits after any interruption."""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from permafrost.data import atomic
from permafrost.data.errors import MachineError
from permafrost.data.latents import maintenance
from permafrost.data.plan.plan import VIEWS, CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.store.errors import StoreError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.data.text import TextError
from permafrost.extract.capture import runner
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from tests.support.models.families import FAMILIES

ROOT = Path(__file__).parents[2]


class Lines(NoProgress):
    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def plan(tiny: Any) -> CapturePlan:
    return CapturePlan(backbone=str(tiny("llama")), max_tokens=32, compute_dtype="float32", stored_dtype="float32")


def settings(folder: Path, **more: Any) -> ExtractSpec:
    return ExtractSpec(cache=str(folder / "cache"), device="cpu", **more)


def everything(store: LatentStore, texts: list[str]) -> dict[str, np.ndarray]:
    return {
        view: store.read_tokens(texts, layers).states if view == "tokens" else store.read(texts, view, layers)
        for view, layers in store.columns().items()
    }


def test_a_second_run_runs_nothing_and_new_texts_run_alone(plan, texts, tmp_path):
    first = extract(plan, texts[:30], settings(tmp_path))
    assert (first.texts_run, extract(plan, texts[:30], settings(tmp_path)).texts_run) == (30, 0)
    grown = extract(plan, texts, settings(tmp_path))
    assert grown.texts_run == len(texts) - 30


def test_a_second_equal_extraction_says_that_one_is_under_way_and_goes_on(plan, texts, tmp_path):
    first = extract(plan, texts[:5], settings(tmp_path))
    lines = Lines()
    with atomic.folder_lock(first.store.path):
        assert extract(plan, texts[:9], settings(tmp_path), lines).texts_run == 4
    (line,) = [line for line in lines.notes if "under way" in line]
    assert str(first.store.path) in line
    extract(plan, texts, settings(tmp_path), lines)
    assert sum("under way" in line for line in lines.notes) == 1


@pytest.mark.parametrize("many", [5, 9])
def test_what_a_killed_run_has_left_goes_with_the_next_also_if_nothing_runs(many, plan, texts, tmp_path):
    first = extract(plan, texts[:5], settings(tmp_path))
    names = [f".{'0' * 32}.{process}@{atomic._host()}.tmp" for process in ("999999999-1", _process())]
    for name in names:
        (first.store.path / name).touch()
    assert extract(plan, texts[:many], settings(tmp_path)).texts_run == many - 5
    assert [name for name in names if (first.store.path / name).exists()] == names[1:], "one belongs to this process"


def _process() -> str:
    return f"{os.getpid()}-{atomic._start_of(os.getpid())}"


def test_a_further_view_runs_every_text_once_more_and_keeps_the_old_columns(plan, texts, tmp_path):
    before = extract(plan, texts, settings(tmp_path))
    old = {shard.path.name: shard.path.read_bytes() for shard in before.store.shards}
    more = CapturePlan(**{**vars(plan), "views": ("mean", "last")})
    after = extract(more, texts, settings(tmp_path))
    assert after.texts_run == len(texts)
    new = [shard for shard in after.store.shards if shard.path.name not in old]
    assert {view for shard in new for view in shard.columns} == {"last"}
    assert all((after.store.path / name).read_bytes() == content for name, content in old.items())


def test_further_layers_run_only_those_layers(plan, texts, tmp_path):
    extract(CapturePlan(**{**vars(plan), "layers": (1,)}), texts, settings(tmp_path))
    done = extract(plan, texts, settings(tmp_path))
    assert sorted(shard.columns["mean"] for shard in done.store.shards) == [(0, 2, 3), (1,)]
    np.testing.assert_allclose(
        done.store.read(texts, "mean", (0, 1, 2, 3)),
        Extractor(plan, settings(tmp_path / "other"))(texts, {"mean": (0, 1, 2, 3)})["mean"],
        atol=1e-5,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_latent_depends_on_nothing_but_its_text(family, tiny, texts, tmp_path):
    """Order, batch size, shards, company and restart change nothing beyond the tolerance of float32 sums."""
    plan = CapturePlan(
        backbone=str(tiny(family)), views=VIEWS, max_tokens=32, compute_dtype="float32", stored_dtype="float32"
    )
    base = extract(plan, texts, settings(tmp_path / "a")).store
    shuffled = random.Random(1).sample(texts, len(texts))
    small = settings(tmp_path / "b", batch_tokens=40, shard_bytes=2000)
    extract(plan, shuffled[:7], small)
    other = extract(plan, shuffled, small).store
    assert len(other.shards) > 3
    found = everything(other, texts)
    for view, values in everything(base, texts).items():
        scale = np.maximum(1, np.abs(values).max(axis=2, keepdims=True))
        assert (np.abs(values - found[view]) <= 1e-5 * scale).all(), view
    mine, theirs = (store.read_tokens(texts, []) for store in (base, other))
    for name in ("offsets", "ids", "spans"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_bits(tiny, tmp_path):
    folder, corpus = tiny("bert"), tmp_path / "texts.txt"
    words = ["dog", "grass", "stove", "winter", "small", "brown", "runs", "over", "green", "then"]
    rng = random.Random(0)
    texts = list(dict.fromkeys(" ".join(rng.choices(words, k=rng.randint(3, 20))) for _ in range(12000)))
    corpus.write_text("\n".join(texts))
    overrides = {
        "corpus.path": corpus, "corpus.columns": "sentence", "corpus.target": "none", "plan.backbone": folder,
        "plan.max_tokens": 32, "plan.views": "mean,tokens", "extract.cache": tmp_path / "killed" / "cache",
        "extract.shard_bytes": 10_000,
    }  # fmt: skip
    command = [sys.executable, "pipeline.py", "extract", "pairs"]
    command += [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    held = []

    def shards() -> int:
        return len(list((tmp_path / "killed" / "cache").rglob("*.h5")))

    for _ in range(10):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
            assert child.stderr is not None
            for line in child.stderr:
                if "self-check" in line:
                    break
            wanted = shards() + rng.randint(0, 4)
            while child.poll() is None and shards() < wanted:
                time.sleep(0.001)
            assert child.poll() is None, "it ended before it was killed"
            child.kill()
        stores = maintenance.stores_with_shards(tmp_path / "killed" / "cache")
        held.append(int(LatentStore.open(stores[0]).has_column(text_keys(texts), "tokens", 3).sum()) if stores else 0)
    assert held == sorted(held)
    assert 0 < held[-1] < len(texts), f"the kills came too early or too late to mean anything: {held}"

    plan = CapturePlan(backbone=str(folder), max_tokens=32, views=("mean", "tokens"))
    done = extract(plan, texts, settings(tmp_path / "killed", shard_bytes=10_000))
    assert done.texts_run == len(texts) - held[-1]
    assert not list(maintenance.verify([done.store.path]))
    whole = extract(plan, texts, settings(tmp_path / "whole"))
    found = everything(done.store, texts)
    for view, values in everything(whole.store, texts).items():
        np.testing.assert_array_equal(found[view], values)


def test_an_interruption_commits_what_is_whole(plan, texts, tmp_path, monkeypatch):
    plan = replace(plan, views=("mean", "tokens"))
    spec, ran = settings(tmp_path, batch_tokens=40), []
    real = runner.BackboneRunner._block

    def interrupted(self: Any, *given: Any) -> Any:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(real(self, *given))
        return ran[-1]

    monkeypatch.setattr(runner.BackboneRunner, "_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(plan, texts, spec)
    monkeypatch.undo()
    done = extract(plan, texts, spec)
    assert done.texts_run == len(texts) - sum(len(block.keys) for block in ran)
    whole = everything(extract(plan, texts, settings(tmp_path / "whole", batch_tokens=40)).store, texts)
    for view, values in everything(done.store, texts).items():
        np.testing.assert_array_equal(values, whole[view])


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_texts(tiny, tmp_path):
    program = """
import resource, sys
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.extraction import extract
texts = [f"dog {' '.join('runs' for _ in range(i % 7))} {i}" for i in range(int(sys.argv[1]))]
views = ("last", "mean", "cls", "max", "tokens")
plan = CapturePlan(backbone=sys.argv[2], views=views, stored_dtype="float32", max_tokens=32)
extract(plan, texts, ExtractSpec(cache=sys.argv[3], device="cpu", shard_bytes=1 << 20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    unit = 1 if sys.platform == "darwin" else 1024

    def peak(texts: int) -> int:
        command = [sys.executable, "-c", program, str(texts), str(tiny("bert")), str(tmp_path / str(texts))]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return int(said.stdout) * unit

    few, many = 2_000, 32_000
    latents = (many - few) * (4 + 7) * 4 * 32 * 4  # views and tokens, layers, width, bytes: 169 MB
    assert peak(many) - peak(few) < 0.4 * latents


def test_truncation_is_counted_cold_and_warm_and_can_be_refused(plan, texts, tmp_path):
    short = CapturePlan(**{**vars(plan), "max_tokens": 8})
    long = sum(len(text.split()) + 2 > 8 for text in texts)
    assert long > 0
    for _ in range(2):
        assert extract(short, texts, settings(tmp_path)).truncated == long
    strict = CapturePlan(**{**vars(short), "truncation": "refuse"})
    for cache in (tmp_path, tmp_path / "cold"):
        with pytest.raises(TextError, match=f"{long} texts exceed plan.max_tokens = 8"):
            extract(strict, texts, settings(cache))
    assert not (tmp_path / "cold" / "cache" / "llama0").exists()


def test_the_self_check_stops_a_machine_that_cannot_be_trusted(plan, texts, tmp_path, monkeypatch):
    """A capture that lets texts that run together see each other is found before anything is stored."""
    from permafrost.extract.capture import packing

    def leaky(rows: Any, width: int) -> np.ndarray:
        return np.repeat(np.tri(width, dtype=bool)[None], len(rows), axis=0)

    monkeypatch.setattr(packing, "_ancestor_mask", leaky)
    with pytest.raises(MachineError, match="self-check"):
        extract(plan, texts, settings(tmp_path))
    assert not maintenance.store_folders(tmp_path / "cache")


def test_the_self_check_is_recorded_with_its_versions(plan, texts, tmp_path):
    (shard,) = extract(plan, texts, settings(tmp_path)).store.shards
    assert 0 <= shard.provenance["self_check"] < 1e-5
    assert {"torch", "transformers", "h5py", "numpy"} <= set(shard.provenance["versions"])


@pytest.mark.parametrize("view", ["mean", "tokens"])
def test_latents_that_are_not_finite_are_refused_by_layer_and_text(view, tiny, texts, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny("bert"), tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"].fill_(float("inf"))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    plan = CapturePlan(backbone=str(broken), views=(view,), max_tokens=32, compute_dtype="float32")
    with pytest.raises((StoreError, MachineError), match=r"layer 2, .*not finite|self-check"):
        extract(plan, texts, settings(tmp_path))


@pytest.mark.parametrize("view", ["mean", "tokens"])
def test_float16_that_would_overflow_is_refused_and_other_dtypes_are_the_way_out(view, tiny, texts, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    loud = shutil.copytree(tiny("gpt2"), tmp_path / "loud")
    weights = load_file(loud / "model.safetensors")
    weights["h.1.mlp.c_proj.bias"][:] = 9e4
    save_file(weights, loud / "model.safetensors", {"format": "pt"})
    plan = CapturePlan(backbone=str(loud), views=(view,), max_tokens=32, stored_dtype="float16")
    with pytest.raises(
        StoreError, match=rf'layer 2, view {view}, text .* does not fit float16; set plan.stored_dtype = "bfl'
    ):
        extract(plan, texts, settings(tmp_path))
    for dtype in ("bfloat16", "float32"):
        other: dict[str, Any] = {"stored_dtype": dtype}
        assert extract(replace(plan, **other), texts, settings(tmp_path)).texts_run
