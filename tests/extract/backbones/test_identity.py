"""What can change a latent gives another store, and what cannot gives the same; metadata never stands for content."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from permafrost.data import memo as memo_module
from permafrost.data.corpora.records import CorpusError
from permafrost.data.latents.find_store import find_store
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.store.errors import StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.store import LatentStore
from permafrost.extract.architecture.configuration import BackboneError, model_config
from permafrost.extract.backbones import file_digest, identity
from permafrost.extract.backbones.file_digest import MEMO, FileChangedError
from permafrost.extract.backbones.identity import identify
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.tokenizer import (
    load_tokenizer,
    make_tokenizer,
    tokenizer_digest,
    tokenizer_for_saving,
)
from permafrost.extract.backbones.tokenizer_files import is_of_tokenizer, read_tokenizer
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor, matching_extractor
from tests.support.models.backbones import no_pilot, save_random, save_tokenizer, word_tokenizer
from tests.support.models.kinds import tiny_config
from tests.support.real import real_model

TEXTS = ["the small brown dog runs over green grass", "It sleeps near an old warm stove .", "dog", "Winter and then"]
ANOTHER, SAME = "another", "same"
Change = Callable[[Path], Any]


def plan_of(folder: Any, **changes: Any) -> CapturePlan:
    exact: dict[str, Any] = {"max_tokens": 32, "compute_dtype": "float32", "stored_dtype": "float32"}
    return CapturePlan(backbone=str(folder), **exact | changes)


def identity_of(folder: Any, cache: Path, **changes: Any) -> Any:
    plan = plan_of(folder, **changes)
    return identify(find_backbone(plan), plan, "cpu", cache, no_pilot)


def latents(plan: CapturePlan, cache: Path) -> np.ndarray:
    return np.asarray(Extractor(plan, ExtractSpec(cache=str(cache), device="cpu"))(TEXTS, {"mean": (0, 1, 3)})["mean"])


def as_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def config(**keys: Any) -> Change:
    return lambda folder: as_json(folder / "config.json", lambda values: values.update(keys))


def settings(**keys: Any) -> Change:
    return lambda folder: as_json(folder / "tokenizer_config.json", lambda values: values.update(keys))


def tokenizer_json(edit: Callable[[dict[str, Any]], Any]) -> Change:
    return lambda folder: as_json(folder / "tokenizer.json", edit)


def wrote(name: str, content: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return change


def flipped(path: Path, place: int) -> bytes:
    """The content with one bit the other way."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x80
    return bytes(content)


def a_weight(path: Path) -> int:
    """Where a file has the sign of the first weight of a norm, or of any tensor if it has none."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    tensors = {key: value for key, value in json.loads(content[8 : 8 + size]).items() if key != "__metadata__"}
    norms = [value for name, value in sorted(tensors.items()) if name.endswith(("LayerNorm.weight", "ln_1.weight"))]
    start: int = (norms or list(tensors.values()))[0]["data_offsets"][0]
    return 8 + size + start + 3


def in_place(path: Path, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(content)


def by_rename(path: Path, content: bytes) -> None:
    beside = path.with_name("new")
    beside.write_bytes(content)
    beside.replace(path)


def keeping_times(path: Path, put: Callable[[Path, bytes], None], content: bytes) -> None:
    """Change a file as ``cp -p``, ``rsync -t`` and container images do: its size and times are what they were."""
    before = path.stat()
    put(path, content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def weights(put: Callable[[Path, bytes], None], name: str = "model.safetensors") -> Change:
    return lambda folder: keeping_times(folder / name, put, flipped(folder / name, a_weight(folder / name)))


def split_weights(folder: Path) -> None:
    """The weights in three files."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    mapped = {}
    for part in range(3):
        own = {name: tensors[name] for name in sorted(tensors)[part::3]}
        file = f"model-0000{part + 1}-of-00003.safetensors"
        save_file(own, folder / file, {"format": "pt"})
        mapped |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))


def swapped_words(values: dict[str, Any]) -> None:
    vocabulary = values["model"]["vocab"]
    vocabulary["dog"], vocabulary["grass"] = vocabulary["grass"], vocabulary["dog"]


def other_ends(values: dict[str, Any]) -> None:
    values["post_processor"]["special_tokens"]["<s>"]["ids"] = [7]


def rewritten(name: str) -> Change:
    """The same JSON with its keys in another order and other white space."""

    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(dict(reversed(values.items())), indent=7))

    return change


NESTED = {"_attn_implementation": "org/kernel", "kernel_config": {"a": "org/kernel"}, "auto_map": {"AutoModel": "x.Y"}}
CHANGES: list[tuple[str, str, Change, str]] = [
    ("a bit in place", "bert", weights(in_place), ANOTHER),
    ("a bit by rename", "gpt2", weights(by_rename), ANOTHER),
    ("layer_norm_eps", "bert", config(layer_norm_eps=0.1), ANOTHER),
    ("hidden_act", "bert", config(hidden_act="relu"), ANOTHER),
    ("heads", "bert", config(num_attention_heads=2), ANOTHER),
    ("is_decoder", "roberta", config(is_decoder=True), ANOTHER),
    ("activation_function", "gpt2", config(activation_function="relu"), ANOTHER),
    ("scale_attn_weights", "gpt2", config(scale_attn_weights=False), ANOTHER),
    ("inverse layer index", "gpt2", config(scale_attn_by_inverse_layer_idx=True), ANOTHER),
    ("rope_parameters", "llama", config(rope_parameters={"rope_type": "default", "rope_theta": 9.0}), ANOTHER),
    ("rms_norm_eps", "qwen2", config(rms_norm_eps=0.1), ANOTHER),
    ("relative buckets", "mpnet", config(relative_attention_num_buckets=32, layer_norm_eps=0.2), ANOTHER),
    ("activation", "distilbert", config(activation="relu"), ANOTHER),
    ("vocabulary", "bert", tokenizer_json(swapped_words), ANOTHER),
    ("normalizer", "gpt2", tokenizer_json(lambda t: t.update(normalizer={"type": "Lowercase"})), ANOTHER),
    ("special tokens", "bert", tokenizer_json(other_ends), ANOTHER),
    ("no special tokens", "bert", tokenizer_json(lambda t: t.update(post_processor=None)), ANOTHER),
    ("added token", "bert", settings(extra_special_tokens=["dog"]), ANOTHER),
    ("special_tokens_map", "bert", wrote("special_tokens_map.json", '{"mask_token": "dog"}'), ANOTHER),
    ("README", "bert", wrote("README.md", "hello"), SAME),
    ("code beside it", "bert", wrote("modeling_x.py", "raise SystemExit"), SAME),
    ("other formats", "bert", wrote("onnx/encoder_model.onnx", "x"), SAME),
    ("a record", "bert", wrote("pretraining.json", "{}"), SAME),
    ("generation_config", "gpt2", wrote("generation_config.json", '{"custom_generate": "org/repo"}'), SAME),
    ("a chat template", "gpt2", wrote("chat_template.jinja", "{{ 1 }}"), SAME),
    ("times", "bert", lambda folder: [os.utime(path, (1, 1)) for path in folder.iterdir()], SAME),
    ("config rewritten", "llama", rewritten("config.json"), SAME),
    ("settings rewritten", "llama", rewritten("tokenizer_config.json"), SAME),
    ("use_cache", "gpt2", config(use_cache=False), SAME),
    ("dtype", "bert", config(dtype="float16", torch_dtype="bfloat16"), SAME),
    ("version", "bert", config(transformers_version="4.0.0"), SAME),
    ("architectures", "bert", config(architectures=["BertForMaskedLM"]), SAME),
    ("labels", "bert", config(id2label={"0": "a"}, label2id={"a": 0}, problem_type="regression"), SAME),
    ("outputs", "bert", config(output_hidden_states=True, output_attentions=True, return_dict=False), SAME),
    ("attention", "bert", config(_attn_implementation="eager"), SAME),
    ("public attention", "llama", config(attn_implementation="flash_attention_2"), SAME),
    ("internal attention", "gpt2", config(_attn_implementation_internal="org/kernel"), SAME),
    ("attention kernel", "bert", config(_attn_implementation="org/kernel"), SAME),
    ("experts", "qwen2", config(_experts_implementation="org/kernel", experts_implementation="x"), SAME),
    ("kernels", "bert", config(kernel_config={"kernel_mapping": {"GeLU": "org/k:GeLU"}}, use_kernels=True), SAME),
    ("auto_map", "bert", config(auto_map={"AutoModel": "org/repo--x.Y", "AutoConfig": "x.Z"}), SAME),
    ("custom code", "gpt2", config(custom_generate="org/repo", custom_pipelines={"x": {"impl": "x.Y"}}), SAME),
    ("plans", "llama", config(base_model_tp_plan={"a": "b"}, tp_plan="auto"), SAME),
    (
        "nested",
        "gpt2",
        config(text_config=NESTED, encoder=NESTED, per_layer_config={"0": NESTED}),
        SAME,
    ),
    ("name", "bert", config(_name_or_path="allenai/dolma2-tokenizer", name_or_path="x/y"), SAME),
    ("tokenizer padding", "bert", tokenizer_json(lambda t: t.update(truncation=None)), SAME),
    ("tokenizer code", "bert", settings(auto_map={"AutoTokenizer": ["x.Y", "x.Z"]}), SAME),
    ("template of chats", "bert", settings(chat_template="{{ x }}", name_or_path="a/b"), SAME),
    ("files elsewhere", "bert", settings(tokenizer_file="/x/tokenizer.json", vocab_file="/x/v", gguf_file="x"), SAME),
    ("arguments", "bert", settings(vocab="/x/vocab.txt", merges="/x", init_inputs=["/x"], revision="x"), SAME),
]

UNUSED = [change for name, _, change, _ in CHANGES if name in ("added token", "special_tokens_map")]
"""Changes of what a token means to a tokenizer, none of which these texts show."""


@pytest.mark.parametrize(("family", "change", "outcome"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_change_of_a_model_folder_gives_another_store_where_latents_can_differ(
    family, change, outcome, tiny, tmp_path
):
    folder = Path(shutil.copytree(tiny(family), tmp_path / "model"))
    before, values = identity_of(folder, tmp_path), latents(plan_of(folder), tmp_path)
    change(folder)
    after, changed = identity_of(folder, tmp_path), latents(plan_of(folder), tmp_path)
    assert (ANOTHER, SAME)[before.name == after.name] == outcome
    if outcome == SAME:
        np.testing.assert_array_equal(values, changed)
    elif change not in UNUSED:
        assert not np.array_equal(values, changed)


def test_the_configuration_of_a_part_is_part_of_the_identity(tmp_path):
    folder = save_random(tiny_config("clip"), tmp_path / "model")
    plan = plan_of(folder, tokenizer=str(save_tokenizer(word_tokenizer(special=False), tmp_path / "tokenizer")))
    before, values = identify(find_backbone(plan), plan, "cpu", tmp_path, no_pilot), latents(plan, tmp_path)
    as_json(folder / "config.json", lambda settings: settings["text_config"].update(layer_norm_eps=0.1))
    assert identify(find_backbone(plan), plan, "cpu", tmp_path, no_pilot).name != before.name
    assert not np.array_equal(values, latents(plan, tmp_path))


PLANS: list[tuple[str, dict[str, Any], str]] = [
    ("template", {"template": "so {text}"}, ANOTHER),
    ("system message", {"template": "{system} {text}", "system": "so"}, ANOTHER),
    ("no special tokens", {"add_special_tokens": False}, ANOTHER),
    ("a limit that is low enough", {"max_tokens": 32}, SAME),
    ("rewording", {"rewording": ("dog=grass",)}, ANOTHER),
    ("max_tokens", {"max_tokens": 31}, ANOTHER),
    ("windows", {"truncation": "windows", "stride": 4}, ANOTHER),
    ("compute_dtype", {"compute_dtype": "bfloat16"}, ANOTHER),
    ("stored_dtype", {"stored_dtype": "float16"}, ANOTHER),
    ("final_norm", {"final_norm": True}, ANOTHER),
    ("random weights", {"init": "random"}, ANOTHER),
    ("views", {"views": ("last", "tokens")}, SAME),
    ("layers", {"layers": (1,)}, SAME),
    ("refusing", {"truncation": "refuse"}, SAME),
    ("stride without windows", {"stride": 5}, SAME),
    ("seed of pretrained weights", {"init_seed": 5}, SAME),
    ("revision of a folder", {"revision": "main"}, SAME),
]


@pytest.mark.parametrize(("changes", "outcome"), [row[1:] for row in PLANS], ids=[row[0] for row in PLANS])
def test_a_change_of_the_plan_gives_another_store_where_latents_can_differ(changes, outcome, tiny, tmp_path):
    before, after = identity_of(tiny("gpt2"), tmp_path), identity_of(tiny("gpt2"), tmp_path, **changes)
    assert (ANOTHER, SAME)[before.name == after.name] == outcome


NAMES: dict[str, dict[str, Any]] = {
    "4ef670d923e98d44": {"views": ("mean", "text_last")},
    "81332212e2739e69": {"template": "so {text}", "views": ("last", "cls", "tokens", "text_last")},
    "34668e844c3e9e03": {"template": "so {text} then {text}", "views": ("mean", "max")},
}


@pytest.mark.parametrize(("name", "changes"), NAMES.items())
def test_stores_of_earlier_versions_keep_their_names(name, changes):
    assert named(changes) == name


@pytest.mark.parametrize("view", ["mean", "weighted_mean", "max", "sum"])
def test_only_views_that_leave_out_the_words_of_a_template_have_another_store_than_before(view):
    assert named({"template": "so {text}", "views": ("last", view)}) not in NAMES


def named(changes: dict[str, Any]) -> str:
    """The name of the store of a plan whose digests are known."""
    plan = CapturePlan(**{"max_tokens": 256, **changes})
    return Identity.of(plan, weights="w", tokenizer="t", compute_dtype="float32", stored_dtype="float16").name


def test_further_seeds_strides_and_tokenizers_give_further_stores(tiny, tmp_path):
    made = [identity_of(tiny("gpt2"), tmp_path, init="random", init_seed=seed) for seed in (0, 1)]
    made += [identity_of(tiny("gpt2"), tmp_path, truncation="windows", stride=stride) for stride in (1, 2)]
    made += [identity_of(tiny("gpt2"), tmp_path, tokenizer=str(tiny("bert")))]
    assert len({one.name for one in made}) == len(made)


SPECS = [{"batch_tokens": 16}, {"shard_bytes": 1}, {"shard_seconds": 0.001}, {"max_bytes": 1 << 30}, {"device": "auto"}]


@pytest.mark.parametrize("spec", SPECS, ids=[str(spec) for spec in SPECS])
def test_how_stage_one_runs_gives_the_same_store(spec, tiny, tmp_path):
    first = extract(plan_of(tiny("bert")), TEXTS, ExtractSpec(cache=str(tmp_path), device="cpu"))
    again = extract(plan_of(tiny("bert")), TEXTS[::-1], ExtractSpec(cache=str(tmp_path), **{"device": "cpu", **spec}))
    assert (first.store.path, again.texts_run) == (again.store.path, 0)


def test_threads_and_the_name_of_the_folder_give_the_same_store(tiny, tmp_path):
    threads = torch.get_num_threads()
    names = {identity_of(tiny("bert"), tmp_path).name}
    try:
        torch.set_num_threads(2)
        names.add(identity_of(shutil.copytree(tiny("bert"), tmp_path / "t5-deepseek-coder"), tmp_path).name)
    finally:
        torch.set_num_threads(threads)
    assert len(names) == 1


def test_weights_in_several_files_are_known_by_each_of_them(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    split_weights(folder)
    names = {identity_of(folder, tmp_path).name}
    as_json(folder / "model.safetensors.index.json", lambda index: index.update(metadata={"total_size": 1}))
    assert identity_of(folder, tmp_path).name in names
    for part in (1, 2, 3):
        weights(in_place, f"model-0000{part}-of-00003.safetensors")(folder)
        names.add(identity_of(folder, tmp_path).name)
    assert len(names) == 4


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as a large one, and may be remembered at once."""
    monkeypatch.setattr(file_digest, "SMALL_BYTES", 0)
    monkeypatch.setattr(file_digest, "SETTLED_NS", -1)


@pytest.mark.parametrize("put", [in_place, by_rename])
@pytest.mark.parametrize("place", [-2, 5000, 40000])
def test_a_bit_of_a_large_file_is_seen_wherever_it_lies(put, place, all_large, tiny, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes((tiny("bert") / "model.safetensors").read_bytes() * 20)
    memo = Memo(tmp_path / MEMO)
    before = file_digest.cached_digest(path, memo)
    assert file_digest.cached_digest(path, memo) == before
    keeping_times(path, put, flipped(path, place))
    assert file_digest.cached_digest(path, memo) != before


def test_the_sample_tells_large_files_apart_that_share_all_metadata(all_large, tmp_path, monkeypatch):
    monkeypatch.setattr(
        file_digest,
        "stamp_of",
        lambda status: file_digest.Stamp(device=1, inode=1, size=status.st_size, mtime_ns=1, ctime_ns=1),
    )
    path, memo = tmp_path / "weights", Memo(tmp_path / MEMO)
    digests = []
    for seed in (0, 1):
        path.write_bytes(np.random.default_rng(seed).bytes(1 << 20))
        digests.append(file_digest.cached_digest(path, memo))
    assert digests[0] != digests[1]


def test_a_large_file_is_hashed_once_and_a_spoilt_memo_costs_nothing_but_time(all_large, tiny, tmp_path, monkeypatch):
    base = identity_of(tiny("bert"), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(file_digest, "file_digest", lambda file: pytest.fail("weights were hashed again"))
        patch.setattr(identity, "load_tokenizer", lambda files: pytest.fail("the tokenizer was made again"))
        assert identity_of(tiny("bert"), tmp_path) == base
    sound = (tmp_path / MEMO).read_text()
    entries = json.loads(sound)
    forged = {key: value.replace(value[-9:], "deadbeef" + value[-1:]) for key, value in entries["entries"].items()}
    for spoilt in ("{ not json", "[]", sound[:-30], json.dumps(entries | {"entries": forged}), '{"entries": 3}'):
        (tmp_path / MEMO).write_text(spoilt)
        assert identity_of(tiny("bert"), tmp_path) == base


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(file_digest, "SMALL_BYTES", 0)
    monkeypatch.setattr(file_digest, "SETTLED_NS", 1 << 62)
    path, memo = tmp_path / "weights", Memo(tmp_path / MEMO)
    path.write_bytes(b"x" * 100)
    file_digest.cached_digest(path, memo)
    assert not (tmp_path / MEMO).exists()


def test_writers_at_once_leave_a_sound_memo(tmp_path):
    memo = Memo(tmp_path / MEMO)
    threads = [
        threading.Thread(target=lambda own=own: [memo.get(f"{own} {i}", lambda: "v") for i in range(20)])
        for own in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = json.loads((tmp_path / MEMO).read_text())
    assert content["checksum"] == memo_module._checksum(content["entries"])
    assert memo.get("0 0", lambda: "w") in ("v", "w")


def test_a_memo_that_cannot_be_written_costs_nothing_but_time(tmp_path):
    assert Memo(Path("/proc/nowhere") / MEMO).get("key", lambda: "value") == "value"
    (tmp_path / "file").write_text("")
    with pytest.raises((NotADirectoryError, FileExistsError)):  # which the command line tells in one line
        Memo(tmp_path / "file" / MEMO).get("key", lambda: "value")


@pytest.mark.parametrize("put", [in_place, by_rename])
def test_weights_that_change_between_digest_and_loading_are_refused(put, tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    source = find_backbone(plan_of(folder))
    identify(source, plan_of(folder), "cpu", tmp_path, no_pilot)
    weights(put)(folder)
    with pytest.raises(FileChangedError, match=r"model.safetensors changed while it was being read; run the same"):
        load_backbone(source, plan_of(folder), "float32", "cpu")


def test_a_tokenizer_that_changes_after_its_digest_is_not_the_one_that_is_used(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    source = find_backbone(plan_of(folder))
    identify(source, plan_of(folder), "cpu", tmp_path, no_pilot)
    tokenizer_json(swapped_words)(folder)
    ids = load_backbone(source, plan_of(folder), "float32", "cpu").tokenizer.encode(TEXTS[0]).ids
    assert ids == load_tokenizer(tiny("bert")).encode(TEXTS[0]).ids


def test_another_model_at_the_same_path_is_never_served_from_the_cache_of_the_first(tiny, tmp_path):
    """The report: weights of equal size, put in the place of others with their times kept."""
    folder, cache = Path(shutil.copytree(tiny("bert"), tmp_path / "model")), tmp_path / "cache"
    plan, spec = plan_of(folder), ExtractSpec(cache=str(cache), device="cpu")
    first = extract(plan, TEXTS, spec)
    before = first.store.read(TEXTS, "mean", (3,))
    tensors = load_file(folder / "model.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({name: weight * 1.5 for name, weight in tensors.items()}, other, {"format": "pt"})
    keeping_times(folder / "model.safetensors", by_rename, other.read_bytes())
    second = extract(plan, TEXTS, spec)
    assert second.texts_run == len(TEXTS)
    after = second.store.read(TEXTS, "mean", (3,))
    assert np.abs(before - after).max() > 0.1
    np.testing.assert_allclose(after, latents(plan, tmp_path / "fresh")[2:], rtol=1e-4, atol=1e-4)
    with pytest.raises(CorpusError, match="has other weights than the one this run was trained on"):
        matching_extractor(plan, spec, first.store.identity, "runs/x")
    with pytest.raises(StoreError, match=r"2 stores of this plan .*: they differ in weights"):
        find_store(cache, plan)


@pytest.mark.parametrize(("field", "dtype"), [("pools_text", "float32"), ("keeps_float32", "bfloat16")])
def test_a_run_on_latents_of_an_earlier_version_says_to_run_the_recipe_again(field, dtype, tiny, tmp_path):
    plan = plan_of(tiny("bert"), template="so {text}", views=("mean",), compute_dtype=dtype)
    spec = ExtractSpec(cache=str(tmp_path), device="cpu")
    earlier = replace(Extractor(plan, spec).identity, **{field: None})
    with pytest.raises(CorpusError, match=rf"earlier version, .* in another way \({field}\); run the recipe again"):
        matching_extractor(plan, spec, earlier, "runs/x")


def test_the_config_beside_a_tokenizer_counts_where_it_changes_tokens_and_only_there(tiny, tmp_path):
    """The report: ``[CLS] ... [SEP]`` of the same vocabulary had other ids by another ``model_type``."""
    vocabulary = Path(shutil.copytree(real_model("bert_vocab"), tmp_path / "vocabulary"))
    names, ids = [], []
    for kind in ({"model_type": "bert"}, {"model_type": "bert", "num_hidden_layers": 3}, {"model_type": "mpnet"}):
        (vocabulary / "config.json").write_text(json.dumps(kind))
        ids.append(load_tokenizer(vocabulary).encode("hello").ids)
        names.append(identity_of("bert-base", tmp_path, init="random", tokenizer=str(vocabulary)).name)
    assert ids == [[101, 7592, 102], [101, 7592, 102], [30522, 7592, 30523]]
    assert names[0] == names[1] != names[2]


def test_a_saved_model_keeps_the_tokenizer_of_another_kind(tiny, tmp_path):
    """What a run saves has the model's ``config.json`` beside the tokenizer's files, and must make the same ids."""
    vocabulary = Path(shutil.copytree(tiny("bert"), tmp_path / "vocabulary"))
    settings(tokenizer_class="MPNetTokenizer")(vocabulary)
    source = find_backbone(plan_of(tiny("bert"), tokenizer=str(vocabulary)))
    beside = tokenizer_for_saving(source)
    (tmp_path / "saved").mkdir()
    shutil.copy(tiny("bert") / "config.json", tmp_path / "saved")
    beside.write(tmp_path / "saved")
    saved, given = load_tokenizer(tmp_path / "saved"), load_tokenizer(vocabulary)
    assert tokenizer_digest(saved) == tokenizer_digest(given)
    special = [make_tokenizer(read_tokenizer(folder)).special_tokens_map for folder in (tmp_path / "saved", vocabulary)]
    assert special[0] == special[1] != {}


def test_files_of_every_tokenizer_of_transformers_are_known(tmp_path):
    import importlib
    import pkgutil

    from transformers import models

    names = set()
    for module in pkgutil.iter_modules(models.__path__):
        try:
            found = importlib.import_module(f"transformers.models.{module.name}.tokenization_{module.name}")
        except Exception:  # no tokenizer, or a package that it needs is not here
            continue
        names |= {name for name in getattr(found, "VOCAB_FILES_NAMES", {}).values() if isinstance(name, str)}
    assert len(names) > 10
    assert {name for name in names if not is_of_tokenizer(name)} == set()
    for name in ("config.json", "model.safetensors.index.json", "tokenization_x.py", "encoder_model.onnx", "README.md"):
        assert not is_of_tokenizer(name)


def test_making_a_tokenizer_twice_gives_the_same_digest(tiny):
    assert len({tokenizer_digest(load_tokenizer(tiny("qwen2"))) for _ in range(3)}) == 1
    whole = load_tokenizer(tiny("qwen2"))
    assert tokenizer_digest(Tokenizer.from_str(whole.to_str())) == tokenizer_digest(whole)


REFUSED = [
    {"quantization_config": {"quant_method": "gptq"}},
    {"transformers_weights": "other.safetensors"},
    {"compression_config": {"x": 1}},
    {"text_config": {"quantization_config": {"quant_method": "awq"}}},
    {"layers": [{"gguf_file": "x.gguf"}]},
]


@pytest.mark.parametrize("keys", REFUSED, ids=[next(iter(keys)) for keys in REFUSED])
@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_keys_that_stand_for_other_weights_are_refused_at_any_depth(keys, init, tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    config(**keys)(folder)
    with pytest.raises(BackboneError, match="which is not supported: take plain weights"):
        find_backbone(plan_of(folder, init=init))


def test_what_names_code_is_left_out_at_any_depth_and_sizes_of_convolutions_stay():
    said = {"inner": {**NESTED, "hidden_size": 3, "use_mamba_kernels": True}, "list": [NESTED | {"a": 1}]}
    assert model_config(said | {"text_config": NESTED, "nothing": [NESTED], "empty": {}}, "x") == {
        "empty": {},
        "inner": {"hidden_size": 3},
        "list": [{"a": 1}],
    }
    sizes = {"conv_kernel": [10, 3], "conv_kernel_size": 31, "kernel_size": 4}
    assert model_config(sizes | {"kernel": "org/x"}, "x") == sizes
    assert model_config({"limits": [0.0, {"__float__": "Infinity"}]}, "x") == {"limits": [0.0, float("inf")]}
    assert model_config({"limits": [0.0, {"__float__": "org/x"}]}, "x") == {"limits": [0.0, {}]}


def test_a_tokenizer_that_is_code_of_its_own_is_refused(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "tokenizer"))
    settings(auto_map={"AutoTokenizer": ["x.Own", None]}, tokenizer_class="Own")(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BackboneError, match="its tokenizer is code of its own, which is never run"):
        load_tokenizer(folder)


def test_an_old_memo_is_no_memo(tiny, tmp_path):
    real = (tiny("bert") / "model.safetensors").resolve()
    status = real.stat()
    (tmp_path / MEMO).write_text(json.dumps({f"{real} {status.st_size} {status.st_mtime_ns}": "0" * 64}))
    old = identity_of(tiny("bert"), tmp_path)
    assert old == identity_of(tiny("bert"), tmp_path / "fresh")
    assert LatentStore.at(tmp_path, "x", old).path.name == old.name
    assert replace(old, weights="0" * 64).name != old.name
