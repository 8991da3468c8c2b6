"""Devices: one is found, named or refused before anything runs, and torch is asked only where there may be a GPU."""

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
