"""Weights land where they belong, once, in the precision that they are run in, wherever they fit."""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import call
from permafrost.extract.backbones import load
from permafrost.extract.backbones.load import Backbone, load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.extractor import Extractor
from tests.support.marks import slow_but_first
from tests.support.models.backbones import save_random, save_tokenizer, word_tokenizer
from tests.support.models.kinds import CHANGES, ROADS, tiny_config

IDS = torch.arange(5, 17)[None]
TEXTS = ["the small brown dog runs", "it sleeps near an old warm stove .", "the dog"]
QUICK = ("llama", "gemma", "gptj", "ernie4_5_moe", "bert", "deberta", "t5", "bart", "marian")
"""Kinds with tables of positions, scales, weights that transformers keeps in float32, and weights in two places."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(word_tokenizer(special=False), tmp_path_factory.mktemp("tokenizer"))


def plan_of(folder: Path, tokenizer: Path, **changes: Any) -> CapturePlan:
    return CapturePlan(backbone=str(folder), tokenizer=str(tokenizer), max_tokens=32, stored_dtype="float32", **changes)


def loaded(folder: Path, tokenizer: Path, dtype: str = "float32") -> Backbone:
    plan = plan_of(folder, tokenizer)
    return load_backbone(find_backbone(plan), plan, dtype, "cpu")


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict([*model.named_parameters(), *model.named_buffers()])


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow)
        for kinds in ROADS.values()
        for kind in kinds.split()
    ],
)
def test_a_model_in_bfloat16_is_the_one_that_transformers_loads_trained_or_not(kind, stored, tokenizer, tmp_path):
    from transformers import AutoModel

    folder = save_random(tiny_config(kind, **CHANGES.get(kind, {})), tmp_path / "model")
    AutoModel.from_pretrained(folder, dtype=stored).save_pretrained(folder)
    plan = plan_of(folder, tokenizer, init="random" if stored is torch.float32 else "pretrained")
    source = find_backbone(plan)
    if plan.init == "random":
        load.untrained_model(source, plan.init_seed).save_pretrained(folder)
    direct = load_backbone(source, plan, "bfloat16", "cpu").model
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    (folder / "model.safetensors").write_bytes(bytes((folder / "model.safetensors").stat().st_size))  # if it is mapped
    theirs = AutoModel.from_pretrained(copied, dtype=torch.bfloat16, **load._model_arguments(source))
    theirs = theirs.get_submodule(source.architecture.tower).eval()
    if kind in load.FLOAT32_TENSORS:
        theirs.to(torch.bfloat16)
    expected, actual = tensors(theirs), tensors(direct)
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == actual[name].dtype, name
        assert torch.equal(tensor, actual[name]), name
    if kind != "fnet":  # whose Fourier transform has no bfloat16
        assert torch.equal(call(direct, input_ids=IDS)[0], call(theirs, input_ids=IDS)[0])


HEADS = [
    ("bert", "AutoModelForSequenceClassification"),
    ("bert", "AutoModelForMaskedLM"),
    ("distilbert", "AutoModelForQuestionAnswering"),
    ("t5", "T5ForConditionalGeneration"),
    ("t5", "T5EncoderModel"),
    ("bart", "BartForConditionalGeneration"),
    ("bart", "BartForSequenceClassification"),
    ("marian", "MarianMTModel"),
    ("llama", "AutoModelForSequenceClassification"),
    ("gemma3", "AutoModelForImageTextToText"),
]


@pytest.mark.parametrize(("kind", "head"), slow_but_first(HEADS))
def test_a_checkpoint_with_a_head_is_read_as_its_tower_and_lacks_nothing_silently(kind, head, tokenizer, tmp_path):
    import transformers
    from safetensors.torch import load_file, save_file

    config, made = tiny_config(kind), getattr(transformers, head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = (made(config) if hasattr(made, "forward") else made.from_config(config)).eval()
    model.save_pretrained(tmp_path / "model")
    backbone = loaded(tmp_path / "model", tokenizer)
    path = f"{model.base_model_prefix}.{backbone.source.architecture.tower}".strip(".")
    tower = model.get_submodule(path if hasattr(model, model.base_model_prefix) else backbone.source.architecture.tower)
    torch.testing.assert_close(call(backbone.model, input_ids=IDS)[0], call(tower, input_ids=IDS)[0])
    held = load_file(tmp_path / "model" / "model.safetensors")
    tables = [weight for weight in backbone.model.parameters() if weight.dim() > 1]
    needed = [key for key, weight in held.items() if any(torch.equal(weight, table) for table in tables)]
    assert needed
    for key in (needed[0], needed[-1], *(name for name in needed if "embed" in name or "shared" in name)):
        rest = {name: weight for name, weight in held.items() if name != key}
        save_file(rest, tmp_path / "model" / "model.safetensors", {"format": "pt"})
        with pytest.raises(BackboneError, match="lacks 1 weights"):
            loaded(tmp_path / "model", tokenizer)


def test_weights_in_several_files_and_in_two_places_are_read_whole(tokenizer, tmp_path):
    from transformers import T5Model

    folder = save_random(tiny_config("t5"), tmp_path / "model")
    whole = loaded(folder, tokenizer).model.state_dict()
    T5Model.from_pretrained(folder).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    files = list((tmp_path / "sharded").glob("*.safetensors"))
    named = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(files) > 2
    assert "encoder.embed_tokens.weight" not in named
    again = loaded(tmp_path / "sharded", tokenizer).model.state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "kind", ["bert", "llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gpt2", "t5", "qwen3_moe"))]
)
def test_latents_are_the_same_bits_where_the_weights_are_spread(kind, dtype, tokenizer, tmp_path, monkeypatch):
    from transformers.integrations import accelerate

    folder = save_random(tiny_config(kind), tmp_path / "model")
    plan = plan_of(folder, tokenizer, compute_dtype=dtype)
    layers = {"mean": tuple(range(find_backbone(plan).layers))}

    def latents(**spec: Any) -> tuple[np.ndarray, bool]:
        extractor = Extractor(plan, ExtractSpec(cache=str(tmp_path / "cache"), **spec))
        on_disk = any(weight.is_meta for weight in extractor.backbone.model.parameters())
        return np.asarray(extractor(TEXTS, layers)["mean"]), on_disk

    (on_one, _), (on_the_cpu, spread) = latents(device="cpu"), latents(device_map="auto")
    size = (
        sum(weight.numel() for weight in loaded(folder, tokenizer).model.parameters()) * getattr(torch, dtype).itemsize
    )
    monkeypatch.setattr(accelerate, "accelerate_max_memory", lambda *_: {"cpu": size // 2})
    partly_on_disk, some = latents(device_map="auto")
    assert (spread, some) == (torch.cuda.is_available(), True)
    np.testing.assert_array_equal(on_one, on_the_cpu)
    np.testing.assert_array_equal(on_one, partly_on_disk)


def test_spread_weights_lie_in_the_cache_as_long_as_the_backbone_lives(tokenizer, tmp_path, monkeypatch):
    from transformers.integrations import accelerate

    monkeypatch.setattr(accelerate, "accelerate_max_memory", lambda *_: {"cpu": 30_000})
    plan = plan_of(save_random(tiny_config("bert"), tmp_path / "model"), tokenizer)
    cache = tmp_path / "cache"
    extractor = Extractor(plan, ExtractSpec(cache=str(cache), device_map="auto"))
    (folder,) = cache.glob("weights-*")
    assert (folder / "model.safetensors").is_symlink()
    assert len(extractor(TEXTS, {"mean": (0,)})["mean"][0]) == len(TEXTS)
    del extractor
    gc.collect()
    assert not folder.exists()


def test_weights_on_the_disk_that_change_during_a_run_are_noticed(tokenizer, tmp_path, monkeypatch):
    from transformers.integrations import accelerate

    folder = save_random(tiny_config("bert"), tmp_path / "model")
    monkeypatch.setattr(accelerate, "accelerate_max_memory", lambda *_: {"cpu": 30_000})
    plan = plan_of(folder, tokenizer)
    backbone = load_backbone(find_backbone(plan), plan, "float32", "cpu", "auto")
    call(backbone.model, input_ids=IDS)
    shutil.copy(folder / "model.safetensors", tmp_path / "copy")
    shutil.move(tmp_path / "copy", folder / "model.safetensors")
    with pytest.raises(BackboneError.__mro__[1], match="changed while it was being read"):
        call(backbone.model, input_ids=IDS)


def test_what_does_not_fit_is_refused_before_it_is_loaded_with_the_ways_out(tokenizer, tmp_path, monkeypatch):
    folder = save_random(tiny_config("bert"), tmp_path / "model")
    size = sum(weight.numel() for weight in loaded(folder, tokenizer).model.parameters())
    monkeypatch.setattr(load, "free_memory", lambda device: size * 3)
    loaded(folder, tokenizer, "bfloat16")
    monkeypatch.setattr(load, "_pretrained", lambda *_: pytest.fail("the weights were loaded"))
    with pytest.raises(MachineError, match=r"takes 0.0 GB in float32, and the cpu has .* free: set plan.compute_dtype"):
        loaded(folder, tokenizer)
    monkeypatch.setattr(load, "free_memory", lambda device: size)
    with pytest.raises(MachineError, match=r'in bfloat16, and .* free: set extract.device_map = "auto"') as caught:
        loaded(folder, tokenizer, "bfloat16")
    assert "\n" not in str(caught.value)


def test_a_map_of_devices_needs_its_package_and_no_device(tokenizer, tmp_path, monkeypatch):
    folder = save_random(tiny_config("bert"), tmp_path / "model")
    with pytest.raises(SpecError, match='device = "cpu" names one device, and device_map = "auto" takes all'):
        ExtractSpec(device="cpu", device_map="auto")
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="needs the package accelerate; install it: pip install accelerate"):
        Extractor(plan_of(folder, tokenizer), ExtractSpec(cache=str(tmp_path), device_map="auto"))


@pytest.mark.parametrize("kind", ["bert", "gemma3"])
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(kind, tmp_path):
    config = tiny_config(kind)
    config.get_text_config().vocab_size = 8
    tokenizer = save_tokenizer(word_tokenizer(special=False), tmp_path / "tokenizer")
    plan = plan_of(save_random(config, tmp_path / "model"), tokenizer)
    with pytest.raises(BackboneError, match=r"gives token \d+, and .* knows 8: it is of another model. Set plan.token"):
        Extractor(plan, ExtractSpec(cache=str(tmp_path)))(TEXTS, {"mean": (0,)})
