"""An ablation trains every distinct subset once, as if it were a recipe of its own, with controls beside it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from permafrost import api
from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.spec import SpecError
from permafrost.data.text import Segments
from permafrost.data.writing.script import is_mark, unbreakable_spans
from permafrost.probes.config.ablation import COMPARISONS, AblationSpec, format_layers, subsets
from permafrost.probes.config.columns import Column
from permafrost.probes.config.names import PROBE, RANDOM_TARGETS
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.experiments import subsets as subsets_module
from permafrost.probes.experiments.subsets import SubsetTrainer
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.tasks.registry import TASKS
from permafrost.probes.tasks.rows import shuffle_targets
from permafrost.probes.tasks.tagging import repair_tags
from permafrost.probes.variants import members as members_module
from permafrost.probes.variants.combine_seeds import combine_seeds
from tests.support.bench import Bench
from tests.support.synthetic import answered, classed, inputs, scored, tagged
from tests.support.trainings import ToyWorkspace, member_config, scorer_of, train_all

COLUMNS = [Column("", "mean", 0), Column("", "mean", 1), Column("", "mean", 3), Column("", "cls", 3)]
EXPECTED = {
    "all": {"all": (0, 1, 2, 3)},
    "single": {"0": (0,), "1": (1,), "3": (2, 3)},
    "without": {"0": (1, 2, 3), "1": (0, 2, 3), "3": (0, 1)},
    "prefix": {"0": (0,), "1": (0, 1), "3": (0, 1, 2, 3)},
    "suffix": {"0": (0, 1, 2, 3), "1": (1, 2, 3), "3": (2, 3)},
    "view": {"mean": (0, 1, 2), "cls": (3,)},
}


@pytest.mark.parametrize("kind", ["all", *COMPARISONS])
def test_a_layer_stands_for_all_views_that_have_it(kind):
    assert {one.name: one.layer_positions for one in subsets(kind, COLUMNS)} == EXPECTED[kind]


@pytest.mark.parametrize("kind", ["without", "view"])
def test_nothing_is_left_out_of_a_single_layer(kind):
    assert subsets(kind, COLUMNS[:1]) == []


def test_layers_are_named_in_few_words():
    assert format_layers([0, 1, 2, 5, 7, 8, 8]) == "0-2,5,7-8"


def test_greedy_must_take_a_layer():
    with pytest.raises(SpecError, match="greedy must be at least 1"):
        AblationSpec(greedy=0)


def trainer_of(recipe: Recipe, found: ProbeInputs, corpus: Corpus, control: str = "") -> SubsetTrainer:
    """A trainer with two seeds, on latents made up of numbers."""
    recipe = replace(recipe, train=replace(recipe.train, seeds=(0, 1)))
    return SubsetTrainer(PROBE, recipe, ToyWorkspace(found, corpus), control)


def shuffled(corpus: Corpus, seed: int) -> Corpus:
    return shuffle_targets(TASKS[corpus.kind], corpus, seed)


def toy_trainer(spec: ProbeSpec, layer: int = 1, control: str = "") -> SubsetTrainer:
    found = inputs(texts=120)
    recipe = Recipe(probe=spec, train=TrainSpec(epochs=3, batch_rows=16, learning_rate=1e-2))
    return trainer_of(recipe, found, scored(found, layer), control)


@pytest.mark.parametrize("encoder", ["none", "lowrank", "linear"])
def test_members_side_by_side_give_the_figures_of_members_apart(encoder, monkeypatch):
    wanted = [subset for kind in ("all", "single", "without", "prefix") for subset in subsets(kind, inputs().columns)]
    values = []
    for small in (1 << 40, 0):
        monkeypatch.setattr(members_module, "MAX_STACKED_PARAMETERS", small)
        made = toy_trainer(ProbeSpec(encoder=encoder, rank=2))
        made.train(wanted, "subsets")
        decoded = [made.results[subset.layer_positions].decoded["validation"] for subset in wanted]
        values.append([answer for seeds in decoded for answer in seeds])
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)


def test_every_distinct_subset_is_trained_once(monkeypatch):
    trained = []
    original = subsets_module.train_group

    def counted(group, *arguments, **further):
        trained.extend(member.config for member in group[PROBE])
        return original(group, *arguments, **further)

    monkeypatch.setattr(subsets_module, "train_group", counted)
    made = toy_trainer(ProbeSpec(encoder="none"))
    for kind in ("single", "prefix", "suffix", "single"):
        made.train(subsets(kind, made.columns), kind)
    assert len({(member.layers, member.seed) for member in trained}) == len(trained) == 2 * 9


def test_greedy_selection_takes_the_layer_that_tells_first():
    made = toy_trainer(ProbeSpec(encoder="none"), layer=2)
    steps = made.select_greedily(3)
    assert [len(step.layer_positions) for step in steps] == [1, 2, 3]
    assert steps[0].name == "2"
    assert set(steps[0].layer_positions) < set(steps[1].layer_positions) < set(steps[2].layer_positions)


def test_a_figure_is_the_mean_over_seeds_with_a_test_against_the_last_layer_alone():
    made = toy_trainer(ProbeSpec(encoder="none"))
    second = subsets("single", made.columns)[1]
    made.train([second, made.last_layer], "two layers")
    rows = list(made.rows(second, made))
    tests = {row.metric: row for row in rows if row.against}
    rows = {row.metric: row for row in rows if not row.against}
    said, target = made.results[(1,)].decoded["validation"], made.problem.corpus.split("validation").targets
    assert rows["pearson"].value == pytest.approx(np.mean([stats.pearsonr(one, target)[0] for one in said]))
    assert rows["pearson"].low < rows["pearson"].value < rows["pearson"].high
    last = {row.metric: row for row in made.rows(made.last_layer, made)}
    assert {row.against for row in tests.values()} == {last["pearson"].subset}
    assert tests["pearson"].value == pytest.approx(rows["pearson"].value - last["pearson"].value)
    assert tests["pearson"].low < tests["pearson"].value < tests["pearson"].high
    assert tests["pearson"].p < 0.01
    assert all(row.p is None for row in rows.values())
    assert all(row.p is None and not row.against for row in last.values())


@pytest.mark.parametrize("made", [classed, tagged, answered])
def test_seeds_that_answer_together_have_the_figure_of_their_joint_answer(made):
    found, corpus = (inputs(), classed(inputs())) if made is classed else made(30)
    train = TrainSpec(epochs=2, batch_rows=8, average=True)
    measured = trainer_of(Recipe(probe=ProbeSpec(encoder="none"), train=train), found, corpus)
    measured.train([measured.last_layer], "the last layer")
    last = measured.last_layer.layer_positions
    trained = train_all([member_config(measured.recipe, found, corpus, seed, last) for seed in (0, 1)])
    ensemble, scorer = combine_seeds(trained), scorer_of(corpus, "validation")
    (together,) = (scorer.decode(said) for said in ensemble.outputs("validation"))
    (answers,) = measured.results[last].decoded["validation"]
    np.testing.assert_array_equal(answers, together)
    assert measured.results[last].value == ensemble.value


def test_a_layer_that_is_the_same_for_all_texts_has_no_figure_and_harms_no_other():
    found = inputs(texts=120)
    found.values[0] = 1.0
    recipe = Recipe(probe=ProbeSpec(encoder="none"), train=TrainSpec(epochs=2, batch_rows=16))
    made = trainer_of(recipe, found, scored(found))
    wanted = subsets("single", made.columns)
    made.train(wanted, "single layers")
    counts = [len([row for row in made.rows(one, made) if row.split and not row.against]) for one in wanted]
    assert counts[0] == 0
    assert min(counts[1:]) == 2


def test_shuffled_targets_are_those_of_training_in_another_order():
    corpus = scored(inputs())
    other = shuffled(corpus, 0)
    rows, control = corpus.split("train"), other.split("train")
    assert sorted(control.targets) == sorted(rows.targets)
    assert (control.targets != rows.targets).any()
    assert (control.texts == rows.texts).all()
    assert other.split("validation") is control  # memory is measured where it was made


def test_shuffled_label_sets_stay_whole():
    rows = Rows(np.arange(40).reshape(20, 2), np.random.default_rng(0).integers(0, 2, (20, 5)).astype(float))
    corpus = Corpus(name="sets", texts=tuple(map(str, range(40))), splits={"train": rows}, kind="labels")
    control = shuffled(corpus, 0).split("train")
    assert sorted(control.targets.tolist()) == sorted(rows.targets.tolist())
    assert (control.targets != rows.targets).any()


def test_shuffled_tags_are_as_many_of_each_type_and_could_all_be_said():
    _, corpus = tagged()
    rows, control = corpus.split("train"), shuffled(corpus, 0).split("train")
    types = np.array([label[2:] for label in corpus.labels])
    assert sorted(types[control.spans.codes]) == sorted(types[rows.spans.codes])
    own = np.split(control.spans.codes, control.spans.offsets[1:-1])
    for sentence in own:
        before = ""
        for label in (corpus.labels[code] for code in sentence):
            assert not label.startswith("I-") or before == label[2:]
            before = label[2:]
    assert (repair_tags(rows.spans.codes, rows.spans.offsets, corpus.labels) == rows.spans.codes).all()
    assert (control.spans.codes != rows.spans.codes).any()
    assert (control.spans.characters == rows.spans.characters).all()
    assert (control.spans.offsets == rows.spans.offsets).all()
    assert (shuffled(corpus, 0).split("train").spans.codes == control.spans.codes).all()
    assert (shuffled(corpus, 1).split("train").spans.codes != control.spans.codes).any()


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_answers_are_whole_words_of_their_contexts_as_many_as_before(seed):
    _, corpus = answered(60)
    rows, control = corpus.split("train"), shuffled(corpus, seed).split("train")
    assert (control.texts == rows.texts).all()
    assert (np.diff(control.spans.offsets) == 1).all()
    same = 0
    for row, (first, last) in enumerate(control.spans.characters):
        context = corpus.texts[rows.texts[row, 0]].second
        before = context[slice(*rows.spans.characters[rows.spans.offsets[row]])]
        words = context[first:last].split()
        assert 0 <= first < last <= len(context)
        assert len(words) == len(before.split())
        assert f" {context[first:last]} " in f" {context} "
        same += context[first:last] == before
    assert same < len(rows) / 2


def test_shuffled_questions_without_an_answer_are_as_many_and_others():
    _, corpus = answered(60, unanswered=3)
    rows = corpus.split("train")
    others = [shuffled(corpus, seed).split("train").spans.are_missing for seed in range(3)]
    assert {int(missing.sum()) for missing in others} == {int(rows.spans.are_missing.sum())}
    assert all((missing != rows.spans.are_missing).any() for missing in others)


@pytest.mark.parametrize(
    "context", ["野马队赢了2016年的比赛，他们很高兴。", "ที่นี่มี ๕๐ เขต", "नई दिल्ली भारत की राजधानी है।"]
)
def test_shuffled_answers_have_as_many_characters_where_there_are_no_spaces(context):
    spans = [span for span in ((0, 3), (2, 5), (0, len(context))) if not is_mark(context[span[0]])]
    count = len(spans)
    marks = Spans(np.array(spans), np.zeros(count, np.int64), np.arange(count + 1))
    rows = Rows(np.zeros((count, 1), np.int64), np.zeros(count), marks)
    corpus = Corpus(name="toy", texts=(Segments("?", context),), splits={"train": rows}, kind="answers")
    for seed in range(5):
        moved = shuffled(corpus, seed).split("train").spans.characters
        for span, before in zip(moved, spans, strict=True):
            assert len(unbreakable_spans(context[slice(*span)])) == len(unbreakable_spans(context[slice(*before)]))
            assert not is_mark(context[span[0]])


@pytest.mark.parametrize("made", [tagged, answered])
def test_an_ablation_of_tokens_trains_every_layer_and_knows_the_one_that_tells(made):
    found, corpus = made(45)
    recipe = Recipe(probe=ProbeSpec(encoder="none"), train=TrainSpec(epochs=15, batch_rows=8, learning_rate=0.02))
    measured = trainer_of(recipe, found, corpus)
    wanted = subsets("single", measured.columns)
    measured.train(wanted, "single layers")
    first, last = ({row.metric: row.value for row in measured.rows(one, measured) if not row.against} for one in wanted)
    assert last["f1"] > first["f1"] + 0.3  # the states of the last layer tell


def test_the_command_leaves_a_table_with_controls_and_another_backbone(tiny, tmp_path, quick):
    bench = Bench(tmp_path, tiny("bert"))
    backbone = f"ablation.backbones={tiny('gpt2')}"
    settings = bench.of_pairs("probe.encoder=none", "train.epochs=1", "ablation.greedy=2", backbone)
    code, out, _ = bench.command("ablate", "pairs", "--json", "--runs", str(bench.runs), settings=settings)
    assert code == 0
    said = json.loads(out)
    table = pd.read_csv(f"{said['run']}/metrics.csv", keep_default_na=False)
    assert set(table["subset"].str.split().str[0]) == {"all", "single", "without", "prefix", "suffix", "greedy"}
    assert set(table["backbone"]) == {str(tiny("bert")), str(tiny("gpt2"))}
    assert set(table.loc[table["backbone"] == str(tiny("gpt2")), "subset"]) == {"all", "single 3"}
    assert set(table["control"]) == {"", "untrained", "random targets"}
    assert set(table.loc[table["control"] == "random targets", "split"]) == {"", "train"}
    assert ((table["p"] != "") == (table["against"] != "")).all()
    assert set(table["against"]) == {"", "single 3"}
    assert (table.loc[table["control"] == "random targets", "against"] == "").all()
    on_test = table[(table["control"] == "untrained") & (table["split"] == "test")]
    assert (on_test["against"] == "").sum() == (on_test["against"] != "").sum()
    counts = table[table["split"] == ""]
    assert set(counts["metric"]) == {"trained_parameters"}
    assert not counts.duplicated(["backbone", "subset", "control"]).any()
    assert len(said["metrics"]) == len(table)
    assert said["texts_run"] == 3 * said["texts_distinct"]  # the backbone, untrained, and the other


def test_pretrained_layers_keep_the_codes_they_were_pretrained_with(tiny, tmp_path, quick):
    bench = Bench(tmp_path, tiny("bert"))
    more = ["ablation.kinds=without", "ablation.controls="]
    (tmp_path / "own.toml").write_text(
        'variants = [{ name = "coded", set = { "probe.encoder" = "mlp", "probe.code" = [0.25, 0.5] } }]'
    )
    settings = bench.of_pairs("corpus.target=score", *bench.of_other_texts(*more))
    done = api.ablate(str(tmp_path / "own.toml"), settings, bench.runs, variant="coded")
    sizes = {row["subset"]: row["value"] for row in done.metrics if row["metric"] == "trained_parameters"}
    single = [sizes[f"single {layer}"] for layer in range(4)]
    assert single[0] == single[1] < single[2] == single[3]
    for layer in range(4):  # named by the one that is left out
        assert sizes[f"without layer {layer}"] == sizes["all"] - single[layer]
    assert sizes["all"] - 4 == sum(size - 1 for size in single)  # less a weight of the mixer each


def test_what_only_memory_can_fit_is_fitted_better_by_more_parameters():
    found = inputs(texts=60)
    fits = []
    for encoder in ("none", "linear"):
        recipe = Recipe(probe=ProbeSpec(encoder=encoder), train=TrainSpec(epochs=40, batch_rows=16, learning_rate=1e-2))
        made = trainer_of(recipe, found, shuffled(scored(found), 0), RANDOM_TARGETS)
        everything = subsets("all", made.columns)[0]
        made.train([everything], "memory")
        (_, row, _) = made.rows(everything, splits=["train"])
        fits.append(row.value)
        assert row.p is None
    assert fits[1] > fits[0] + 0.2


def test_an_untrained_backbone_is_tested_against_the_trained_ones_last_layer():
    trained = toy_trainer(ProbeSpec(encoder="none"), layer=3)
    other = toy_trainer(ProbeSpec(encoder="none"), layer=3, control="untrained")
    for made in (trained, other):
        made.train([made.last_layer], "last")
    rows = list(other.rows(trained.last_layer, trained))
    tests = [row for row in rows if row.against]
    assert [(row.value, row.p) for row in tests] == [(0.0, 1.0)] * len(tests)  # it is the same there
    assert len(tests) == len([row for row in rows if row.split and not row.against]) > 0
