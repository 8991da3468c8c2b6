"""End to end on a tiny backbone: what runs, how often, and what the command line prints."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from permafrost import api
from permafrost.data.store.store import LatentStore
from permafrost.extract.backbones.registry import SHORT_NAMES
from permafrost.probes.config.load import load_recipe, shipped_recipes
from permafrost.probes.metrics import bootstrap
from tests.end_to_end import test_multitask_recipes, test_pretrain, test_task_recipes
from tests.support.bench import COLUMNS, FILES, Bench, pairs, write
from tests.support.marks import slow_but_first

DONE = {"run", "seconds", "texts", "texts_distinct", "texts_run", "selected", "metrics"}
DONE |= {"parameters", "backbone_parameters"}
LAYERS = 4


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


SMALL = {
    "quickstart": lambda bench: bench.settings("corpus.limit=20"),
    "sts": Bench.of_named,
    "sts-decoder": lambda bench: bench.of_named("plan.max_tokens=64"),
    "freeze-sts": Bench.of_named,
    "freeze-sts-tried": lambda bench: bench.of_named("train.epochs=1", "pretraining.train.epochs=1"),
    "pairs": Bench.of_pairs,
    "classify": Bench.of_topics,
    "multilabel": lambda bench: bench.settings("train.epochs=1"),
    "rank": lambda bench: bench.settings("train.epochs=1"),
}


ELSEWHERE = {"similarity", "layers", *test_pretrain.RECIPES}
ELSEWHERE |= {*test_task_recipes.SMALL, *test_task_recipes.TUNED, *test_multitask_recipes.SMALL}
"""Recipes with tests of their own."""


QUICK = "quickstart"
"""Recipe that is tried with every change; other tests run what others are made of."""


@pytest.mark.parametrize(
    "name",
    [
        name if name == QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in shipped_recipes()
        if name not in ELSEWHERE
    ],
)  # a new recipe without a small corpus fails here
def test_a_shipped_recipe_runs(name, tmp_path, tiny, monkeypatch):
    bench = Bench(tmp_path, tiny("bert", blocks=8))  # as many as recipes read or cut
    monkeypatch.setenv("PERMAFROST_DATA", str(bench.folder))
    monkeypatch.chdir(bench.folder)
    monkeypatch.delitem(SHORT_NAMES, "qwen2-0.5b")  # then it is a folder's name
    (bench.folder / "qwen2-0.5b").symlink_to(tiny("qwen2"))
    monkeypatch.setattr(bootstrap, "RESAMPLES", bootstrap.CHUNK)
    done = api.run(name, SMALL[name](bench), bench.runs)
    assert done.path == bench.runs / f"{name}-1"
    recipes = load_recipe(name)[1].variant_recipes()
    pretrained = {variant for variant, one in recipes.items() if one.pretraining.task == "autoencoder"}
    more = {"autoencoder.csv"} if pretrained else set()
    more |= {"breakdown.csv"} if done.metrics[0]["task"] != "similarity" else set()  # scores have no groups
    more |= {"calibration.csv", "reliability.csv"} if done.metrics[0]["task"] == "classification" else set()
    more |= {"epochs.csv"} if any(one.finetune.trains_backbone for one in recipes.values()) else set()
    raw = done.selected.startswith("raw (")
    of_blocks = not raw and recipes[done.selected].finetune.trains_backbone
    left = (FILES - {"latents.csv"}) | {"backbone"} if of_blocks else FILES
    assert {path.name for path in done.path.iterdir()} == left | more
    assert {row["variant"] for row in done.metrics if not row["variant"].startswith("raw")} == set(recipes)
    assert raw or done.selected in recipes
    measured = [row for row in done.metrics if row["split"]]  # others are counts of parameters
    assert {row["split"] for row in measured} == {"train", "validation", "test"}
    assert {row["split"] for row in done.metrics if row["variant"] == "raw"} == {"train", "validation", "test"}
    assert {row["split"] for row in measured if row["variant"] in recipes} == {"validation", "test"}
    if pretrained:
        assert set(pd.read_csv(done.path / "autoencoder.csv")["variant"]) == pretrained
    items = (
        [("the dog", "a dog"), ("the dog", "the dog")]
        if name not in ("classify", "multilabel")
        else ["the dog", "a dog"]
    )
    assert len(api.load(done.path).predict(items)) == 2


def test_classes_of_pairs_run(bench, quick):
    done = api.run("classify", bench.of_topics(sides=2), bench.runs)
    (answer,) = api.load(done.path).predict([("the dog runs", "the dog sleeps")])
    assert set(answer["probabilities"]) == {"same", "other"}


def test_the_error_is_measured_in_the_unit_of_the_corpus(finished, bench, quick, trained_only):
    graded = [(first, second, 5 * score, split) for first, second, score, split in pairs()]
    done = api.run("pairs", bench.of_pairs("corpus.score_range=0,5", "train.seeds=0,1", rows=graded), bench.runs)
    errors = {row["split"]: row["value"] for row in done.metrics if row["metric"] == "mae"}
    unit = {row["split"]: row["value"] for row in finished[1].metrics if row["metric"] == "mae"}
    assert errors == pytest.approx({split: 5 * error for split, error in unit.items()}, rel=1e-3)  # float32 targets
    assert pd.read_csv(done.path / "predictions.csv")["target"].max() == 5
    assert api.load(done.path).predict([("the dog", "the dog")]) == [{"score": 5.0, "raw": 1.0}]


@pytest.mark.parametrize("pretrained", slow_but_first([True, False]))
def test_a_second_run_runs_no_text_and_repeats_every_figure(pretrained, bench, quick):
    more = ["probe.dropout=0.1", "probe.noise=0.1", "train.seeds=0,1"]
    settings = bench.of_pairs(*more, *(bench.of_other_texts() if pretrained else []))
    recipe = bench.folder / "pairs.toml"
    recipe.write_text('[corpus]\ntarget = "score"\n[probe]\nencoder = "mlp"\n')
    first, second = (api.run(str(recipe), settings, bench.runs) for _ in range(2))
    assert first.texts_run >= first.texts_distinct
    assert second.texts_run == 0
    assert second.path.name == "pairs-2"
    tables = ["metrics.csv", "predictions.csv", "training.csv", "latents.csv"] + ["autoencoder.csv"] * pretrained
    for name in (*tables, "probe.safetensors", "recipe.toml"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name


def test_another_seed_gives_other_figures(finished):
    table = pd.read_csv(finished[1].path / "metrics.csv")
    seeds = table[(table["variant"] == "linear") & (table["metric"] == "pearson") & (table["split"] == "validation")]
    assert seeds["value"][seeds["seed"] == 0].item() != seeds["value"][seeds["seed"] == 1].item()


def test_a_run_is_never_overwritten(bench, quick):
    (bench.runs / "pairs-1").mkdir(parents=True)
    (bench.runs / "pairs-1" / "mine.txt").write_text("kept")
    assert api.run("pairs", bench.of_pairs(), bench.runs).path.name == "pairs-2"
    assert [path.name for path in (bench.runs / "pairs-1").iterdir()] == ["mine.txt"]


def test_ten_new_texts_run_ten(bench):
    api.extract("pairs", bench.of_pairs())
    new = [(" ".join(["winter"] * words), " ".join(["stove"] * words), 0.5, "train") for words in range(6, 11)]
    (corpus,), (stored,) = api.extract("pairs", bench.of_pairs(rows=[*pairs(), *new]))
    assert stored.texts_run == 10
    assert len(corpus.texts) > 100


def test_a_further_view_runs_every_text_once_more_and_keeps_the_old_columns(bench):
    (corpus,), (before,) = api.extract("pairs", bench.of_pairs())
    old = before.store.read(corpus.texts, "mean", range(LAYERS))
    _, (after,) = api.extract("pairs", bench.of_pairs("plan.views=mean,max"))
    assert after.texts_run == len(corpus.texts)
    assert after.store.path == before.store.path
    assert after.store.columns() == {"mean": tuple(range(LAYERS)), "max": tuple(range(LAYERS))}
    np.testing.assert_array_equal(LatentStore.open(after.store.path).read(corpus.texts, "mean", range(LAYERS)), old)
    assert api.extract("pairs", bench.of_pairs("plan.views=mean,max"))[1][0].texts_run == 0


def test_a_view_that_is_the_same_for_every_text_is_left_out_of_the_table(bench, quick):
    done = api.run("pairs", bench.of_pairs("plan.views=cls"), bench.runs)
    raw = [row for row in done.metrics if row["variant"] == "raw"]
    assert {row["layer"] for row in raw} == {1, 2, 3}  # at layer 0 a bert's first token is always the same


def test_variants_may_differ_in_their_plan(bench, quick):
    recipe = bench.folder / "templates.toml"
    recipe.write_text(
        '[corpus]\ntarget = "score"\n[[variants]]\nname = "plain"\n[[variants]]\nname = "framed"\n'
        'set = { "plan.template" = "the dog , {text} ." }\n'
    )
    done = api.run(str(recipe), bench.of_pairs(), bench.runs)
    assert done.texts_run == 2 * done.texts_distinct
    stores = json.loads((done.path / "record.json").read_text("utf-8"))["stores"]
    assert stores["plain"][""]["path"] != stores["framed"][""]["path"]
    figures = {row["variant"]: row["value"] for row in done.metrics if row["metric"] == "pearson" and row["seed"] == 0}
    assert figures["plain"] != figures["framed"]
    assert len(api.load(done.path).predict([("a dog", "the dog")])) == 1


def test_variants_that_differ_in_views_share_one_forward(bench, quick):
    recipe = bench.folder / "views.toml"
    recipe.write_text(
        '[corpus]\ntarget = "score"\n[[variants]]\nname = "mean"\n[[variants]]\nname = "both"\n'
        'set = { "plan.views" = ["max", "mean"] }\n'
    )
    done = api.run(str(recipe), bench.of_pairs(), bench.runs)
    assert done.texts_run == done.texts_distinct
    stores = json.loads((done.path / "record.json").read_text("utf-8"))["stores"]
    assert [sorted(stores[name][""]["columns"]) for name in ("mean", "both")] == [["mean"], ["max", "mean"]]


def test_the_test_split_has_no_say_in_what_is_selected_or_trained(finished, bench, quick, trained_only):
    _, done = finished
    turned = [(a, b, 1 - score if split == "test" else score, split) for a, b, score, split in pairs()]
    other = api.run("pairs", bench.of_pairs("train.seeds=0,1", rows=turned), bench.runs)
    assert other.selected == done.selected
    assert (other.path / "probe.safetensors").read_bytes() == (done.path / "probe.safetensors").read_bytes()
    splits = {split: [[r["value"] for r in d.metrics if r["split"] == split] for d in (done, other)]
              for split in ("validation", "test")}  # fmt: skip
    assert splits["validation"][0] == splits["validation"][1]
    assert splits["test"][0] != splits["test"][1]


def test_a_corpus_without_validation_holds_some_of_train_out_and_test_stays_test(bench):
    rows = [row for row in pairs() if row[3] != "validation"]
    (corpus,), _ = api.extract("pairs", bench.of_pairs(rows=rows))
    assert {split: len(part) for split, part in corpus.splits.items()} == {"train": 36, "validation": 4, "test": 15}
    sides = [{tuple(sorted(row)) for row in corpus.splits[split].texts.tolist()} for split in ("train", "validation")]
    assert not sides[0] & sides[1]


def test_negative_layers_count_from_the_backbones_last_in_run_and_in_train(bench, quick):
    api.extract("pairs", bench.of_pairs("plan.layers=0,2"))
    api.extract("pairs", bench.of_pairs("plan.layers=-1"))
    for verb in (api.run, api.train):
        done = verb("pairs", bench.of_pairs("plan.layers=-1"), bench.runs)
        assert {row["layer"] for row in done.metrics if row["variant"] == "raw"} == {3}


@pytest.mark.parametrize("mixer", slow_but_first(["softmax", "mlp"]))
def test_identical_texts_get_exactly_the_top_even_where_a_layer_is_blind(mixer, bench, quick):
    done = api.run("pairs", bench.of_pairs("plan.views=cls", f"probe.mixer={mixer}"), bench.runs)
    answers = api.load(done.path).predict([("the dog", "the dog"), ("a dog runs", "old stove in winter")])
    assert answers[0]["score"] == 1.0
    assert answers[1]["score"] < 1.0 or mixer == "mlp"  # which may put others above identical texts, and ties them


def test_a_name_with_a_dollar_is_drawn_as_it_is(bench, trained_only):
    recipe = bench.folder / "dollar.toml"
    recipe.write_text('[corpus]\ntarget = "score"\n[[variants]]\nname = "cost $x^$"\n')
    assert api.run(str(recipe), bench.of_pairs(), bench.runs).selected == "cost $x^$"


def test_a_table_without_a_metric_says_why(bench, quick):
    rows = [(row[0], "ab"[at % 2], "train") for at, row in enumerate(pairs()[:6])]
    for few, told in ((rows[:1], True), (rows[:2], False)):
        held = [(text, label, "validation") for text, label, _ in few]
        path = write(bench.folder / "six.csv", ["text", "label", "split"], [*rows, *held])
        settings = bench.settings(f"corpus.path={path}", "corpus.columns=text,label")
        code, out, err = bench.command("run", "classify", settings=settings)
        assert code == 0, err
        assert ("No metric: it needs two rows or more of validation, which has 1. Add labelled rows" in out) == told


def test_a_majority_is_an_honest_accuracy(bench, quick):
    rows = [(f"{row[0]} {row[1]}", "same" if index % 12 == 0 else "other", row[3]) for index, row in enumerate(pairs())]
    path = write(bench.folder / "skewed.csv", ["sentence", "label", "split"], rows)
    settings = bench.of_topics(f"corpus.path={path}", "probe.mixer=last", "probe.layers=0", "train.learning_rate=1e-9")
    done = api.run("classify", settings, bench.runs)
    values = {row["value"] for row in done.metrics if row["metric"] == "accuracy" and row["split"] == "validation"}
    assert min(values) >= 0


def test_a_corpus_without_a_test_split_is_scored_on_validation(bench, quick):
    rows = [row for row in pairs() if row[3] != "test"]
    done = api.run("pairs", bench.of_pairs(rows=rows), bench.runs)
    assert {row["split"] for row in done.metrics if row["split"]} == {"train", "validation"}
    assert len(pd.read_csv(done.path / "predictions.csv")) == 15


def test_train_repeats_a_run_where_neither_transformers_nor_the_backbone_is(finished):
    bench, done = finished
    absent = "for name in ('transformers', 'tokenizers', 'huggingface_hub'): sys.modules[name] = None"
    hidden = bench.backbone.rename(bench.backbone.with_name("hidden"))
    try:
        process = bench.process("train", "pairs", "--json", settings=bench.of_pairs("train.seeds=0,1"), before=absent)
        out, err = process.communicate(timeout=120)
    finally:
        hidden.rename(bench.backbone)
    assert process.returncode == 0, err
    trained = json.loads(out)
    assert (set(trained), set(trained["metrics"][0])) == (DONE, set(COLUMNS))
    assert Path(trained["run"]).is_dir()
    assert "distinct, each runs once" in err
    assert "Warning" not in err
    assert trained["texts_run"] == 0
    chosen = trained["selected"]  # the raw cosine, which the finished run leaves out
    assert [row for row in trained["metrics"] if row["variant"] != chosen] == done.metrics


@pytest.mark.slow
def test_a_process_prints_one_json_object_and_keeps_notes_on_stderr(bench):
    process = bench.process("run", "pairs", "--json", settings=bench.of_pairs())
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    said = json.loads(out)
    assert set(said) == DONE
    assert (said["texts"], said["texts_run"]) == (140, said["texts_distinct"])
    assert set(said["metrics"][0]) == set(COLUMNS)
    assert Path(said["run"]).is_dir()
    assert "distinct, each runs once" in err
    assert "Warning" not in err


def test_without_json_a_table_and_the_place_of_the_run_are_printed(bench, quick):
    code, out, _ = bench.command("run", "pairs", settings=bench.of_pairs())
    assert code == 0
    assert "raw" in out
    assert f"run: {bench.runs / 'pairs-1'}" in out
    assert "chosen on validation: " in out


def test_extract_recipes_config_and_cache_print_one_json_object(finished):
    bench, done = finished
    cache = str(bench.folder / "cache")
    asked = {
        "extract": ("extract", "pairs", "--json"),
        "recipes": ("recipes", "--json"),
        "config": ("config", "sts", "--json"),
        "list": ("cache", "list", "--cache", cache, "--json"),
        "verify": ("cache", "verify", "--cache", cache, "--json"),
    }
    said = {}
    for name, words in asked.items():
        code, out, _ = bench.command(*words, settings=bench.of_pairs() if name == "extract" else ())
        assert code == 0
        said[name] = json.loads(out)
    assert said["extract"]["texts_run"] == said["extract"]["truncated"] == 0
    assert set(said["recipes"]["recipes"]) == set(shipped_recipes())
    settings = {one["key"]: one for one in said["config"]["settings"]}
    assert settings["corpus.name"]["value"] == "stsb"
    assert all(one["meaning"] for key, one in settings.items())
    assert settings["train.epochs"]["value"] == load_recipe("sts")[1].train.epochs
    assert said["list"]["stores"][0]["texts"] == done.texts_distinct
    assert said["verify"]["damaged"] == []
