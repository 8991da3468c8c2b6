"""An adapter is merged exactly, is part of the identity, and one of another model is an error of one line."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost import inspection
from permafrost.data.latents.find_store import find_store
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import call
from permafrost.extract.backbones.file_digest import FileChangedError
from permafrost.extract.backbones.identity import identify
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.extraction import extract
from permafrost.extract.finetuning.top_blocks import TopBlocks
from tests.support.models.backbones import no_pilot

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # peft warns of an embedding of the base and of Conv1D

IDS = torch.arange(5, 17)[None]
TEXTS = ["the small brown dog runs", "it sleeps near an old warm stove .", "dog"]


def adapted(base: Path, folder: Path, head: str = "AutoModelForCausalLM", **config: Any) -> Path:
    """A folder as peft saves it: an adapter of random weights."""
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, head).from_pretrained(base)
    made = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 8, **config}))
    for weight in made.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight.data, std=0.3)
    made.save_pretrained(folder)
    return folder


def plan_of(base: Path, adapter: Path | str, **changes: Any) -> CapturePlan:
    exact: dict[str, Any] = {"max_tokens": 32, "compute_dtype": "float32", "stored_dtype": "float32"}
    return CapturePlan(backbone=str(base), adapter=str(adapter), **exact | changes)


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "patterns": (
        "llama",
        "AutoModelForCausalLM",
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"layers.0.self_attn.v_proj": 2},
            "alpha_pattern": {"model.layers.1.self_attn.q_proj": 3},
        },
    ),
    "transposed and an embedding": ("gpt2", "AutoModelForCausalLM", {"target_modules": ["c_attn", "wte"]}),
    "a head and a pooler": (
        "bert",
        "AutoModelForSequenceClassification",
        {"target_modules": ["query", "dense"], "bias": "lora_only", "task_type": "SEQ_CLS"},
    ),
    "magnitudes and a whole table": (
        "qwen2",
        "AutoModelForCausalLM",
        {"target_modules": "all-linear", "use_dora": True, "modules_to_save": ["embed_tokens"]},
    ),
    "no head": ("roberta", "AutoModel", {"target_modules": ["query", "value"], "bias": "all", "use_rslora": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_states_are_those_of_peft_unmerged(case, tiny, tmp_path):
    import transformers

    family, head, config = CASES[case]
    base = tiny(family)
    folder = adapted(base, tmp_path / "adapter", head, **config)
    expected = peft.PeftModel.from_pretrained(getattr(transformers, head).from_pretrained(base), folder).eval()
    plan = plan_of(base, folder)
    merged = load_backbone(find_backbone(plan), plan, "float32", "cpu").model
    plain = load_backbone(find_backbone(plan_of(base, "")), plan, "float32", "cpu").model
    assert dict(merged.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    with torch.inference_mode():
        wanted = expected(input_ids=IDS, output_hidden_states=True).hidden_states
    states, before = (call(model, input_ids=IDS, output_hidden_states=True).hidden_states for model in (merged, plain))
    for layer, (actual, wished) in enumerate(zip(states, wanted, strict=True)):
        assert (actual - wished).abs().max() <= 1e-5 * wished.abs().max(), layer  # one sum instead of two
    assert (states[-1] - before[-1]).abs().max() > 0.1
    rounded = load_backbone(find_backbone(plan), plan, "bfloat16", "cpu").model
    for weight, exact in zip(rounded.parameters(), merged.parameters(), strict=True):
        assert weight.dtype == torch.bfloat16
        assert (weight.float() - exact).abs().max() <= 2**-7 * exact.abs().max()  # of the base, and of the sum


def test_its_tensors_and_scale_are_part_of_the_identity_and_its_name_is_not(tiny, tmp_path):
    def identity(adapter: Path | str) -> str:
        plan = plan_of(tiny("gpt2"), adapter)
        return identify(find_backbone(plan), plan, "cpu", tmp_path, no_pilot).name

    folder = adapted(tiny("gpt2"), tmp_path / "adapter", target_modules=["c_attn"])
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "adapter_config.json").read_text())
    renamed = {"base_model_name_or_path": "x/y", "lora_dropout": 0.5, "inference_mode": False}
    (copy / "adapter_config.json").write_text(json.dumps(config | renamed))
    names = {identity(""), identity(folder)}
    assert len(names) == 2
    assert identity(copy) in names
    (copy / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 9}))
    names.add(identity(copy))
    content = bytearray((folder / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(content)
    names.add(identity(folder))
    assert len(names) == 4


def test_an_adapter_that_changes_between_digest_and_loading_is_refused(tiny, tmp_path):
    folder = adapted(tiny("gpt2"), tmp_path / "adapter", target_modules=["c_attn"])
    plan = plan_of(tiny("gpt2"), folder)
    source = find_backbone(plan)
    identify(source, plan, "cpu", tmp_path, no_pilot)
    adapted(tiny("gpt2"), folder, target_modules=["c_attn"])
    with pytest.raises(FileChangedError, match=r"adapter_model.safetensors changed while it was being read"):
        load_backbone(source, plan, "float32", "cpu")


def test_a_store_is_found_by_its_adapter_without_the_weights(tiny, tmp_path):
    folder, spec = adapted(tiny("gpt2"), tmp_path / "a", target_modules=["c_attn"]), ExtractSpec(cache=str(tmp_path))
    with_adapter, plain = plan_of(tiny("gpt2"), folder), plan_of(tiny("gpt2"), "")
    stores = [extract(plan, TEXTS, spec).store for plan in (with_adapter, plain)]
    assert [find_store(tmp_path, plan).path for plan in (with_adapter, plain)] == [store.path for store in stores]
    read = [store.read(TEXTS, "mean", [3]) for store in stores]
    assert not np.array_equal(*read)
    exact = {"layers": [3], "max_tokens": 32, "compute_dtype": "float32", "stored_dtype": "float32"}
    for adapter, values in zip((str(folder), ""), read, strict=True):
        found = inspection.latents(TEXTS, str(tiny("gpt2")), cache=None, adapter=adapter, **exact)
        np.testing.assert_array_equal(found["mean"], values)
    assert (
        inspection.backbone(str(tiny("gpt2")), tmp_path, "cpu", str(folder)).peaks
        != inspection.backbone(str(tiny("gpt2")), tmp_path, "cpu").peaks
    )


def test_blocks_that_are_trained_begin_merged_and_are_saved_whole(tiny, tmp_path):
    folder = adapted(tiny("gpt2"), tmp_path / "adapter", target_modules=["c_attn"])
    plan = plan_of(tiny("gpt2"), folder)
    TopBlocks(plan, 1, cache=str(tmp_path)).save(tmp_path / "saved")
    merged = load_backbone(find_backbone(plan), plan, "float32", "cpu").model.state_dict()
    saved = plan_of(tmp_path / "saved", "")
    again = load_backbone(find_backbone(saved), saved, "float32", "cpu").model.state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in merged.items())


def test_what_is_no_adapter_of_the_model_is_refused_with_the_way_out(tiny, tmp_path, monkeypatch):
    llama = adapted(tiny("llama"), tmp_path / "llama", target_modules=["q_proj"])
    gpt2 = adapted(tiny("gpt2"), tmp_path / "gpt2", target_modules=["c_attn"])

    def changed(name: str, **config: Any) -> Path:
        folder = Path(shutil.copytree(gpt2, tmp_path / name))
        values = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(values | config))
        return folder

    def load(base: Path, adapter: Path) -> None:
        plan = plan_of(base, adapter)
        load_backbone(find_backbone(plan), plan, "float32", "cpu")

    pickled = changed("pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    code = {"megatron_config": {"x": 1}, "megatron_core": "os"}
    cases: list[tuple[Path, Path, str]] = [
        (
            tiny("gpt2"),
            llama,
            r"is no adapter of .*, its base is '.*llama.*' by its adapter_config.json \(none of its ten",
        ),
        (tiny("gpt2", width=16), gpt2, "is no adapter of .*size mismatch|is no adapter of"),
        (
            tiny("llama", blocks=2),
            llama,
            r"is no adapter of .*\(the model has no module model.layers.2.self_attn.q_proj",
        ),
        (tiny("gpt2"), changed("rank", r=8), "is no adapter of"),
        (tiny("gpt2"), tmp_path / "nowhere", "is no folder of an adapter: it has no adapter_config.json"),
        (tiny("gpt2"), tiny("gpt2"), "is no folder of an adapter"),
        (tiny("gpt2"), changed("ia3", peft_type="IA3"), "its peft_type is 'IA3', and only LORA is merged"),
        (tiny("gpt2"), changed("pissa", init_lora_weights="pissa"), "'pissa' replaces the weights of its base too"),
        (tiny("gpt2"), changed("code", **code), "sets 'megatron_config', which is not supported"),
        (tiny("gpt2"), pickled, "holds no weights .* which can run code when loaded"),
    ]
    for base, adapter, message in cases:
        with pytest.raises(BackboneError, match=message) as caught:
            load(base, adapter)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(gpt2))
    for name in (gpt2, "someone/adapter"):
        with pytest.raises(
            BackboneError, match=r"holds an adapter .*: set plan.backbone to its base, .*gpt2.*, and plan"
        ):
            find_backbone(plan_of(name, ""))
    with pytest.raises(SpecError, match='init = "random" draws them: leave one out'):
        plan_of(tiny("gpt2"), gpt2, init="random")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BackboneError, match=r"plan.adapter needs the package peft .* pip install 'permafrost\[peft\]'"):
        load(tiny("gpt2"), gpt2)
