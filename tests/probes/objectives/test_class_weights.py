"""Weights by which rare classes and labels count as much as common ones: scikit-learn's, in the loss that trains."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.objectives.heads import predictions
from permafrost.probes.tasks.registry import TASKS, make_problem
from permafrost.probes.variants.members import initial_probe
from tests.support.synthetic import answered, classed, inputs, labelled, scored, tagged
from tests.support.trainings import member_config, train_all

BALANCED = TrainSpec(class_weights="balanced", epochs=1, batch_rows=999)


def skewed(corpus: Corpus) -> Corpus:
    """The corpus without most of the training rows whose targets are other than those of the first."""
    train = corpus.split("train")
    alike = (train.targets == train.targets[0]).reshape(len(train), -1).all(1)
    kept = np.concatenate([np.flatnonzero(alike), np.flatnonzero(~alike)[:4]])
    return replace(corpus, splits={**corpus.splits, "train": train.select(kept)})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_weights_of_classes_are_those_of_scikit_learn(codes):
    weights = TASKS["class"].balanced_weights(Rows(np.zeros((len(codes), 1), np.int64), np.array(codes)))
    occurring = np.unique(codes)
    np.testing.assert_allclose(
        weights[occurring], compute_class_weight("balanced", classes=occurring, y=codes), rtol=1e-6
    )
    assert weights.sum() == pytest.approx(weights[occurring].sum())  # classes without rows weigh nothing


@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=30))
def test_weights_of_labels_are_the_ratio_of_those_of_scikit_learn(rows):
    targets = np.array(rows, float)
    weights = TASKS["labels"].balanced_weights(Rows(np.zeros((len(rows), 1), np.int64), targets))
    for label, weight in zip(targets.T, weights, strict=True):
        if len(np.unique(label)) == 1:
            assert weight == 1
        else:
            absent, present = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=label)
            assert weight == pytest.approx(present / absent)


@pytest.mark.parametrize("toy", [classed, labelled])
def test_the_loss_that_trains_is_weighted(toy):
    source = inputs()
    corpus = skewed(toy(source))
    config = member_config(Recipe(train=BALANCED, probe=ProbeSpec(dropout=0.0)), source, corpus)
    rows = corpus.split("train")
    (logits,) = torch.from_numpy(predictions(initial_probe(config).eval(), source, rows)).double()
    if toy is classed:
        classes = len(np.unique(rows.targets))
        counts = np.bincount(rows.targets)
        chosen = torch.log_softmax(logits, -1)[np.arange(len(rows)), rows.targets].numpy()
        expected = -np.mean([len(rows) / (classes * counts[c]) * p for c, p in zip(rows.targets, chosen, strict=True)])
    else:
        positive = rows.targets.sum(0)
        factor = [(len(rows) - count) / count if 0 < count < len(rows) else 1 for count in positive]
        present, absent = torch.sigmoid(logits).log().numpy(), torch.sigmoid(-logits).log().numpy()
        expected = -np.mean(rows.targets * np.array(factor) * present + (1 - rows.targets) * absent)
    (member,) = train_all([config])
    plain = member_config(replace(config.recipe, train=replace(BALANCED, class_weights="none")), source, corpus)
    assert member.history.losses[0] == pytest.approx(expected, rel=1e-5)
    assert train_all([plain])[0].history.losses[0] != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("corpus", [scored(inputs()), tagged()[1], answered()[1]], ids=lambda corpus: corpus.kind)
def test_other_kinds_of_targets_have_no_classes_to_weigh(corpus):
    with pytest.raises(SpecError) as error:
        make_problem(Recipe(train=BALANCED), corpus)
    name = TASKS[corpus.kind].name
    assert str(error.value) == (
        f'train.class_weights = "balanced" weighs classes or labels, which {name} has not; set train.class_weights = '
        '"none".'
    )
