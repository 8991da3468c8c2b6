"""What a batch is made of: its runs, their names, and what is refused before anything runs."""

import pytest

from permafrost.batches.plan import ImpossibleError, load_item, plan_items
from permafrost.batches.spec import BatchSpec, assignments, is_batch_file, read_batch
from permafrost.cli.batch import _axis
from permafrost.data.spec import SpecError, override


def names(**settings):
    return [item.name for item in plan_items(BatchSpec(**settings))]


def test_runs_are_named_by_what_varies():
    found = names(
        recipes=("quickstart", "pairs"),
        backbones=("minilm", "hub/bert"),
        set={"train": {"epochs": 3}},
        grid={"train.seeds": [0, 1], "probe": {"mixer": ["softmax", "last"]}, "train.epochs": [4]},
    )
    assert len(set(found)) == 16
    assert found[0] == "quickstart-minilm-seed0-mixer-softmax"
    assert found[-1] == "pairs-bert-seed1-mixer-last"
    assert names(recipes=("quickstart",), data=("a/mine.csv", "b/mine.csv")) == [
        "quickstart-a-mine",
        "quickstart-b-mine",
    ]


def test_every_value_of_a_file_arrives_as_it_was_written():
    values = {
        "plan": {"views": ["mean", "cls"], "template": 'a "b" = {text}'},
        "train.freeze": {"probe": 2},
        "x.y": True,
    }
    tree = override({}, assignments({**values, "train.learning_rate": 1e-3}))
    spec = load_item(
        plan_items(BatchSpec(recipes=("quickstart",), set={k: v for k, v in values.items() if k != "x.y"}))[0]
    ).recipe
    assert spec.plan.views == ("mean", "cls")
    assert spec.plan.template == 'a "b" = {text}'
    assert spec.train.freeze == {"probe": 2}
    assert tree["x"] == {"y": "true"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('recipes = ["quickstrat"]', "Did you mean 'quickstart'"),
        ('recipes = ["no.toml"]', "no such file"),
        ('recipes = ["quickstart", "quickstart"]', "2 runs of the batch would be called 'quickstart'"),
        ('recipes = ["quickstart"]\ngird = {}', "Did you mean 'grid'"),
        ('recipes = ["quickstart"]\n[grid]\n"train.seeds" = 3', "must be a list"),
        ('recipes = ["quickstart"]\n[grid]\n"train.seeds" = []', "empty"),
        ('recipes = ["quickstart"]\n[grid]\n"train.sedes" = [1]', "Did you mean 'seeds'"),
        ('recipes = ["quickstart"]\n[set]\n"train.epochs" = "many"', "train.epochs"),
        ("[grid]", "recipes"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(tmp_path, text, told):
    path = tmp_path / "night.toml"
    path.write_text(text)
    assert is_batch_file(str(path))
    with pytest.raises(SpecError, match=told):
        [load_item(item) for item in plan_items(read_batch(path))]


def test_a_recipe_that_is_impossible_in_itself_is_no_reason_to_refuse_the_others(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text("[corpus]\npath = 'missing.csv'\n")
    assert not is_batch_file(str(path))
    (tmp_path / "wrong.toml").write_text("[trian]\n")
    for name in ("odd", "wrong"):
        with pytest.raises(ImpossibleError):
            load_item(plan_items(BatchSpec(recipes=(str(tmp_path / f"{name}.toml"),)))[0])


@pytest.mark.parametrize("words", ["train.seeds=[0, 1]", "train.seeds=0,1", "train.seeds = 0, 1"])
def test_a_grid_of_the_command_line_may_do_without_brackets(words):
    assert _axis(words) == ("train.seeds", [0, 1])
    assert _axis("probe.mixer=[softmax, last]") == ("probe.mixer", ["softmax", "last"])
