"""Digests of a backbone: of what they are made, what is remembered of them, and under which key."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones import identity, load
from permafrost.extract.backbones.file_digest import MEMO
from permafrost.extract.backbones.identity import backbone_digests, compute_dtype, identify
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.stored_dtype import choose_stored_dtype
from tests.support.models.backbones import no_pilot


def plan_of(folder: Any, **changes: Any) -> CapturePlan:
    settings: dict[str, Any] = {"max_tokens": 32, "compute_dtype": "float32", "stored_dtype": "float32"}
    return CapturePlan(backbone=str(folder), **settings | changes)


def remembered(cache: Path) -> dict[str, str]:
    entries: dict[str, str] = json.loads((cache / MEMO).read_text())["entries"]
    return entries


def identified(plan: CapturePlan, cache: Path, peak: Any = no_pilot) -> Any:
    return identify(find_backbone(plan), plan, "cpu", cache, peak)


def test_what_is_asked_of_a_backbone_alone_is_what_its_identity_holds(tiny, tmp_path):
    plan = plan_of(tiny("bert"))
    found = identified(plan, tmp_path / "a")
    spec = ExtractSpec(cache=str(tmp_path / "b"), device="cpu")
    assert backbone_digests(plan, spec) == {"weights": found.weights, "tokenizer": found.tokenizer}
    assert (tmp_path / "a" / MEMO).is_file()
    assert (tmp_path / "b" / MEMO).is_file()


@pytest.mark.parametrize("peak", [1.0, 60_000.0, 1e9])
def test_the_peak_of_the_pilot_decides_the_dtype_and_is_asked_once(peak, tiny, tmp_path):
    plan, asked = plan_of(tiny("gpt2"), stored_dtype="auto"), []

    def measure() -> float:
        asked.append(peak)
        return peak

    for _ in range(2):
        assert identified(plan, tmp_path, measure).stored_dtype == choose_stored_dtype(peak)
    assert asked == [peak]
    assert f"{peak:.6g}" in remembered(tmp_path).values()
    identified(plan_of(tiny("gpt2"), stored_dtype="auto", final_norm=True), tmp_path, measure)
    assert asked == [peak, peak], "other latents"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("native", [False, True])
def test_auto_is_the_dtype_that_the_device_computes_in(device, native, monkeypatch, tmp_path):
    asked: list[str] = []
    monkeypatch.setattr(identity, "native_bfloat16", lambda name: asked.append(name) or native)
    auto, memo = plan_of("x", compute_dtype="auto"), Memo(tmp_path / MEMO)
    expected = "bfloat16" if native else "float32"
    assert [compute_dtype(auto, device) for _ in range(2)] == [expected] * 2
    assert asked == [device, device]
    assert [compute_dtype(auto, device, memo) for _ in range(3)] == [expected] * 3
    assert len(asked) == (3 if device == "cpu" else 5), "of a processor it is remembered, of a GPU it is not"
    for given in ("float32", "bfloat16"):
        assert compute_dtype(plan_of("x", compute_dtype=given), device, memo) == given


def test_the_dtype_of_another_processor_or_version_is_asked_anew(monkeypatch, tmp_path):
    auto, memo, answers = plan_of("x", compute_dtype="auto"), Memo(tmp_path / MEMO), []

    def native(_: str) -> bool:
        answers.append(len(answers) % 2 == 0)
        return answers[-1]

    monkeypatch.setattr(identity, "native_bfloat16", native)
    assert compute_dtype(auto, "cpu", memo) == "bfloat16"
    monkeypatch.setattr(identity, "processor", lambda: "another")
    assert compute_dtype(auto, "cpu", memo) == "float32"
    monkeypatch.setattr(identity, "package_version", lambda package: f"{package} 9")
    assert compute_dtype(auto, "cpu", memo) == "bfloat16"
    assert [compute_dtype(auto, "cpu", memo), len(answers)] == ["bfloat16", 3]


@pytest.mark.parametrize("package", ["transformers", "tokenizers", "sentencepiece", "tiktoken"])
@pytest.mark.parametrize("version", ["9.9", None])
def test_a_tokenizer_is_made_again_by_another_version_of_what_makes_it(package, version, tiny, tmp_path, monkeypatch):
    plan, made, real = plan_of(tiny("bert")), [], identity.load_tokenizer
    monkeypatch.setattr(identity, "load_tokenizer", lambda files: made.append(1) or real(files))
    known = dict.fromkeys(("torch", "transformers", "tokenizers", "sentencepiece", "tiktoken"), "1.0")
    monkeypatch.setattr(identity, "package_version", lambda name: known[name])
    before = identified(plan, tmp_path)
    assert (identified(plan, tmp_path), len(made)) == (before, 1)
    known[package] = version  # type: ignore[assignment]
    assert (identified(plan, tmp_path), len(made)) == (before, 2)
    (key,) = [key for key in remembered(tmp_path) if key.endswith(versions_text(known))]
    assert key.startswith("tokenizer ")


def versions_text(known: dict[str, Any]) -> str:
    return " ".join(f"{name} {known[name] or 'none'}" for name in known if name != "torch")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the untrained models that are made."""
    seeds: list[int] = []
    real = load.untrained_model
    monkeypatch.setattr(load, "untrained_model", lambda source, seed: seeds.append(seed) or real(source, seed))
    return seeds


def random_weights(tiny: Any, cache: Path, seed: int = 0, family: str = "gpt2") -> str:
    weights: str = identified(plan_of(tiny(family), init="random", init_seed=seed), cache).weights
    return weights


def test_untrained_weights_are_known_by_their_configuration_and_seed(tiny, tmp_path, drawn):
    found = [random_weights(tiny, tmp_path, seed) for seed in (0, 1, 0, 1)]
    assert drawn == [0, 1], "drawn once each"
    assert found[:2] == found[2:]
    assert found[0] != found[1]
    assert random_weights(tiny, tmp_path / "fresh") == found[0]
    assert random_weights(tiny, tmp_path, 0, "bert") not in found


@pytest.mark.parametrize("change", ["torch", "transformers", "processor", "capability"])
def test_untrained_weights_are_drawn_again_where_others_may_be_drawn(change, tiny, tmp_path, drawn, monkeypatch):
    before, real = random_weights(tiny, tmp_path), identity.package_version
    if change == "processor":
        monkeypatch.setattr(identity, "processor", lambda: "another")
    elif change == "capability":
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "another")
    else:
        monkeypatch.setattr(identity, "package_version", lambda name: "9" if name == change else real(name))
    assert random_weights(tiny, tmp_path) == before, "the same were drawn"
    assert drawn == [0, 0]


def test_untrained_weights_are_told_apart_by_every_number_and_name(tiny, tmp_path, monkeypatch):
    source = find_backbone(plan_of(tiny("gpt2"), init="random"))
    state = load.untrained_model(source, 0).state_dict()
    first = next(iter(state))

    class Made:
        def __init__(self, state: dict[str, torch.Tensor]) -> None:
            self.state_dict = lambda: state

    others = [
        state,
        {**state, first: state[first] + 1e-6},
        {("x" + name if name == first else name): weight for name, weight in state.items()},
        {name: weight for name, weight in state.items() if name != first},
    ]
    found = []
    for number, weights in enumerate(others):
        monkeypatch.setattr(load, "untrained_model", lambda source, seed, weights=weights: Made(weights))
        found.append(random_weights(tiny, tmp_path / str(number)))
    assert len(set(found)) == len(others)


def test_weights_are_known_by_each_of_their_files_in_order_and_by_the_configuration(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    before = identified(plan_of(folder), tmp_path / "a")
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors", {"format": "pt"})
    after = identified(plan_of(folder), tmp_path / "b")
    assert after.differences(before) == ["weights"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert identified(plan_of(folder), tmp_path / "c").weights not in (before.weights, after.weights)


def test_weights_that_cannot_be_read_are_told_with_their_file(tiny, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    source = find_backbone(plan_of(folder))
    assert [path.name for path in source.stamps] == ["model.safetensors"]  # they are listed, then one goes
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"model\.safetensors cannot be read \(.*No such file"):
        identify(source, plan_of(folder), "cpu", tmp_path, no_pilot)

    def fails(path: Path, memo: Memo) -> str:
        raise OSError("the disk is gone")

    monkeypatch.setattr(identity, "cached_digest", fails)
    with pytest.raises(BackboneError, match=r"/model cannot be read \(the disk is gone\)\.$"):
        identify(source, plan_of(folder), "cpu", tmp_path, no_pilot)
