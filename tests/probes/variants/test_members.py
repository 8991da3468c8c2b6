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
from permafrost.probes.objectives.base import untrained_cosines
from permafrost.probes.objectives.heads import predictions
from permafrost.probes.tasks.registry import task_of
from permafrost.probes.variants import members as members_module
from permafrost.probes.variants.combine_seeds import combine_seeds
from permafrost.probes.variants.members import MemberConfig, TrainedMember
from permafrost.probes.variants.trained_variant import TrainedTask, TrainedVariant, best_variant
from tests.support import trainings
from tests.support.marks import slow_but_first
from tests.support.synthetic import EVEN, RAGGED, classed, inputs, scored
from tests.support.trainings import member_config, train_all

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
    original = trainings.train_group

    def counted(group, recipe):
        seen.append(sum(map(len, group.values())))
        return original(group, recipe)

    monkeypatch.setattr(trainings, "train_group", counted)
    return seen


def members_of(recipe: Recipe, found: ProbeInputs, corpus: Corpus, subsets=SUBSETS) -> list[MemberConfig]:
    return [member_config(recipe, found, corpus, seed, layers) for layers, seed in subsets]


def assert_as_alone(
    members: list[MemberConfig], corpus: Corpus, sizes: list[int] | None, groups: tuple[int, ...] = (4,)
) -> None:
    """Side by side, members end with the weights and the predictions that each ends with alone."""
    together = train_all(members)
    assert sizes is None or sorted(sizes) == list(groups)
    for member, beside in zip(members, together, strict=True):
        (alone,) = train_all([member])
        assert beside.history.best_epoch == alone.history.best_epoch
        assert beside.history.losses == pytest.approx(alone.history.losses, rel=1e-4, abs=1e-5)
        assert beside.columns == alone.columns
        assert beside.parameters == alone.parameters
        for name, value in alone.probe.state_dict().items():
            if name != KEY_BIAS and not name.startswith("mixer.network"):  # AdamW makes steps of a gradient near 0
                torch.testing.assert_close(beside.probe.state_dict()[name], value, rtol=1e-4, atol=1e-4)
        said = [predictions(one.probe, one.config.inputs, corpus.split("validation")) for one in (beside, alone)]
        np.testing.assert_allclose(*said, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beside", [False, True])
def test_what_is_frozen_from_the_start_is_not_learnt(beside):
    source = inputs(EVEN)
    corpus = classed(source)
    free = Recipe(probe=ENCODERS["linear"], train=replace(TRAIN, epochs=1))
    (whole,) = train_all([member_config(free, source, corpus, layers=(0, 1))])
    sizes = {f"probe.{name}": part.numel() for name, part in whole.probe.named_parameters()}
    for frozen, epoch in ((next(iter(sizes)), 0), (next(iter(sizes)), 1), ("probe", 0)):
        recipe = replace(free, train=replace(free.train, freeze={frozen: epoch}))
        members = [member_config(recipe, source, corpus, seed, (0, 1)) for seed in ((0, 1) if beside else (0,))]
        still = sum(size for name, size in sizes.items() if epoch == 0 and name.startswith(frozen))
        found = [one.parameters for one in train_all(members)]
        assert found == [sum(sizes.values()) - still] * len(members)
    assert whole.parameters == sum(sizes.values())


@pytest.mark.parametrize(("encoder", "mixer"), TRAINED)
def test_members_that_score_train_beside_each_other_as_alone(encoder, mixer, sizes):
    found = inputs()
    recipe = Recipe(probe=replace(ENCODERS[encoder], mixer=mixer), train=TRAIN)
    corpus = scored(found)
    assert_as_alone(members_of(recipe, found, corpus), corpus, sizes)


@pytest.mark.parametrize(("encoder", "mixer"), list(itertools.product(ENCODERS, CLASSES)))
def test_members_that_classify_train_beside_each_other_as_alone(encoder, mixer, sizes):
    found = inputs()
    recipe = Recipe(probe=replace(ENCODERS[encoder], mixer=mixer, dropout=0.2, hidden=5), train=TRAIN)
    groups = (1, 1, 2) if mixer == "concat" else (4,)  # whose features are as wide as there are layers
    corpus = classed(found)
    assert_as_alone(members_of(recipe, found, corpus), corpus, sizes, groups)


@pytest.mark.parametrize("mixer", SCORES)
@pytest.mark.parametrize("spec", slow_but_first([HALVES, replace(HALVES, dropout=0.0)]), ids=["dropout", "no dropout"])
def test_members_whose_halves_have_other_codes_train_beside_each_other_as_alone(spec, mixer, sizes):
    found = inputs()
    recipe = Recipe(probe=replace(spec, mixer=mixer), train=TRAIN)
    corpus = scored(found)
    assert_as_alone(members_of(recipe, found, corpus), corpus, sizes)


@pytest.mark.parametrize("mixer", SCORES)
@pytest.mark.parametrize(
    "subsets", [((0, 1, 2, 3), (1, 3), (0, 2)), ((0, 1), (2, 3), (2, 3))], ids=["all as wide", "not as wide"]
)
@pytest.mark.parametrize("dropout", slow_but_first([0.2, 0.0]))
def test_members_of_ragged_layers_end_as_alone(dropout, subsets, mixer):
    found = inputs(RAGGED)
    recipe = Recipe(probe=ProbeSpec(dropout=dropout, noise=0.1, mixer=mixer), train=TRAIN)
    corpus = scored(found)
    assert_as_alone(members_of(recipe, found, corpus, list(zip(subsets, (0, 1, 0), strict=True))), corpus, None)


@pytest.mark.parametrize("loss", ["mse", "log_variance"])
def test_a_toy_of_scores_is_learnt_better_than_the_raw_cosine(loss):
    found = inputs(texts=400)
    corpus = scored(found)  # the cosine of one layer of four
    recipe = Recipe(train=TrainSpec(epochs=30, loss=loss, batch_rows=5))
    (trained,) = train_all([member_config(recipe, found, corpus)])
    rows = corpus.split("validation")
    mean = np.corrcoef(untrained_cosines(found, rows).mean(0), rows.targets)[0, 1]
    assert trained.history.best_value > mean + 0.1


def test_a_toy_of_classes_is_learnt_beyond_chance():
    found = inputs(texts=300)
    recipe = Recipe(train=TrainSpec(epochs=30, learning_rate=0.01, batch_rows=8))
    (trained,) = train_all([member_config(recipe, found, classed(found, sides=1), layers=(0, 1))])
    assert trained.history.best_value > 0.6  # chance is one third


def test_members_keep_their_order_whatever_is_trained_together(sizes):
    found = inputs()
    kinds = [Recipe(train=TRAIN), Recipe(probe=ProbeSpec(encoder="mlp"), train=TRAIN)]
    corpus = scored(found)
    trained = train_all([member_config(kinds[at % 2], found, corpus, at, (0, 1), f"{at}") for at in range(5)])
    assert [(one.config.variant, one.config.seed) for one in trained] == [(f"{at}", at) for at in range(5)]
    assert sorted(sizes) == [2, 3]


def test_recipes_that_differ_in_what_they_are_called_and_read_only_train_together(sizes):
    found = inputs()
    recipes = [
        Recipe(train=TRAIN),
        Recipe(train=replace(TRAIN, seeds=(4,)), summary="another"),
        Recipe(train=TRAIN, probe=ProbeSpec(layers="1..2", inputs=("mean",))),
    ]
    corpus = scored(found)
    train_all([member_config(recipe, found, corpus, layers=(1, 2)) for recipe in recipes])
    assert sizes == [3]


@pytest.mark.parametrize(
    ("limit", "expected"), [("MAX_STACKED_PARAMETERS", [1, 1, 1, 1]), ("MAX_STACKED_BYTES", [2, 2])]
)
def test_what_is_too_large_to_be_side_by_side_ends_the_same(limit, expected, sizes, monkeypatch):
    found = inputs()
    members = members_of(Recipe(train=TRAIN), found, scored(found), [((0, 1), seed) for seed in range(4)])
    before = train_all(members)
    monkeypatch.setattr(
        members_module, limit, {"MAX_STACKED_PARAMETERS": 100, "MAX_STACKED_BYTES": 4 * 8 * 8 * TRAIN.batch_rows}[limit]
    )
    after = train_all(members)
    assert sizes == [4, *expected]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one.probe.encoder.parts[0].weight, other.probe.encoder.parts[0].weight)


def test_on_a_gpu_wide_probes_are_side_by_side_too(monkeypatch):
    found = inputs()
    there = members_of(Recipe(), replace(found, device=torch.device("cuda")), scored(found), [((0, 1), 0), ((0, 1), 1)])
    drawn = members_module.initial_probe
    monkeypatch.setattr(members_module, "initial_probe", lambda config: drawn(replace(config, inputs=found)))
    monkeypatch.setattr(members_module, "MAX_STACKED_PARAMETERS", 1)
    monkeypatch.setattr(members_module, "MAX_STACKED_BYTES", 1)
    assert [len(group) for group in members_module.stackable_groups(there)] == [2]


def test_predictions_in_chunks_are_those_at_once(monkeypatch):
    found = inputs()
    corpus = scored(found)
    (trained,) = train_all(members_of(Recipe(train=TRAIN), found, corpus)[:1])
    at_once = predictions(trained.probe, found, corpus.split("train"))
    monkeypatch.setattr("permafrost.probes.objectives.base.CHUNK_BYTES", 7 * 4 * 8 * 4 * 2)  # seven rows
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
        train_all(members_of(Recipe(train=TrainSpec(**train)), found, scored(found)))


def test_a_corpus_without_targets_poses_no_task():
    with pytest.raises(
        CorpusError,
        match=r"it has no targets to learn; set corpus\.columns .* to score, class, labels, tags, answers or rank",
    ):
        task_of(replace(scored(inputs()), kind="none"))


def variant_of(tasks: dict[str, TrainedTask]) -> TrainedVariant:
    costs = dict.fromkeys(("trained_parameters", "parameters", "backbone_parameters", "saved_parameters"), 0)
    return TrainedVariant(variant="toy", recipe=Recipe(), tasks=tasks, logs={}, **costs, seconds=0.0, peak_bytes=0)


def trained_seeds(corpus: Corpus, found: ProbeInputs, average: bool) -> list[TrainedMember]:
    recipe = Recipe(train=replace(TRAIN, seeds=(0, 1, 2), average=average), probe=ProbeSpec(encoder="mlp"))
    return train_all([member_config(recipe, found, corpus, seed) for seed in (0, 1, 2)])


@pytest.mark.parametrize("classes", [False, True])
def test_seeds_that_answer_together_say_the_mean_of_what_they_say(classes):
    found = inputs()
    corpus = classed(found) if classes else scored(found)
    together, apart = (combine_seeds(trained_seeds(corpus, found, average)) for average in (True, False))
    for split, rows in corpus.splits.items():
        assert len(apart.outputs(split)) == 3
        (mean_prediction,) = together.outputs(split)
        assert len(mean_prediction) == len(rows)
        np.testing.assert_allclose(mean_prediction, np.mean(apart.outputs(split), axis=0), atol=1e-6)
    assert [bool(calibration) for calibration in together.calibrations] == [True]
    assert [bool(calibration) for calibration in apart.calibrations] == [True] * 3
    assert apart.value == pytest.approx(np.mean([one.best_value for one in apart.histories]))
    assert together.value != apart.value


def test_the_value_of_seeds_that_answer_together_is_that_of_their_mean():
    from scipy.stats import spearmanr

    found = inputs()
    corpus = scored(found)
    together = combine_seeds(trained_seeds(corpus, found, average=True))
    (mean_prediction,) = together.outputs("validation")
    assert together.value == pytest.approx(spearmanr(mean_prediction, corpus.split("validation").targets).statistic)


def test_the_best_seed_and_the_best_variant_are_chosen_on_validation():
    found = inputs()
    corpus = scored(found)
    trained = trained_seeds(corpus, found, average=False)
    task = combine_seeds(trained)
    assert task.best_index == int(np.argmax([member.history.best_value for member in trained]))
    one, better, worse, as_good = (
        variant_of({"probe": replace(task, value=task.value + more)}) for more in (0, 0.1, -1.0, 0)
    )
    assert best_variant([one, better, worse]) is better
    assert best_variant([one, as_good]) is one
    assert best_variant([better, variant_of(worse.tasks | {"more": task})]).tasks.keys() == {"probe", "more"}
