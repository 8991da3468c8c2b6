"""Experiments: members that train side by side end as each ends alone, and what is told of them adds up."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.mixers import CODE_MIXERS, MIXERS
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.tasks import base
from permafrost.probes.tasks.registry import predictions, task_of, untrained_cosines
from permafrost.probes.variants import members as members_module
from permafrost.probes.variants.combine_seeds import combine_seeds
from permafrost.probes.variants.members import MemberConfig, TrainedMember, train_members
from permafrost.probes.variants.trained_variant import best_variant
from tests.support.synthetic import EVEN, RAGGED, classed, inputs, scored

TRAIN = TrainSpec(epochs=3, batch_rows=8, learning_rate=0.01, loss="auto")
ENCODERS = {
    "none": ProbeSpec(encoder="none", noise=0.1),
    "linear": ProbeSpec(encoder="linear", dropout=0.2, noise=0.1),
    "lowrank": ProbeSpec(encoder="lowrank", rank=2, noise=0.1),
    "mlp": ProbeSpec(encoder="mlp", norm=True, depth=3, dropout=0.2, noise=0.1, code=(0.5,)),
}
HALVES = ProbeSpec(encoder="mlp", dropout=0.2, code=(0.25, 0.5))
SCORES = [*MIXERS, *CODE_MIXERS]
CLASSES = [name for name in SCORES if name != "mlp"]
WEIGHTLESS = [("none", "last"), ("none", "concat")]
TRAINED = [pair for pair in itertools.product(ENCODERS, SCORES) if pair not in WEIGHTLESS]
KEY_BIAS = "mixer.maps.1.bias"
"""It shifts all scores of a query alike, so its gradient is rounding alone, of which AdamW makes steps."""

SUBSETS = [((0, 1, 2, 3), 0), ((1, 3), 1), ((0, 2, 3), 0), ((0, 1, 2, 3), 2)]
"""Layers and seed of each member."""


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """How many members each program trains, as they are trained."""
    seen: list[int] = []
    original = members_module._fit_stacked

    def counted(probes, *rest):
        seen.append(len(probes))
        return original(probes, *rest)

    monkeypatch.setattr(members_module, "_fit_stacked", counted)
    return seen


def members_of(recipe: Recipe, found: ProbeInputs, subsets=SUBSETS) -> list[MemberConfig]:
    return [
        MemberConfig(variant="toy", recipe=recipe, inputs=found, layers=layers, seed=seed) for layers, seed in subsets
    ]


def assert_as_alone(
    members: list[MemberConfig], corpus: Corpus, sizes: list[int] | None, groups: tuple[int, ...] = (4,)
) -> None:
    """Side by side, members end with the weights and the predictions that each ends with alone."""
    together = train_members(members, corpus)
    assert sizes is None or sorted(sizes) == list(groups)
    for member, beside in zip(members, together, strict=True):
        (alone,) = train_members([member], corpus)
        assert beside.history.best_epoch == alone.history.best_epoch
        assert beside.history.losses == pytest.approx(alone.history.losses, rel=1e-4, abs=1e-5)
        assert beside.columns == alone.columns
        assert beside.parameters == alone.parameters
        for name, value in alone.probe.state_dict().items():
            if name != KEY_BIAS and not name.startswith("mixer.network"):  # AdamW makes steps of a gradient near 0
                torch.testing.assert_close(beside.probe.state_dict()[name], value, rtol=1e-4, atol=1e-4)
        said = [predictions(one.probe, one.inputs, corpus.split("validation")) for one in (beside, alone)]
        np.testing.assert_allclose(*said, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beside", [False, True])
def test_what_is_frozen_from_the_start_is_not_learnt(beside):
    source = inputs(EVEN)
    corpus = classed(source)
    free = Recipe(probe=ENCODERS["linear"], train=replace(TRAIN, epochs=1))
    (whole,) = train_members([MemberConfig(variant="toy", recipe=free, inputs=source, layers=(0, 1), seed=0)], corpus)
    sizes = {f"probe.{name}": part.numel() for name, part in whole.probe.named_parameters()}
    for frozen, epoch in ((next(iter(sizes)), 0), (next(iter(sizes)), 1), ("probe", 0)):
        recipe = replace(free, train=replace(free.train, freeze={frozen: epoch}))
        members = [
            MemberConfig(variant="toy", recipe=recipe, inputs=source, layers=(0, 1), seed=seed)
            for seed in ((0, 1) if beside else (0,))
        ]
        still = sum(size for name, size in sizes.items() if epoch == 0 and name.startswith(frozen))
        found = [one.parameters for one in train_members(members, corpus)]
        assert found == [sum(sizes.values()) - still] * len(members)
    assert whole.parameters == sum(sizes.values())


@pytest.mark.parametrize(("encoder", "mixer"), TRAINED)
def test_members_that_score_train_beside_each_other_as_alone(encoder, mixer, sizes):
    found = inputs()
    recipe = Recipe(probe=replace(ENCODERS[encoder], mixer=mixer), train=TRAIN)
    assert_as_alone(members_of(recipe, found), scored(found), sizes)


@pytest.mark.parametrize(("encoder", "mixer"), list(itertools.product(ENCODERS, CLASSES)))
def test_members_that_classify_train_beside_each_other_as_alone(encoder, mixer, sizes):
    found = inputs()
    recipe = Recipe(probe=replace(ENCODERS[encoder], mixer=mixer, dropout=0.2, hidden=5), train=TRAIN)
    groups = (1, 1, 2) if mixer == "concat" else (4,)  # whose features are as wide as there are layers
    assert_as_alone(members_of(recipe, found), classed(found), sizes, groups)


@pytest.mark.parametrize("mixer", SCORES)
@pytest.mark.parametrize("spec", [HALVES, replace(HALVES, dropout=0.0)], ids=["dropout", "no dropout"])
def test_members_whose_halves_have_other_codes_train_beside_each_other_as_alone(spec, mixer, sizes):
    found = inputs()
    recipe = Recipe(probe=replace(spec, mixer=mixer), train=TRAIN)
    assert_as_alone(members_of(recipe, found), scored(found), sizes)


@pytest.mark.parametrize("mixer", SCORES)
@pytest.mark.parametrize(
    "subsets", [((0, 1, 2, 3), (1, 3), (0, 2)), ((0, 1), (2, 3), (2, 3))], ids=["all as wide", "not as wide"]
)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_members_of_ragged_layers_end_as_alone(dropout, subsets, mixer):
    found = inputs(RAGGED)
    recipe = Recipe(probe=ProbeSpec(dropout=dropout, noise=0.1, mixer=mixer), train=TRAIN)
    assert_as_alone(members_of(recipe, found, list(zip(subsets, (0, 1, 0), strict=True))), scored(found), None)


@pytest.mark.parametrize("loss", ["mse", "log_variance"])
def test_a_toy_of_scores_is_learnt_better_than_the_raw_cosine(loss):
    found = inputs(texts=400)
    corpus = scored(found)  # the cosine of one layer of four
    (trained,) = train_members(
        [
            MemberConfig(
                variant="toy",
                recipe=Recipe(train=TrainSpec(epochs=30, loss=loss, batch_rows=5)),
                inputs=found,
                layers=(0, 1, 2, 3),
                seed=0,
            )
        ],
        corpus,
    )
    rows = corpus.split("validation")
    mean = np.corrcoef(untrained_cosines(found, rows).mean(0), rows.targets)[0, 1]
    assert trained.history.best_value > mean + 0.1


def test_a_toy_of_classes_is_learnt_beyond_chance():
    found = inputs(texts=300)
    (trained,) = train_members(
        [
            MemberConfig(
                variant="toy",
                recipe=Recipe(train=TrainSpec(epochs=30, learning_rate=0.01, batch_rows=8)),
                inputs=found,
                layers=(0, 1),
                seed=0,
            )
        ],
        classed(found, sides=1),
    )
    assert trained.history.best_value > 0.6  # chance is one third


def test_members_keep_their_order_whatever_is_trained_together(sizes):
    found = inputs()
    kinds = [Recipe(train=TRAIN), Recipe(probe=ProbeSpec(encoder="mlp"), train=TRAIN)]
    members = [
        MemberConfig(variant=f"{at}", recipe=kinds[at % 2], inputs=found, layers=(0, 1), seed=at) for at in range(5)
    ]
    trained = train_members(members, scored(found))
    assert [(one.variant, one.seed) for one in trained] == [(f"{at}", at) for at in range(5)]
    assert sorted(sizes) == [2, 3]


def test_recipes_that_differ_in_what_they_are_called_and_read_only_train_together(sizes):
    found = inputs()
    recipes = [
        Recipe(train=TRAIN),
        Recipe(train=replace(TRAIN, seeds=(4,)), summary="another"),
        Recipe(train=TRAIN, probe=ProbeSpec(layers="1..2", inputs=("mean",))),
    ]
    train_members(
        [MemberConfig(variant="toy", recipe=recipe, inputs=found, layers=(1, 2), seed=0) for recipe in recipes],
        scored(found),
    )
    assert sizes == [3]


@pytest.mark.parametrize(
    ("limit", "expected"), [("MAX_STACKED_PARAMETERS", [1, 1, 1, 1]), ("MAX_STACKED_BYTES", [2, 2])]
)
def test_what_is_too_large_to_be_side_by_side_ends_the_same(limit, expected, sizes, monkeypatch):
    found = inputs()
    corpus, members = scored(found), members_of(Recipe(train=TRAIN), found, [((0, 1), seed) for seed in range(4)])
    before = train_members(members, corpus)
    monkeypatch.setattr(
        members_module, limit, {"MAX_STACKED_PARAMETERS": 100, "MAX_STACKED_BYTES": 4 * 8 * 8 * TRAIN.batch_rows}[limit]
    )
    after = train_members(members, corpus)
    assert sizes == [4, *expected]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one.probe.encoder.parts[0].weight, other.probe.encoder.parts[0].weight)


def test_predictions_in_chunks_are_those_at_once(monkeypatch):
    found = inputs()
    corpus = scored(found)
    (trained,) = train_members(members_of(Recipe(train=TRAIN), found)[:1], corpus)
    at_once = predictions(trained.probe, found, corpus.split("train"))
    monkeypatch.setattr(base, "CHUNK_BYTES", 7 * 4 * 8 * 4 * 2)  # seven rows
    np.testing.assert_allclose(predictions(trained.probe, found, corpus.split("train")), at_once, atol=1e-6)


@pytest.mark.parametrize("widths", [EVEN, RAGGED])
def test_the_untrained_reference_is_the_plain_cosine_of_every_layer(widths):
    found = inputs(widths)
    rows = scored(found).split("validation")
    for layer, said in enumerate(untrained_cosines(found, rows)):
        own = found.values[layer, :, : widths[layer]]
        np.testing.assert_allclose(said, cosines(own[rows.texts[:, 0]], own[rows.texts[:, 1]]).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("train", "message"), [({"loss": "cross_entropy"}, "loss"), ({"metric": "accuracy"}, "metric")]
)
def test_a_loss_or_metric_of_classes_does_not_fit_scores(train, message):
    found = inputs()
    with pytest.raises(SpecError, match=f"train.{message} = '.*' does not fit similarity; use one of"):
        train_members(members_of(Recipe(train=TrainSpec(**train)), found), scored(found))


def test_a_corpus_without_targets_poses_no_task():
    with pytest.raises(
        CorpusError, match=r"it has no targets to learn; set corpus\.target to score, class, tags or answers"
    ):
        task_of(replace(scored(inputs()), kind="none"))


def trained_seeds(corpus: Corpus, found: ProbeInputs, average: bool) -> list[TrainedMember]:
    recipe = Recipe(train=replace(TRAIN, seeds=(0, 1, 2), average=average), probe=ProbeSpec(encoder="mlp"))
    return train_members(
        [
            MemberConfig(variant="toy", recipe=recipe, inputs=found, layers=(0, 1, 2, 3), seed=seed)
            for seed in (0, 1, 2)
        ],
        corpus,
    )


@pytest.mark.parametrize("classes", [False, True])
def test_seeds_that_answer_together_say_the_mean_of_what_they_say(classes):
    found = inputs()
    corpus = classed(found) if classes else scored(found)
    together, apart = (combine_seeds(trained_seeds(corpus, found, average), corpus) for average in (True, False))
    for split, rows in corpus.splits.items():
        assert len(apart.outputs(split)) == 3
        (mean_prediction,) = together.outputs(split)
        assert len(mean_prediction) == len(rows)
        np.testing.assert_allclose(mean_prediction, np.mean(apart.outputs(split), axis=0), atol=1e-6)
    assert len(together.calibrations) == (0 if classes else 1)
    assert len(apart.calibrations) == (0 if classes else 3)
    assert apart.value == pytest.approx(np.mean([one.best_value for one in apart.histories]))
    assert together.value != apart.value


def test_the_value_of_seeds_that_answer_together_is_that_of_their_mean():
    from scipy.stats import spearmanr

    found = inputs()
    corpus = scored(found)
    together = combine_seeds(trained_seeds(corpus, found, average=True), corpus)
    (mean_prediction,) = together.outputs("validation")
    assert together.value == pytest.approx(spearmanr(mean_prediction, corpus.split("validation").targets).statistic)


def test_the_best_seed_and_the_best_variant_are_chosen_on_validation():
    found = inputs()
    corpus = scored(found)
    trained = trained_seeds(corpus, found, average=False)
    one = combine_seeds(trained, corpus)
    assert one.best_index == int(np.argmax([t.history.best_value for t in trained]))
    better = replace(one, variant="better", value=one.value + 0.1)
    assert best_variant([one, better, replace(one, value=-1.0)]) is better
    assert best_variant([one, replace(one, variant="as good")]) is one
