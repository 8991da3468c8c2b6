"""Recipes: what ships parses, what is misspelt is named, and who has the last word."""

import pytest

from data.spec import SpecError, parse, plain, read_toml, to_toml
from probes.recipe import Recipe, load_recipe, shipped

OWN = """
[corpus]
path = "pairs.csv"
[train]
epochs = 7
batch_rows = 5
[[variants]]
name = "wide"
[[variants]]
name = "narrow"
set = { "probe.code" = 0.5, "train.epochs" = 9 }
"""


@pytest.fixture
def own(tmp_path):
    """A recipe file with ``[corpus]``, ``[train]`` and two variants; may be given other text."""

    def write(text: str = OWN) -> str:
        (tmp_path / "own.toml").write_text(text, "utf-8")
        return str(tmp_path / "own.toml")

    return write


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_parses_expands_and_says_what_it_is(name):
    called, recipe = load_recipe(name)
    variants = recipe.expanded()
    assert called == name
    assert recipe.summary
    assert list(variants) == [variant.name for variant in recipe.variants]
    assert len({str(plain(variant)) for variant in variants.values()}) == len(variants)  # no two are the same
    assert parse(Recipe, read_toml(to_toml(recipe), name), name) == recipe


def test_the_recipes_of_the_first_release_ship():
    assert {"quickstart", "sts", "pairs", "classify"} <= set(shipped())


def test_a_recipe_without_variants_is_one_called_probe(own):
    _, recipe = load_recipe(own("[train]\nepochs = 3\n"))
    assert list(recipe.expanded()) == ["probe"]
    assert recipe.expanded()["probe"].train.epochs == 3


def test_a_recipe_of_your_own_is_found_by_its_path_and_called_by_its_name(own):
    name, recipe = load_recipe(own())
    assert name == "own"
    assert recipe.corpus.path == "pairs.csv"


def test_defaults_yield_to_the_recipe_the_recipe_to_set_and_set_to_a_variant(own):
    _, recipe = load_recipe(own(), ["train.epochs=8", "train.patience=2", "train.patience=3"])
    wide, narrow = recipe.expanded().values()
    assert Recipe().train.batch_rows != wide.train.batch_rows == 5  # recipe over default
    assert wide.train.epochs == 8  # --set over recipe
    assert narrow.train.epochs == 9  # variant over --set
    assert narrow.train.patience == 3  # the later --set over the earlier
    assert narrow.probe.code == 0.5
    assert wide.probe.code == Recipe().probe.code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[plan]\nbackbon = 'minilm'",
            r"recipe own.toml: unknown key 'backbon' in \[plan\]. Did you mean 'backbone'\?",
        ),
        ("[plann]\nbackbone = 'minilm'", r"unknown key 'plann'. Did you mean 'plan'\?"),
        ("[plan]\nviews = ['meen']", r"plan.views = 'meen': Did you mean 'mean'\?"),
        ("[probe]\nencoder = 'liner'", r"probe.encoder = 'liner': Did you mean 'linear'\?"),
        ("[train]\nepochs = 'many'", r"train.epochs must be whole number, got 'many'"),
        ("[train]\nepochs = 0", "train.*must be at least 1"),
        ("[train", "not valid TOML"),
        ("[[variants]]\nname = 'a'\n[[variants]]\nname = 'a'", "two variants are called 'a'"),
        ("[[variants]]\nname = 'raw'", "'raw' is taken by the untrained reference"),
        ("[[variants]]\nname = 'a'\nset = { 'probe.encodr' = 'mlp' }", "variant 'a'.*Did you mean 'encoder'"),
        ("[[variants]]\nname = 'a'\nset = { 'corpus.limit' = 3 }", "'corpus.limit' cannot vary"),
        ("[[variants]]\nname = 'a'\nset = { 'extract.cache' = 'x' }", "'extract.cache' cannot vary"),
        ("[[variants]]\nname = 'a'\nset = { 'variants' = [] }", "'variants' cannot vary"),
        ("[[variants]]\nname = 'a'\nset = { 'train' = 3 }", "train.*must be a table, got 3"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused_by_name(own, text, message):
    with pytest.raises(SpecError, match=message):
        load_recipe(own(text))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("plan.backbone", "'plan.backbone': expected KEY=VALUE"),
        ("=minilm", "'=minilm': expected KEY=VALUE"),
        ("plan.view=mean", r"unknown key 'view' in \[plan\]. Did you mean 'views'\?"),
        ("train.epochs.more=3", "train.epochs is a value, not a table"),
        ("train=3", "train.*must be a table"),
    ],
)
def test_what_set_cannot_say_is_refused_by_name(own, assignment, message):
    with pytest.raises(SpecError, match=message):
        load_recipe(own(), [assignment])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(SpecError, match=r"unknown recipe 'quickstrat'. Did you mean 'quickstart'\?"):
        load_recipe("quickstrat")


def test_a_recipe_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"absent.toml cannot be read \(No such file or directory\)"):
        load_recipe(str(tmp_path / "absent.toml"))
