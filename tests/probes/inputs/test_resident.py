"""Latents on a device: they move there if they fit, and are read there as they are read on the CPU."""

import numpy as np
import pytest
import torch

from permafrost.probes.inputs import resident
from permafrost.probes.inputs.resident import resident_states
from permafrost.probes.models.shared_reads import shared_reads
from tests.support.synthetic import RAGGED, inputs, layout, tagged

META = torch.device("meta")


@pytest.mark.parametrize("windows", [[0], [5, 2, 2, 17], [29, 0]])
@pytest.mark.parametrize("layers", [[0], [1, 0], [0, 1]])
def test_states_are_read_where_they_lie_as_they_were_before(windows, layers, monkeypatch):
    found, _ = tagged(30)
    monkeypatch.setattr(resident, "COPIED_WINDOWS", 7)
    there = resident_states(found.read, found.tokens, len(found.columns), torch.device("cpu"))
    assert there is not None
    assert torch.equal(there(np.array(windows), layers), found.read(np.array(windows), layers))


@pytest.mark.parametrize(("free", "device"), [(1 << 30, "meta"), (0, "cpu")])
def test_latents_move_if_they_fit_and_are_copied_row_by_row_else(free, device, monkeypatch):
    monkeypatch.setattr(resident, "free_bytes", lambda _: free)
    pooled, tokens = inputs(RAGGED).to(META), tagged(30)[0].to(META)
    assert pooled.values.device.type == tokens.read(np.array([1, 4]), [0]).device.type == device
    rows = np.arange(6).reshape(1, 3, 2)
    for members in ((0, 1, 2, 3), (1, 3)):
        made = layout([members], RAGGED)
        for states in pooled.text_states(shared_reads(made, device=META), rows):
            assert (states.device, states.shape[0]) == (META, len(members))
    assert tokens.token_states(np.array([1, 4]), [0]).device == META
    assert pooled.pooled(1, np.array([2, 3])).device == META


def test_inputs_that_are_there_stay_what_they_are():
    found = inputs()
    assert found.to(torch.device("cpu")) is found
