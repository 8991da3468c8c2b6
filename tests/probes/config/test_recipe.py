"""Recipes: what ships parses, what is misspelt is named, and who has the last word."""

from dataclasses import replace

import pytest

from permafrost.data.settings.toml import read_toml
from permafrost.data.spec import SpecError, parse, plain, to_toml
from permafrost.probes.config.load import load_recipe, load_training, shipped_recipes
from permafrost.probes.config.recipe import Recipe

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


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_parses_expands_and_says_what_it_is(name):
    called, recipe = load_recipe(name)
    variants = recipe.variant_recipes()
    assert called == name
    assert recipe.summary
    assert list(variants) == ([variant.name for variant in recipe.variants] or ["probe"])
    assert len({str(plain(variant)) for variant in variants.values()}) == len(variants)  # no two are the same
    assert parse(Recipe, read_toml(to_toml(recipe), name), name) == recipe


def test_the_recipes_of_the_first_release_ship():
    assert {"quickstart", "sts", "pairs", "classify"} <= set(shipped_recipes())


def test_a_recipe_without_variants_is_one_called_probe(own):
    _, recipe = load_recipe(own("[train]\nepochs = 3\n"))
    assert list(recipe.variant_recipes()) == ["probe"]
    assert recipe.variant_recipes()["probe"].train.epochs == 3


def test_a_recipe_of_your_own_is_found_by_its_path_and_called_by_its_name(own):
    name, recipe = load_recipe(own())
    assert name == "own"
    assert recipe.corpus.path == "pairs.csv"


def test_defaults_yield_to_the_recipe_the_recipe_to_set_and_set_to_a_variant(own):
    _, recipe = load_recipe(own(), ["train.epochs=8", "train.patience=2", "train.patience=3"])
    wide, narrow = recipe.variant_recipes().values()
    assert Recipe().train.batch_rows != wide.train.batch_rows == 5  # recipe over default
    assert wide.train.epochs == 8  # --set over recipe
    assert narrow.train.epochs == 9  # variant over --set
    assert narrow.train.patience == 3  # the later --set over the earlier
    assert narrow.probe.code == (0.5,)
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
        ("[[variants]]\nname = 'a'\nset = { 'train.metric' = 'pearson' }", "variants are compared by one metric"),
        ("[[variants]]\nname = 'a'\nset = { train = { metric = 'pearson' } }", "'train.metric' cannot vary"),
        (
            "[tasks.b]\n[[variants]]\nname = 'a'\nset = { 'tasks.b.train.metric' = 'pearson' }",
            "variant 'a': 'tasks.b.train.metric' cannot vary",
        ),
        (
            "[tasks.b]\n[[variants]]\nname = 'a'\nset = { 'tasks.b' = { train = { metric = 'pearson' } } }",
            "variant 'a': 'tasks.b.train.metric' cannot vary",
        ),
        (
            "[tasks.b.train]\nmetric = 'pearson'\n[[variants]]\nname = 'a'\nset = { tasks = { b = {} } }",
            "variant 'a': 'tasks.b.train.metric' cannot vary",
        ),
        ("[plans.loud]\ntemplat = 'x'", r"\[plans.loud\]: unknown key 'templat'. Did you mean 'template'\?"),
        ("[plans.loud]\ntemplate = 'x'", r"\[plans.loud\]: .*template must contain \{text\}"),
        ("[plans.loud]\nviews = ['meen']", r"\[plans.loud\]: views = 'meen': Did you mean 'mean'\?"),
        ("[plans]\nloud = 3", "plans.loud must be table, got 3"),
        (
            "[probe]\ninputs = ['lowd/mean']\n[plans.loud]\nfinal_norm = true",
            r"probe.inputs names the plan 'lowd'. Did you mean 'loud'\?",
        ),
        ("[probe]\ninputs = ['loud/mean']", r"probe.inputs names the plan 'loud'. There are none\."),
        ("[probe]\ninputs = ['me an']", r"'me an' is not \[PLAN/\]VIEW\[:LAYERS\]"),
        (
            "[[variants]]\nname = 'a'\nset = { 'probe.inputs' = ['loud/mean'] }",
            "variant 'a'.*probe.inputs names the plan 'loud'",
        ),
        ("[probe]\nlayers = '1..'", "layers must be all, a list, or a range as 1..-1, got '1..'"),
        ("[pretraining]\ntask = 'autoencode'", r"pretraining.task = 'autoencode': Did you mean 'autoencoder'\?"),
        ("[pretraining]\nheld_out = 1.0", "held_out must be in"),
        ("[pretraining]\ncorpus = { pth = 'x' }", r"unknown key 'pth' in \[pretraining.corpus\]. Did you mean 'path'"),
        ("[[variants]]\nname = 'a'\nset = { 'train' = 3 }", "train.*must be a table, got 3"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused_by_name(own, text, message):
    with pytest.raises(SpecError, match=message):
        load_recipe(own(text))[1].variant_recipes()


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


def test_several_tasks_in_one_step_are_refused_where_there_are_none(own):
    with pytest.raises(SpecError, match=r"multitask.schedule = joint trains several tasks, and there are none; add"):
        load_training(own(), ["multitask.schedule=joint"])


def test_a_variant_of_several_tasks_is_refused_where_there_are_none(own):
    recipe = own('[[variants]]\nname = "both"\nset = { "multitask.schedule" = "round_robin" }\n')
    with pytest.raises(
        SpecError, match=r"variant 'both': multitask.schedule = round_robin trains several tasks, and there"
    ):
        load_recipe(recipe)


def test_balancing_is_refused_where_there_are_no_tasks(own):
    with pytest.raises(SpecError, match=r"\[balancing\] balances the losses of several tasks, and there are none"):
        load_recipe(own(), ["balancing.balancer=gradnorm"])


def test_variants_are_refused_where_layers_are_trained_task_by_task():
    changes = ['variants=[{name = "deep", set = {"finetune.cut" = 5}}]']
    message = r"'layers' trains layers task by task, which knows no variants; set multitask\.schedule"
    with pytest.raises(SpecError, match=message):
        load_recipe("layers", changes)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(SpecError, match=r"unknown recipe 'quickstrat'. Did you mean 'quickstart'\?"):
        load_recipe("quickstrat")


def test_a_recipe_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"absent.toml cannot be read \(No such file or directory\)"):
        load_recipe(str(tmp_path / "absent.toml"))


PLANS = """
[plan]
layers = "1..-1"
max_tokens = 99
[plans.loud]
template = "{text} !"
views = ["max"]
[plans.other]
backbone = "gpt2"
"""


def test_a_further_plan_is_the_plan_with_some_of_its_fields_changed(own):
    _, recipe = load_recipe(own(PLANS))
    assert recipe.capture_plan("") == recipe.plan
    assert recipe.capture_plan("loud") == replace(recipe.plan, template="{text} !", views=("max",))
    assert recipe.capture_plan("other") == replace(recipe.plan, backbone="gpt2")


@pytest.mark.parametrize(
    ("inputs", "read"),
    [("", [""]), ("mean", [""]), ("loud/max", ["loud"]), ("other/mean:1,mean,loud/max", ["other", "", "loud"])],
)
def test_only_the_plans_that_the_probe_reads_are_captured(own, inputs, read):
    _, recipe = load_recipe(own(PLANS), [f"probe.inputs={inputs}"])
    assert list(recipe.probe_plans()) == read
    assert all(plan == recipe.capture_plan(name) for name, plan in recipe.probe_plans().items())


def test_a_variant_may_change_a_further_plan_or_add_one(own):
    changes = "'plans.loud.template' = '{text} ?', 'plans.new.layers' = '-1', 'plan.max_tokens' = 7"
    _, recipe = load_recipe(own(f"{PLANS}[[variants]]\nname = 'a'\nset = {{ {changes} }}"))
    varied = recipe.variant_recipes()["a"]
    assert varied.capture_plan("loud") == replace(recipe.capture_plan("loud"), template="{text} ?", max_tokens=7)
    assert varied.capture_plan("new") == replace(recipe.plan, layers="-1", max_tokens=7)
    assert recipe.capture_plan("loud").template == "{text} !"


def test_set_changes_a_further_plan(own):
    typed = ["plans.loud.template={text} ?", "plans.loud.max_tokens=7", "plans.other.layers=-1"]
    _, recipe = load_recipe(own(PLANS), typed)
    assert recipe.capture_plan("loud").template == "{text} ?"
    assert recipe.capture_plan("loud").max_tokens == 7
    assert recipe.capture_plan("other").layers == (-1,)


@pytest.mark.parametrize(
    ("typed", "read"), [("1..-1", "1..-1"), ("-1", (-1,)), ("0,2", (0, 2)), ("all", "all"), ("-4..-2", "-4..-2")]
)
def test_layers_are_typed_as_they_are_written(own, typed, read):
    _, recipe = load_recipe(own(), [f"plan.layers={typed}", f"probe.layers={typed}"])
    assert recipe.plan.layers == recipe.probe.layers == read


@pytest.mark.parametrize(("typed", "read"), [("0.5", (0.5,)), ("0.25,0.5", (0.25, 0.5)), ("1", (1.0,))])
def test_codes_are_typed_as_one_or_several(own, typed, read):
    assert load_recipe(own(), [f"probe.code={typed}"])[1].probe.code == read


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("tasks.ner.plan.max_tokens=48", ("ner", "plan", "max_tokens"), 48),
        ("tasks.ner.plan.views=mean,cls", ("ner", "plan", "views"), ["mean", "cls"]),
        ("tasks.ner.probe.layers=1..-1", ("ner", "probe", "layers"), "1..-1"),
        ("tasks.ner.train.rates.probe=1e-3", ("ner", "train", "rates"), {"probe": 1e-3}),
        ("tasks.ner.corpus.limits={train = 5}", ("ner", "corpus", "limits"), {"train": 5}),
        ("tasks.ner.corpus.name=7", ("ner", "corpus", "name"), "7"),
        ("tasks.ner.plan={max_tokens = 48}", ("ner", "plan", "max_tokens"), 48),
        ("tasks.ner={train = {epochs = 2}}", ("ner", "train", "epochs"), 2),
    ],
)
def test_values_of_a_task_that_are_set_have_the_types_of_their_settings(own, assignment, path, value):
    _, recipe = load_recipe(own("[tasks.ner]"), [assignment])
    task, table, key = path
    assert recipe.tasks[task][table] == {key: value}
    assert type(recipe.tasks[task][table][key]) is type(value)
    assert load_recipe(own(to_toml(recipe)))[1] == recipe


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("max_tokens=48", 48),
        ("views=mean,cls", ["mean", "cls"]),
        ("template={text} 7", "{text} 7"),
        ("revision=7", "7"),
    ],
)
def test_values_of_a_plan_that_are_set_have_the_types_of_their_settings(own, assignment, value):
    _, recipe = load_recipe(own("[plans.echo]"), [f"plans.echo.{assignment}"])
    assert recipe.plans == {"echo": {assignment.partition("=")[0]: value}}
    assert load_recipe(own(to_toml(recipe)))[1] == recipe
