"""A model folder chooses nothing that runs: no kernel, no code of its own, and no look at a hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
KERNELS = '''
"""A stand-in for the package kernels that writes down every call."""
import os, types

class Recorder:
    def __init__(self, name):
        self.name = name
    def __call__(self, *given, **named):
        with open(os.environ["CALLS"], "a") as file:
            file.write(self.name + chr(10))
        return lambda part: part
    def __getattr__(self, name):
        return Recorder(self.name + "." + name)

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Recorder(name)
'''
WATCHED = """
import os, socket, sys
from pathlib import Path

def refused(*given, **named):
    with open(os.environ["CALLS"], "a") as file:
        file.write("network" + chr(10))
    raise OSError("no network")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
folder = sys.argv[1]
"""
OURS = """
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.extraction import extract
from permafrost.extract.finetuning.top_blocks import TopBlocks

for init in ("pretrained", "random"):
    plan = CapturePlan(backbone=folder, init=init, max_tokens=32, compute_dtype="float32")
    done = extract(plan, ["dog runs", "small brown"], ExtractSpec(cache=sys.argv[2], device="cpu"))
    print(done.texts_run, done.store.path.name)
    TopBlocks(plan, 1).save(Path(sys.argv[2]) / init)
again = CapturePlan(backbone=str(Path(sys.argv[2]) / "pretrained"), max_tokens=32, compute_dtype="float32")
print(extract(again, ["dog runs"], ExtractSpec(cache=sys.argv[2], device="cpu")).texts_run)
"""
THEIRS = """
from transformers import AutoModel
AutoModel.from_pretrained(folder, local_files_only=True)
"""
AT_IMPORT = {"use_kernel_forward_from_hub", "use_kernelized_func", "replace_kernel_forward_from_hub"}
"""Calls that transformers makes when it is imported, whatever the model."""

KERNEL = "kernels-community/flash-attn2"
FORGED = {
    "_attn_implementation": KERNEL,
    "attn_implementation": KERNEL,
    "_attn_implementation_internal": KERNEL,
    "_experts_implementation": KERNEL,
    "kernel_config": {"kernel_mapping": {"GeLU": "org/kernel:GeLU"}},
    "use_kernels": True,
    "auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.Own", "AutoTokenizer": "x--y.Z"},
    "custom_pipelines": {"feature-extraction": {"impl": "modeling_own.Own"}},
    "custom_generate": "org/repo",
    "base_model_tp_plan": {"layers.*": "org/kernel"},
}


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A folder with a package ``kernels`` of the version that transformers uses."""
    from transformers.utils.import_utils import KERNELS_MIN_VERSION

    folder = tmp_path / "packages"
    for module in ("kernels/__init__.py", "kernels/layer/__init__.py", "kernels/layer/mode.py"):
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).write_text(KERNELS)
    about = folder / f"kernels-{KERNELS_MIN_VERSION}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n")
    return folder


def called(program: str, folder: Path, kernels: Path, tmp_path: Path) -> tuple[set[str], Any]:
    """What a program calls of kernels and the network, and how it ended."""
    calls = tmp_path / "calls"
    calls.write_text("")
    own = {"PYTHONPATH": f"{kernels}{os.pathsep}{ROOT}", "CALLS": str(calls), "HF_HOME": str(tmp_path / "hub")}
    offline = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    environment = {name: value for name, value in os.environ.items() if name not in offline} | own
    command = [sys.executable, "-c", WATCHED + program, str(folder), str(tmp_path / "cache")]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    return set(calls.read_text().split()) - AT_IMPORT, ended


def forged(folder: Path, tmp_path: Path, where: str) -> Path:
    """A copy of a model folder that names code in every place that transformers looks at."""
    copy = Path(shutil.copytree(folder, tmp_path / "forged"))
    ran = tmp_path / "ran"
    for name in ("modeling_own.py", "tokenization_own.py", "custom_generate/generate.py", "__init__.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(f"open({str(ran)!r}, 'w').close()")
    config = json.loads((copy / "config.json").read_text())
    nested = {"text_config": FORGED | {"model_type": "bert"}, "layers": [FORGED], "per_layer_config": {"0": FORGED}}
    (copy / "config.json").write_text(json.dumps(config | (FORGED if where == "top" else nested)))
    (copy / "generation_config.json").write_text(json.dumps(FORGED))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    files = {
        "tokenizer_file": "/etc/passwd",
        "vocab_file": "/etc/passwd",
        "gguf_file": "x.gguf",
        "vocab": "/etc/passwd",
    }
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | FORGED | files))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(("family", "where"), [("bert", "top"), ("gpt2", "nested"), ("llama", "top")])
def test_no_kernel_no_code_and_no_hub(family, where, tiny, tmp_path, kernels):
    folder = forged(tiny(family), tmp_path, where)
    calls, ended = called(OURS, folder, kernels, tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert calls == set()
    assert not (tmp_path / "ran").exists()
    assert ended.stdout.split()[0::2] == ["2", "2", "1"]


@pytest.mark.slow
def test_the_watch_sees_what_transformers_alone_would_do(tiny, tmp_path, kernels):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_attn_implementation": KERNEL}))
    calls, _ = called(THEIRS, folder, kernels, tmp_path)
    assert any("get_kernel" in call for call in calls), calls
