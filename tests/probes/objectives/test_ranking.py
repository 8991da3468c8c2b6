"""In-batch negatives: the loss is that of a slow loop, members keep their own, and a grid is scored as its pairs."""

import math

import numpy as np
import pytest
import torch

from permafrost.data.corpora.corpus import Rows
from permafrost.data.corpora.ranking import candidate_grid
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.mixers import CODE_MIXERS, MIXERS
from permafrost.probes.models.probe import Probe, layout_for, stack
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.objectives import base
from permafrost.probes.objectives.base import RowObjective, untrained_cosines
from permafrost.probes.objectives.losses import RANKING_LOSS
from permafrost.probes.objectives.ranking import MOST_NEGATIVES, RankObjective
from tests.support.synthetic import inputs, moved
from tests.support.trainings import build

FOUND = inputs()
PAIRS = [  # query, passage, relevance: text 3 is relevant to two queries, and text 1 is a query and a passage
    (0, 2, 1), (0, 3, 2), (0, 4, 0), (0, 5, 0), (0, 6, 0), (0, 7, 0), (0, 8, 0), (0, 9, 0),
    (1, 3, 1), (1, 10, 0), (11, 1, 1), (12, 13, 1), (12, 14, 0),
]  # fmt: skip
ROWS = Rows(np.array(PAIRS)[:, :2], np.array(PAIRS)[:, 2].astype(np.float64))
RELEVANT = [pair[:2] for pair in PAIRS if pair[2]]
SETTINGS = [{"encoder": encoder} for encoder in ("none", "linear", "lowrank", "mlp")]
SETTINGS += [{"mixer": mixer} for mixer in (*MIXERS, *CODE_MIXERS)]


def probe_of(seed: int = 1, **settings: str) -> Probe:
    layout = layout_for(ProbeSpec(), [(0, 1, 2, 3)], FOUND.widths)
    return moved(build(ProbeSpec(**settings), "rank", 0, 2, layout), seed=seed).eval()


def score(probe: Probe, query: int, passage: int) -> float:
    """The score of a pair by itself."""
    return float(RowObjective(FOUND, Rows(np.array([[query, passage]]), np.zeros(1))).predict(probe)[0, 0])


def slow_loss(probe: Probe, rows: list[int]) -> float:
    objective, costs = RankObjective(FOUND, ROWS), []
    candidates = objective.candidates(np.array([rows]))[0].tolist()
    for place, row in enumerate(rows):
        query = RELEVANT[row][0]
        allowed = [
            passage
            for at, passage in enumerate(candidates)
            if at == place or not ((query, passage) in RELEVANT or query == passage)
        ]
        logits = [20 * score(probe, query, passage) for passage in allowed]
        costs.append(math.log(sum(map(math.exp, logits))) - 20 * score(probe, query, candidates[place]))
    return float(np.mean(costs))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_loss_is_that_of_a_loop_over_pairs(settings):
    probe, rows = probe_of(**settings), [3, 0, 2, 1, 4]
    objective = RankObjective(FOUND, ROWS)
    with torch.no_grad():
        loss = objective.loss(probe, shared_reads(probe.layout), np.array([rows]), np.zeros(1, np.int64), RANKING_LOSS)
    assert loss.tolist() == pytest.approx([slow_loss(probe, rows)], rel=1e-4)
    assert objective.training_rows == len(RELEVANT)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("orders", [1, 2])
def test_stacked_members_have_the_losses_and_gradients_that_they_have_alone(settings, orders):
    probes = [probe_of(seed, **settings) for seed in (1, 2, 3)]
    together, batches = stack(probes), np.array([[3, 0, 2, 1], [4, 1, 0, 2]])[:orders]
    order_of = np.arange(3) % orders
    objective = RankObjective(FOUND, ROWS)
    loss = objective.loss(together, shared_reads(together.layout, order_of), batches, order_of, RANKING_LOSS)
    loss.sum().backward()
    for member, probe in enumerate(probes):
        batch = batches[order_of[member]][None]
        alone = objective.loss(probe, shared_reads(probe.layout), batch, np.zeros(1, np.int64), RANKING_LOSS)
        alone.sum().backward()
        assert loss[member].item() == pytest.approx(alone.item(), rel=1e-5)
        member_of = together.member_of()
        for (name, stacked), single in zip(together.named_parameters(), probe.parameters(), strict=True):
            own = stacked.grad[member_of[name] == member]
            torch.testing.assert_close(own, single.grad, rtol=1e-3, atol=1e-5)


def test_a_pair_brings_the_irrelevant_passages_of_its_query_and_other_ones_at_another_place():
    objective, pairs = RankObjective(FOUND, ROWS), np.array([[0, 1, 2, 3, 4]])
    passages, *negatives = np.split(objective.candidates(pairs)[0], [5])
    own = negatives[0].reshape(5, MOST_NEGATIVES)
    assert passages.tolist() == [2, 3, 3, 1, 13]
    assert own[0].tolist() == [4, 5, 6, 7]
    assert own[1].tolist() == [8, 9, 4, 5]  # the second place begins after the four of the first
    assert set(own[2]) == {10, 3}
    assert set(own[3]) == {1}  # a query without an irrelevant passage repeats its own, which is no negative


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_grid_of_queries_and_passages_is_scored_as_its_pairs(settings, monkeypatch):
    queries, passages = np.arange(5), np.arange(3, 14)
    texts = np.stack(np.meshgrid(queries, passages, indexing="ij"), -1).reshape(-1, 2)
    probe = stack([probe_of(seed, **settings) for seed in (1, 2)]).eval()
    objective = RowObjective(FOUND, Rows(texts, np.zeros(len(texts))))
    with torch.inference_mode():
        pairs, raw = objective.predict(probe), untrained_cosines(FOUND, objective.rows)
        monkeypatch.setattr(base, "CHUNK_BYTES", len(probe.layout.sources) * 8 * 4 * 3)  # blocks of 3 texts
        assert candidate_grid(texts) is not None
        np.testing.assert_allclose(objective.predict(probe), pairs, atol=2e-6)
        np.testing.assert_allclose(untrained_cosines(FOUND, objective.rows), raw, atol=2e-6)
    assert candidate_grid(texts[:-1]) is None
    assert candidate_grid(texts[::-1][:, ::-1]) is None
