"""Devices: one is found, named or refused before anything runs, and torch is asked only where there may be a GPU."""

import platform
import subprocess
import sys

import pytest

from permafrost.data import machine
from permafrost.data.machine import check_device_here, pick_device
from permafrost.data.plan.plan import ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.search.trials import study_identity


@pytest.mark.parametrize(
    ("there", "wanted", "found"),
    [
        (["cpu"], "auto", "cpu"),
        (["cpu", "cuda:0"], "auto", "cuda"),
        (["cpu", "cuda:0"], "cpu", "cpu"),
        (["cpu", "cuda:0", "cuda:1"], "cuda:1", "cuda:1"),
        (["cpu", "mps"], "auto", "cpu"),
        (["cpu", "mps"], "mps", "mps"),
    ],
)
def test_a_device_is_that_which_is_named_or_the_gpu_of_cuda(there, wanted, found, monkeypatch):
    monkeypatch.setattr(machine, "devices", lambda: there)
    assert pick_device(wanted) == found


@pytest.mark.parametrize(("there", "wanted"), [(["cpu"], "cuda"), (["cpu", "cuda:0"], "cuda:1"), (["cpu"], "mps")])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(there, wanted, monkeypatch):
    monkeypatch.setattr(machine, "devices", lambda: there)
    with pytest.raises(SpecError, match=f'device = "{wanted}" is not on this machine, .* use {" and ".join(there)};'):
        pick_device(wanted)


@pytest.mark.parametrize("name", ["gpu", "tpu", "cuda:", "cuda:x", "CPU", ""])
def test_a_name_that_no_device_has_is_refused_by_every_spec(name):
    for made in (lambda: Recipe(device=name), lambda: ExtractSpec(device=name), lambda: check_device_here(name)):
        with pytest.raises(SpecError, match="device must be"):
            made()


def test_without_a_driver_no_torch_is_asked(monkeypatch):
    monkeypatch.setattr(machine, "may_have_gpu", lambda: False)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    assert pick_device("auto") == "cpu"
    with pytest.raises(SpecError, match="can use cpu;"):
        check_device_here("cuda")


@pytest.mark.parametrize(
    ("device", "own", "expected"), [("auto", "auto", "auto"), ("cpu", "auto", "cpu"), ("auto", "cpu", "cpu")]
)
def test_an_extraction_is_on_the_device_of_the_recipe_unless_it_has_its_own(device, own, expected):
    recipe = Recipe(device=device, extract=ExtractSpec(device=own))
    assert recipe.extraction.device == expected
    assert recipe.extract.device == own  # as it is written to a run folder


def test_a_device_makes_no_other_training():
    on_cpu, on_gpu = Recipe(device="cpu"), Recipe(device="cuda")
    assert on_cpu.relevant_settings() == on_gpu.relevant_settings()
    assert study_identity(on_cpu) == study_identity(on_gpu)


FAULTS = """
import resource, sys
import numpy as np
from permafrost.data.machine import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [np.ones(size << 20, np.uint8) for size in (6, 12, 40)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
kept = keep_freed_memory()
faults()
print(int(kept), before, faults())
"""


def test_memory_that_was_freed_is_used_again_without_page_faults(monkeypatch):
    for variable in machine.KEPT_MEMORY:
        monkeypatch.delenv(variable, raising=False)
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    kept, before, after = map(int, told.split())
    assert kept == (sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc")
    assert not kept or after < before / 10


def test_variables_of_the_allocator_count(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not machine.keep_freed_memory.__wrapped__()
