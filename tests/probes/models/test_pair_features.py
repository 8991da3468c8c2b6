"""Matching equals a slow loop over pairs of tokens, and tells a probe what no token alone could."""

import numpy as np
import pytest
import torch

from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.models.pair_features import best_cosines
from permafrost.probes.models.probe import layout_for
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.objectives.heads import objective_of
from permafrost.probes.tasks.registry import check_probe, make_problem
from tests.support.synthetic import answered, tagged
from tests.support.trainings import build

LENGTHS = (4, 1, 5)
SECOND = torch.tensor([False, True, False, True, True, False, False, True, True, True])


def test_each_token_is_given_its_best_cosine_with_a_token_of_the_other_segment():
    states = torch.randn(2, sum(LENGTHS), 6, generator=torch.Generator().manual_seed(0))
    found, start = best_cosines(states, LENGTHS, SECOND), 0
    for length in LENGTHS:
        for layer in range(2):
            for token in range(start, start + length):
                others = [at for at in range(start, start + length) if SECOND[at] != SECOND[token]]
                slow = [float(torch.cosine_similarity(states[layer, token], states[layer, at], dim=0)) for at in others]
                assert float(found[layer, token]) == pytest.approx(max(slow, default=0.0), abs=1e-6)
        start += length


def test_equal_tokens_on_both_sides_are_met_in_full_and_no_gradient_flows():
    states = torch.randn(1, 4, 8, requires_grad=True)
    with torch.no_grad():
        states[0, 3] = 2 * states[0, 0]
    found = best_cosines(states, (4,), torch.tensor([False, False, True, True]))
    assert float(found[0, 3]) == float(found[0, 0]) == pytest.approx(1)
    assert not found.requires_grad


def test_a_probe_hears_what_is_met_whatever_is_read_together():
    inputs, corpus = answered()
    spec = ProbeSpec(encoder="none", match=True)
    layout = layout_for(spec, [tuple(range(len(inputs.columns)))], inputs.widths, tokens=True)
    probe = build(spec, corpus.kind, 0, 1, layout).eval()
    plain = build(ProbeSpec(encoder="none"), corpus.kind, 0, 1, layout)
    more = sum(part.numel() for part in probe.parameters()) - sum(part.numel() for part in plain.parameters())
    assert more == 2 * len(inputs.columns)
    reads, rows = shared_reads(layout), corpus.split("validation")
    assert inputs.ragged(reads, np.array([0])).in_second is not None
    with torch.inference_mode():
        (together,) = objective_of(probe, inputs, rows).predict(probe)
        alone = [
            objective_of(probe, inputs, rows.select(np.array([row]))).predict(probe)[0, 0] for row in range(len(rows))
        ]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_only_answers_have_another_segment():
    with pytest.raises(SpecError, match="is for questions and contexts, the head 'span'"):
        check_probe(ProbeSpec(match=True), make_problem(Recipe(), tagged()[1]), ["tokens"])
