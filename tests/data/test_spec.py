"""Specs: what a recipe may say, how an override is read, and what a wrong one is told."""

import dataclasses
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plan.layers import resolve_layers
from permafrost.data.plan.plan import VIEWS, CapturePlan, ExtractSpec
from permafrost.data.settings.toml import read_toml
from permafrost.data.spec import SpecError, fingerprint, manual, nearest, override, parse, plain, to_toml
from permafrost.data.store.identity import Identity
from permafrost.probes.config.load import load_recipe, shipped_recipes
from permafrost.probes.config.recipe import Recipe

WORD = 'This sentence : "{text}" means in one word:"'


def recipe(*assignments: str, toml: str = "") -> Recipe:
    return parse(Recipe, override(read_toml(toml, "r.toml"), assignments), "recipe r.toml")


def test_an_empty_recipe_is_all_defaults():
    assert recipe() == Recipe()


@pytest.mark.parametrize(
    ("assignment", "table", "field", "value"),
    [
        ("plan.layers=3,4", "plan", "layers", (3, 4)),
        ("plan.layers=-1", "plan", "layers", (-1,)),
        ("plan.layers=[0, 2]", "plan", "layers", (0, 2)),
        ("plan.layers=all", "plan", "layers", "all"),
        ("plan.views=mean,cls", "plan", "views", ("mean", "cls")),
        ("plan.views=mean", "plan", "views", ("mean",)),
        ('plan.views=["last", "sum"]', "plan", "views", ("last", "sum")),
        ("plan.final_norm=true", "plan", "final_norm", True),
        ("plan.max_tokens = 32", "plan", "max_tokens", 32),
        ('plan.stored_dtype = "float32"', "plan", "stored_dtype", "float32"),
        (f"plan.template={WORD}", "plan", "template", WORD),
        ("plan.template=a, {text}, b = {c}", "plan", "template", "a, {text}, b = {c}"),
        ('plan.template=" {text} "', "plan", "template", " {text} "),
        ("plan.template='{text}' it said", "plan", "template", "'{text}' it said"),
        ("plan.backbone=12", "plan", "backbone", "12"),
        ("plan.revision=true", "plan", "revision", "true"),
        ("corpus.columns=a,b , score", "corpus", "columns", ("a", "b", "score")),
        ('corpus.columns="a, b",c', "corpus", "columns", ('"a', 'b"', "c")),
        ('corpus.columns=["a, b", "c"]', "corpus", "columns", ("a, b", "c")),
        ("corpus.score_range=0,5", "corpus", "score_range", (0.0, 5.0)),
        ("extract.shard_seconds=5", "extract", "shard_seconds", 5.0),
    ],
)
def test_an_override_is_read_as_its_field_wants_it(assignment, table, field, value):
    read = getattr(getattr(recipe(assignment), table), field)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_asked_for(view):
    assert recipe(f"plan.views={view}").plan.views == (view,)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("plan.poolings=mean", "unknown key 'poolings' in [plan]. Known:"),
        ("plan.veiws=mean", "unknown key 'veiws' in [plan]. Did you mean 'views'?"),
        ("plann.views=mean", "unknown key 'plann'. Did you mean 'plan'?"),
        ("plan.views=meen", "plan.views = 'meen': Did you mean 'mean'?"),
        ("plan.max_tokens=many", 'plan.max_tokens must be a whole number, or one that may be lowered, as "256 or few'),
        ("plan.stride=many", "plan.stride must be whole number, got 'many'."),
        ("plan.stride=1.5", "plan.stride must be whole number, got 1.5."),
        ("plan.stride=true", "plan.stride must be whole number, got true."),
        ("plan.max_tokens=0", "plan.max_tokens must be at least 1, got 0."),
        ("plan.final_norm=1", "plan.final_norm must be true or false, got 1."),
        ("plan.layers=first", "plan.layers must be"),
        ("plan.layers=1.5", "plan.layers must be"),
        ("plan.layers=2,2", "plan.layers names one twice: [2, 2]."),
        ("plan.views=mean,mean", "plan.views names one twice"),
        ("plan.views=", "plan.views must name at least one."),
        ("plan.template=no place", "plan.template must contain {text} once or twice"),
        ("plan.template={text}{text}{text}", "plan.template must contain {text} once or twice"),
        ("plan=3", "[plan] must be a table, got"),
        ("plan.layers.first=3", "plan.layers must be"),
        ("corpus.score_range=1,2,3", "corpus.score_range must be list of number or \"auto\", got '1,2,3'."),
        ("corpus.score_range=5,0", "corpus.score_range must rise"),
        ("corpus.score_range=nan,1", "corpus.score_range must rise"),
        ("corpus.fractions=0.5,0.1,0.1", "corpus.fractions must be shares that add up to 1"),
        ("corpus.limit=-1", "corpus.limit must not be negative"),
        ("extract.shard_bytes=0", "must be positive"),
        ("variants=3", "must be a table"),
    ],
)
def test_a_wrong_override_is_told_what_the_key_wants(assignment, message):
    with pytest.raises(SpecError) as error:
        recipe(assignment)
    assert str(error.value).startswith("recipe r.toml: ")
    assert message in str(error.value)


@pytest.mark.parametrize("assignment", ["plan.layers", "=3", "  = 3"])
def test_an_override_without_key_or_value_is_refused(assignment):
    with pytest.raises(SpecError, match="expected KEY=VALUE"):
        override({}, [assignment])


def test_a_value_has_no_keys_below_it():
    with pytest.raises(SpecError, match=r"plan\.views is a value, not a table"):
        override({"plan": {"views": "mean"}}, ["plan.views.first=mean"])


def test_broken_toml_names_the_file_and_the_line():
    with pytest.raises(SpecError, match=r"r\.toml: not valid TOML: .*line 2"):
        read_toml("a = 1\nb = = 2\n", "r.toml")


def test_a_missing_setting_is_named():
    with pytest.raises(SpecError, match=r"r: 'weights' is missing\."):
        parse(Identity, {}, "r")


def test_a_corpus_is_named_or_a_file_but_not_both():
    with pytest.raises(SpecError, match=r"corpus\.name and path exclude each other"):
        recipe("corpus.name=stsb", "corpus.path=a.csv")


def test_defaults_give_way_to_the_recipe_and_the_recipe_to_overrides_in_order():
    toml = '[plan]\nmax_tokens = 7\nbackbone = "gpt2"'
    read = recipe("plan.max_tokens=8", "plan.max_tokens=9", toml=toml).plan
    assert (read.max_tokens, read.backbone, read.views) == (9, "gpt2", CapturePlan().views)


def test_an_override_leaves_the_tree_it_was_given_alone():
    tree = {"plan": {"layers": [1, 2]}, "variants": [{"name": "a"}]}
    before = json.dumps(tree)
    override(tree, ["plan.layers=3", "plan.views=mean", "new.key=1"])
    assert json.dumps(tree) == before


def test_a_variant_comes_after_the_overrides_and_may_not_touch_the_corpus():
    toml = '[[variants]]\nname = "short"\nset = {"plan.max_tokens" = 5}'
    assert recipe("plan.max_tokens=8", toml=toml).variant_recipes()["short"].plan.max_tokens == 5
    with pytest.raises(SpecError, match=r"'corpus\.limit' cannot vary"):
        recipe(toml=toml.replace("plan.max_tokens", "corpus.limit")).variant_recipes()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_survives_being_written_and_read(name):
    _, loaded = load_recipe(name)
    assert parse(Recipe, read_toml(to_toml(loaded), "again"), "again") == loaded


plans = st.builds(
    CapturePlan,
    backbone=st.text(),
    template=st.tuples(st.text(), st.text()).map("{text}".join).filter(lambda t: t.count("{text}") == 1),
    views=st.lists(st.sampled_from(VIEWS), min_size=1, unique=True).map(tuple),
    layers=st.one_of(st.just("all"), st.lists(st.integers(-99, 99), min_size=1, unique=True).map(tuple)),
    max_tokens=st.one_of(st.integers(1, 10**6), st.integers(1, 10**6).map("{} or fewer".format)),
    final_norm=st.booleans(),
)


@given(plan=plans)
def test_any_plan_survives_toml(plan):
    assert parse(CapturePlan, read_toml(to_toml(plan), "t"), "t") == plan


@given(text=st.text(string.printable.replace("\r", "").replace("\n", "")))
def test_typed_text_arrives_as_typed_but_for_the_space_around_it(text):
    read = recipe(f"plan.backbone={text}").plan.backbone
    assert read == text.strip() or text.strip()[:1] in "'\""


@given(seconds=st.floats(1e-9, 1e9), limit=st.integers(0, 2**62))
def test_numbers_survive_toml_to_the_last_bit(seconds, limit):
    for spec in (ExtractSpec(shard_seconds=seconds), CorpusSpec(limit=limit)):
        assert parse(type(spec), read_toml(to_toml(spec), "t"), "t") == spec


def test_a_fingerprint_changes_with_every_field_and_with_nothing_else(identity):
    changed = [
        dataclasses.replace(identity, **{field.name: type(value)(f"{value}9") if value else value is None or not value})
        for field in dataclasses.fields(identity)
        for value in [getattr(identity, field.name)]
    ]
    names = {fingerprint(spec) for spec in [identity, *changed]}
    assert len(names) == 1 + len(dataclasses.fields(identity))
    assert fingerprint(dataclasses.replace(identity)) == fingerprint(identity) == identity.name
    assert len(identity.name) == 16
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_an_identity_is_read_back_strictly(identity):
    full = dataclasses.replace(identity, add_special_tokens=False, pools_text=True)
    for written in (identity, full):
        assert Identity.from_json(plain(written)) == written
    for more in ({"max_tokens": "16"}, {"more": 1}, {"pools_text": None}, {"pools_text": "yes"}):
        with pytest.raises(ValueError):
            Identity.from_json(plain(identity) | more)
    for wrong in (None, [], {}):
        with pytest.raises(ValueError):
            Identity.from_json(wrong)


def test_the_manual_explains_every_setting_of_a_recipe():
    settings = list(manual(Recipe))
    assert {setting.key for setting in settings} >= {"plan.views", "corpus.columns", "extract.cache", "variants"}
    for setting in settings:
        assert setting.meaning, f"{setting.key} has no docstring under its field"
        assert setting.type


@pytest.mark.parametrize("key", [s.key for s in manual(Recipe) if s.key not in ("variants",)])
def test_the_default_that_the_manual_prints_can_be_typed(key):
    default = next(setting.default for setting in manual(Recipe) if setting.key == key)
    assert recipe(f"{key}={default}") == Recipe()


def test_layers_count_from_either_end_and_only_so_far():
    assert resolve_layers("all", range(3)) == (0, 1, 2)
    assert resolve_layers((-1, 0), range(3)) == (0, 2)
    for wanted, message in (((3,), "layer 3 is out of range"), ((-4,), "layer -4"), ((2, -1), "twice")):
        with pytest.raises(SpecError, match=message):
            resolve_layers(wanted, range(3))


def test_nearest_names_the_close_word_or_else_all_of_them():
    assert nearest("pooling", ["pool", "train"]) == "Did you mean 'pool'?"
    assert nearest("xyz", ["b", "a"]) == "Known: a, b."


def test_a_table_that_changes_some_settings_keeps_the_others_of_its_default():
    changed = recipe("pretraining.corpus.limit=5").pretraining
    assert (changed.corpus.name, changed.corpus.limit, changed.train.batch_rows) == ("genericskb", 5, 128)
