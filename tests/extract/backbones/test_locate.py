"""Backbones are found by name, hub id or folder, identified by what changes a latent, and run no code of theirs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from permafrost.data.plan.plan import CapturePlan
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.identity import identify
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import UNLIMITED, find_backbone
from permafrost.extract.backbones.registry import SHORT_NAMES
from tests.support.models.backbones import no_pilot, save_random
from tests.support.models.families import FAMILIES
from tests.support.models.kinds import tiny_config
from tests.support.real import real_model


def identity_of(cache: Path, backbone: Any, **plan: Any) -> Any:
    exact = {"max_tokens": 32, "compute_dtype": "float32", "stored_dtype": "float16"}
    made = CapturePlan(backbone=str(backbone), **exact | plan)
    return identify(find_backbone(made), made, "cpu", cache, no_pilot)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_says_how_many_layers_it_has_without_being_loaded(family, tiny):
    source = find_backbone(CapturePlan(backbone=str(tiny(family)), max_tokens=32))
    assert (source.layers, source.width) == (4, 32)
    assert source.longest == 64 + (2 if family in ("qwen2", "llama", "bert") else 0)


@pytest.mark.parametrize("name", [name for name, known in SHORT_NAMES.items() if known.hub or not known.package])
def test_a_short_name_is_pinned_to_a_commit(name):
    assert len(SHORT_NAMES[name].revision) == 40
    assert "/" in SHORT_NAMES[name].hub


@pytest.mark.parametrize("name", [name for name, known in SHORT_NAMES.items() if known.architecture])
def test_an_untrained_backbone_of_known_architecture_needs_no_hub(name):
    plan = CapturePlan(backbone=name, init="random", tokenizer=str(real_model("gpt2_vocab")))
    source = find_backbone(plan)
    assert source.folder is None
    assert source.layers in (7, 13, 25, 37)


def test_an_untrained_backbone_is_drawn_from_its_seed(tiny, tmp_path):
    def weights(seed: int) -> dict[str, torch.Tensor]:
        plan = CapturePlan(backbone=str(tiny("gpt2")), init="random", init_seed=seed, max_tokens=32)
        return dict(load_backbone(find_backbone(plan), plan, "float32", "cpu").model.state_dict())

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["wte.weight"], other["wte.weight"])
    digests = {identity_of(tmp_path, tiny("gpt2"), init="random", init_seed=seed).weights for seed in (0, 0, 1)}
    assert len(digests) == 2
    assert identity_of(tmp_path, tiny("gpt2")).weights not in digests


def test_the_identity_holds_what_changes_a_latent_and_nothing_else(tiny, tmp_path):
    base = identity_of(tmp_path, tiny("gpt2"))
    assert identity_of(tmp_path, tiny("gpt2"), views=("last",), layers=(1,), truncation="refuse") == base
    for change in (
        {"template": "so {text}"}, {"max_tokens": 31}, {"stored_dtype": "float32"}, {"final_norm": True},
        {"compute_dtype": "bfloat16"}, {"tokenizer": str(tiny("bert"))},
    ):  # fmt: skip
        assert identity_of(tmp_path, tiny("gpt2"), **change) != base, change


def test_a_copy_has_the_same_identity_and_changed_weights_or_meaning_another(tiny, tmp_path):
    base = identity_of(tmp_path, tiny("bert"))
    copy = Path(shutil.copytree(tiny("bert"), tmp_path / "copy"))
    assert identity_of(tmp_path, copy) == base
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    assert identity_of(tmp_path, copy).weights != base.weights
    (copy / "config.json").write_text(json.dumps(config))
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert identity_of(tmp_path, copy).weights != base.weights


def without(folder: Path, target: Path, *names: str, **config: Any) -> Path:
    copy = Path(shutil.copytree(folder, target))
    for name in names:
        (copy / name).unlink()
    if config:
        (copy / "config.json").write_text(json.dumps(json.loads((copy / "config.json").read_text()) | config))
    return copy


def test_what_is_no_backbone_is_refused_with_the_way_out(tiny, tmp_path):
    bert = tiny("bert")
    pickled = without(bert, tmp_path / "pickled", "model.safetensors")
    torch.save({}, pickled / "pytorch_model.bin")
    code = {"AutoModel": "x.Y"}
    cases = {
        "minilmm": "Did you mean 'minilm'",
        "gpt2-medium": "not in the local hub cache and the hub cannot be reached",
        "someone/something": "not in the local hub cache",
        str(tmp_path / "nowhere"): "no such folder",
        str(without(bert, tmp_path / "plain", "config.json")): "it has no config.json",
        str(pickled): "pickled weights only",
        str(without(bert, tmp_path / "empty", "model.safetensors")): "holds no weights",
        str(without(bert, tmp_path / "alien", model_type="alien", auto_map=code)): "no model of the kind 'alien'",
        str(without(bert, tmp_path / "mute", "tokenizer.json", "tokenizer_config.json")): "holds no tokenizer",
    }
    for backbone, message in cases.items():
        with pytest.raises(BackboneError, match=message):
            identity_of(tmp_path, backbone)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../outside.safetensors", "/outside.safetensors"])
def test_an_index_may_only_name_safetensors_beside_it(name, tiny, tmp_path):
    folder = without(tiny("bert"), tmp_path / "model", "model.safetensors")
    shutil.copy(tiny("bert") / "model.safetensors", tmp_path / "outside.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embeddings.x": name}}))
    with pytest.raises(BackboneError, match="must name safetensors files beside it"):
        identity_of(tmp_path, folder)


def test_what_would_load_other_weights_than_those_digested_is_refused(tiny, tmp_path):
    other = without(tiny("bert"), tmp_path / "other", transformers_weights="other.safetensors")
    quantised = without(tiny("bert"), tmp_path / "quantised", quantization_config={"quant_method": "gptq"})
    adapted = without(tiny("bert"), tmp_path / "adapted")
    (adapted / "adapter_config.json").write_text("{}")
    for folder, message in ((other, "transformers_weights"), (quantised, "quantization_config"), (adapted, "adapter")):
        with pytest.raises(BackboneError, match=message):
            identity_of(tmp_path, folder)


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 0}, "says 0 blocks, and at least 1 is needed"),
    ({"num_hidden_layers": 1_000_000}, "says 1,000,000 blocks, and at most 1,000 are read"),
    ({"hidden_size": "32"}, r"cannot be used \(Field 'hidden_size' expected int, got str"),
    ({"hidden_size": 10**9}, "too large to make some of them in memory"),
    ({"max_position_embeddings": None}, r"cannot be used \(Field 'max_position_embeddings' expected int"),
    ({"max_position_embeddings": 0}, "makes no model that can be run"),
    ({"model_type": ["bert"]}, "transformers has no model of the kind"),
    ({"model_type": "encodec"}, "no part of it takes token ids, so it is no model of text"),
    ({"hidden_dropout_prob": "much"}, r"cannot be used \(Field 'hidden_dropout_prob'"),
    ({"num_attention_heads": 0}, "no model can be made of its config.json"),
    ({"hidden_act": "none"}, r"no model can be made of its config.json \('none'\)"),
]


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE, ids=[str(change) for change, _ in IMPOSSIBLE])
def test_a_configuration_that_makes_no_model_of_text_is_refused(change, message, tiny, tmp_path):
    folder = without(tiny("bert"), tmp_path / "odd", **change)
    with pytest.raises(BackboneError, match=f"^'{folder}': .*{message}"):
        identity_of(tmp_path, folder)


def test_positions_without_a_table_and_a_longest_text_in_the_configuration_limit_no_text(tmp_path):
    folder = save_random(tiny_config("t5"), tmp_path / "model")
    assert find_backbone(CapturePlan(backbone=str(folder), max_tokens=100_000)).longest == UNLIMITED


def test_the_attention_of_a_configuration_is_not_asked(tiny, tmp_path):
    plan = CapturePlan(
        backbone=str(without(tiny("bert"), tmp_path / "eager", _attn_implementation="eager")), max_tokens=32
    )
    assert load_backbone(find_backbone(plan), plan, "float32", "cpu").model.config._attn_implementation == "sdpa"


def test_weights_that_are_damaged_or_missing_are_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    def loaded(folder: Path) -> None:
        plan = CapturePlan(backbone=str(folder), max_tokens=32)
        load_backbone(find_backbone(plan), plan, "float32", "cpu")

    short = without(tiny("bert"), tmp_path / "short")
    (short / "model.safetensors").write_bytes((short / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        loaded(short)
    weights = load_file(tiny("bert") / "model.safetensors")
    del weights["encoder.layer.2.output.dense.weight"]
    lacking = without(tiny("bert"), tmp_path / "lacking")
    save_file(weights, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks 1 weights, the first is encoder.layer.2.output.dense.weight"):
        loaded(lacking)


SCALED = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, "short_factor": [1.0] * 4, "long_factor": [2] * 4}


@pytest.mark.parametrize("rope", ["dynamic", ["dynamic"], SCALED | {"original_max_position_embeddings": "x"}])
def test_settings_of_positions_that_make_no_sense_are_refused(rope, tiny, tmp_path):
    folder = without(tiny("llama"), tmp_path / "odd", rope_parameters=rope)
    with pytest.raises(BackboneError, match=r"cannot be used \(Field 'rope_parameters'|must be real number"):
        find_backbone(CapturePlan(backbone=str(folder), max_tokens=32))


def test_texts_longer_than_the_backbone_reads_are_refused(tiny):
    with pytest.raises(BackboneError, match=r"plan.max_tokens = 256, but .* reads at most 64 tokens"):
        find_backbone(CapturePlan(backbone=str(tiny("gpt2")), max_tokens=256))


def test_code_that_ships_with_a_model_never_runs(tiny, tmp_path):
    evil = without(tiny("bert"), tmp_path / "evil", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    (evil / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    plan = CapturePlan(backbone=str(evil), max_tokens=32)
    load_backbone(find_backbone(plan), plan, "float32", "cpu")
    assert not (tmp_path / "ran").exists()
