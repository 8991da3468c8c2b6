"""Search spaces: what a recipe may say, and what is refused before the first trial."""

import math

import pytest

from permafrost.data.settings.toml import read_toml
from permafrost.data.spec import SpecError, override, parse, to_toml
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import Interval, StudySpec
from permafrost.probes.search.trials import best_recipe, check_space, first_difference, study_identity, with_params
from tests.support.toys import SPACE, searching


def spec(key: str, given: object) -> StudySpec:
    return StudySpec(space={key: given})


def test_a_range_is_whole_where_both_ends_are():
    assert spec("train.epochs", {"low": 2, "high": 9}).ranges() == {"train.epochs": Interval(2, 9)}
    assert spec("train.epochs", {"low": 2, "high": 9}).ranges()["train.epochs"].whole
    assert not spec("train.clip", {"low": 1, "high": 2.5}).ranges()["train.clip"].whole
    assert not spec("train.clip", {"low": 1, "high": 2, "step": 0.25}).ranges()["train.clip"].whole


def test_the_values_of_a_range_with_a_step_are_exact():
    assert spec("train.clip", {"low": 0.0, "high": 0.3, "step": 0.1}).ranges()["train.clip"].values() == [
        0.0, 0.1, 0.2, 0.3,
    ]  # fmt: skip
    assert spec("train.epochs", {"low": 1, "high": 3}).ranges()["train.epochs"].values() == [1, 2, 3]
    assert spec("train.clip", {"low": 0.0, "high": 0.3}).ranges()["train.clip"].values() is None


def test_a_space_knows_how_many_trials_it_holds():
    assert StudySpec(space={"a": [1, 2, 3], "b": {"low": 1, "high": 4}}).size() == 12
    assert StudySpec(space=SPACE).size() == math.inf


def test_lists_are_offered_as_text_and_come_back_as_lists():
    recipe = searching({"probe.inputs": [["mean"], ["mean", "cls"]], "train.epochs": [5, 7]})
    assert list(recipe.study.ranges()["probe.inputs"].values()) == ['["mean"]', '["mean", "cls"]']
    made = with_params(recipe, "trial-1", {"probe.inputs": '["mean", "cls"]', "train.epochs": 7})
    assert made.probe.inputs == ("mean", "cls")
    assert made.train.epochs == 7


def test_keys_with_and_without_quotes_are_the_same():
    quoted = 'study.space."train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'
    bare = "[study.space]\ntrain.learning_rate = { low = 1e-4, high = 1e-2, log = true }\ntrain.epochs = [5, 6]"
    assert list(parse(Recipe, read_toml(quoted, ""), "").study.ranges()) == ["train.learning_rate"]
    assert list(parse(Recipe, read_toml(bare, ""), "").study.ranges()) == ["train.learning_rate", "train.epochs"]


def test_a_space_survives_toml_and_the_command_line():
    recipe = searching()
    assert parse(Recipe, read_toml(to_toml(recipe), ""), "") == recipe
    changed = parse(Recipe, override({}, ['study.space={"train.epochs"=[1,2]}', "study.trials=3"]), "")
    assert (list(changed.study.ranges()), changed.study.trials) == (["train.epochs"], 3)
    dotted = ["study.space.train.epochs=[1,2]", "study.space.train.clip={low=0.5,high=2}", "study.space.train.loss=[]"]
    changed = parse(Recipe, override(read_toml(to_toml(recipe), ""), dotted[:2]), "")
    assert changed.study.ranges() == recipe.study.ranges() | parse(Recipe, override({}, dotted[:2]), "").study.ranges()
    assert parse(Recipe, read_toml(to_toml(changed), ""), "") == changed
    with pytest.raises(SpecError, match=r"'train.loss' offers no choice"):
        parse(Recipe, override({}, dotted), "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"low": 2, "high": 2}, "low must be less than high, got low = 2 and high = 2"),
        ({"low": 3.0, "high": 2.0}, "low must be less than high"),
        ({"low": 0, "high": 2, "log": True}, "a logarithmic range needs low above 0"),
        ({"low": 0.0, "high": 1.0, "step": 0}, "step must be a number above 0, got 0"),
        ({"low": 0.0, "high": 1.0, "step": -0.1}, "step must be a number above 0"),
        ({"low": 0.0, "high": 1.0, "step": 0.3}, r"do not reach high = 1.0; the last is 0.9"),
        ({"low": 0.1, "high": 1.0, "step": 0.1, "log": True}, "logarithmic or has a step, not both"),
        ({"low": "a", "high": 2}, "needs numbers for low and high"),
        ({"low": True, "high": 2}, "needs numbers for low and high"),
        ({"low": 1}, "needs numbers for low and high"),
        ({"low": 1.0, "high": math.inf}, "needs numbers for low and high"),
        ({"low": 1, "high": 2, "log": 1}, "log must be true or false"),
        ({"low": 1, "hihg": 2}, "unknown key 'hihg'. Did you mean 'high'?"),
        ([], "offers no choice"),
        (["mse", "mse"], "offers the same choice twice"),
        ([[1, 2], [1, 2]], "offers the same choice twice"),
        ([1, True], "offers the same choice twice"),
        ("mse", "must be a list of choices or a table with low and high"),
    ],
)
def test_a_range_that_cannot_be_is_refused(given, said):
    with pytest.raises(SpecError, match=said.replace("(", r"\(")) as caught:
        spec("train.clip", given)
    assert "train.clip" in str(caught.value)


@pytest.mark.parametrize("key", ["train.seeds", "train.metric"])
def test_what_trials_share_is_not_searched(key):
    with pytest.raises(SpecError, match="all trials of a study share it"):
        spec(key, [1, 2])


def test_other_settings_of_a_study_are_checked():
    for wrong in ({"trials": 0}, {"seed": -1}, {"seeds": ()}, {"seeds": (1, 1)}):
        with pytest.raises(SpecError, match=next(iter(wrong))):
            StudySpec(**wrong)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"train.learning_rat": [0.1]}, "names 'train.learning_rat', which is no setting. Did you mean 'train.learn"),
        ({"trian.epochs": [1]}, "names 'trian.epochs', which is no setting. Did you mean 'train.epochs'"),
        ({"corpus.name": ["a"]}, "names 'corpus.name', which is no setting"),
        (
            {"train.epochs": {"low": 1.0, "high": 5.0}},
            "'train.epochs' cannot be 1.0: .* must be whole number",
        ),
        ({"train.epochs": [3, 0]}, "'train.epochs' cannot be 0: .*at least 1"),
        ({"probe.encoder": ["none", "lienar"]}, "'probe.encoder' cannot be 'lienar': .*Did you mean 'linear'"),
        ({"train.warmup": {"low": 0.1, "high": 1.5}}, "'train.warmup' cannot be 1.5"),
    ],
)
def test_every_key_and_end_is_tried_before_the_first_trial(space, said):
    with pytest.raises(SpecError, match=said):
        check_space(searching(space))


def test_a_study_without_a_space_is_refused():
    with pytest.raises(SpecError, match="nothing to search"):
        check_space(Recipe())


def test_a_good_space_passes():
    check_space(searching())


def test_the_best_recipe_is_ready_to_run_with_the_seeds_of_the_study():
    best = best_recipe(searching(seeds=(4, 5)), "s", {"train.learning_rate": 0.002, "train.loss": "mse"})
    read = parse(Recipe, read_toml(to_toml(best), ""), "")
    assert (read.train.learning_rate, read.train.loss, read.train.seeds) == (0.002, "mse", (4, 5))
    assert not read.study.space


def test_identity_holds_what_trials_share_and_nothing_else():
    first = study_identity(searching())
    assert first_difference(first, study_identity(searching(trials=9, sampler="RandomSampler", seeds=(1,)))) is None
    other = {**SPACE, "train.loss": ["mse"]}
    assert first_difference(first, study_identity(searching(other))).startswith("study.space.train.loss")
    assert first_difference(first, study_identity(searching({"train.epochs": [1, 2]}))) == "study.space.train.epochs"
