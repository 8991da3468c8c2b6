"""A warm start: where all latents are stored, neither torch nor transformers is imported, and nothing changes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from permafrost import inspection
from permafrost.data.machine import may_have_gpu
from tests.support.bench import ROOT, Bench
from tests.support.models.gguf import tiny_gguf

HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub")
TOLD = f"import atexit; atexit.register(lambda: print('loaded', sorted(set(sys.modules) & {set(HEAVY)!r})))"
TEXTS = ["the small brown dog runs", "it sleeps", "the small brown dog runs"]

AUTO = ["plan.compute_dtype=auto", *([] if may_have_gpu() else ["device=auto"])]

PLANS = {
    "pooled": [*AUTO, "plan.views=mean,cls"],
    "untrained": [*AUTO, "plan.init=random"],
    "tokens": ["finetune.cut=1"],
    "nothing stored": ["finetune.cut=none"],
}


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_extract_and_cache_decide_without_torch_and_as_a_cold_run_did(plan, bench):
    settings = bench.of_pairs(*PLANS[plan])
    code, out, err = bench.command("extract", "pairs", "--json", settings=settings)
    assert code == 0, err
    cold, stored, cache = json.loads(out), files_below(bench.folder / "cache"), str(bench.folder / "cache")
    commands = [("extract", "pairs", "--json")]
    if cold["stores"]:
        commands += [
            ("cache", verb, "--cache", cache, "--json") for verb in ("list", "show", "verify", "repair", "prune")
        ]
    for words in commands:
        process = bench.process(*words, settings=settings if words[0] == "extract" else (), before=TOLD)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said, loaded = out.splitlines()
        assert loaded == "loaded []", words
        if words[0] == "extract":
            assert json.loads(said) | {"seconds": 0} == cold | {"seconds": 0, "texts_run": 0}
    assert files_below(bench.folder / "cache") == stored


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_stored_latents_are_read_without_torch(kind, tiny, tmp_path):
    name = tmp_path / "tiny.gguf" if kind == "gguf" else tiny("gpt2")
    if kind == "gguf":
        tiny_gguf(name)
    cold = inspection.latents(TEXTS, str(name), ("mean", "last"), cache=tmp_path / "cache")
    program = f"""
import sys
import numpy as np
import permafrost as pf
latents = pf.latents({TEXTS!r}, {str(name)!r}, ("mean", "last"), cache={str(tmp_path / "cache")!r})
np.savez({str(tmp_path / "warm.npz")!r}, **latents)
print(sorted(set(sys.modules) & {set(HEAVY)!r}))
"""
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert may_have_gpu() or said.stdout.split() == ["[]"]
    with np.load(tmp_path / "warm.npz") as warm:
        assert {view: (values.dtype, values.tobytes()) for view, values in warm.items()} == {
            view: (values.dtype, values.tobytes()) for view, values in cold.items()
        }
