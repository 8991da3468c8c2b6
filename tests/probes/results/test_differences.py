"""What differs between runs, and the names that are made of it: whatever the recipes, runs can be told apart."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from permafrost.data.spec import to_toml
from permafrost.probes.config.load import load_recipe
from permafrost.probes.results.differences import ABSENT, differences_grid, run_labels, what_differs
from permafrost.probes.results.run_folder import ReportError, RunFolder, write_record


def run_of(folder: Path, overrides: list[str], recipe: str = "quickstart", **record: Any) -> RunFolder:
    """A run folder with a recipe and a record alone."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(to_toml(load_recipe(recipe, overrides)[1]), "utf-8")
    write_record(folder, {"experiment": "run", "versions": {"torch": "2.13", "h5py": "3"}} | record)
    return RunFolder(folder, ReportError)


def runs_of(folder: Path, overrides_of: Mapping[str, list[str]]) -> dict[str, RunFolder]:
    return {name: run_of(folder / name, overrides) for name, overrides in overrides_of.items()}


def test_settings_that_differ_are_found_and_name_the_runs(tmp_path):
    runs = runs_of(tmp_path, {
        "a-1": ["plan.views=mean", "train.seeds=0,1", "extract.cache=elsewhere", "train.track=tensorboard"],
        "a-2": ["plan.views=cls", "train.seeds=0,1", "train.checkpoint_seconds=1", "ablation.kinds=single"],
        "b-1": ["plan.views=mean,cls", "train.seeds=2", "study.trials=3"],
    })  # fmt: skip
    found = what_differs(runs)
    assert found == {
        "plan.views": {"a-1": "mean", "a-2": "cls", "b-1": "mean,cls"},
        "train.seeds": {"a-1": "0,1", "a-2": "0,1", "b-1": "2"},
    }
    assert run_labels(found, list(runs)) == {
        "a-1": "views=mean, seeds=0,1",
        "a-2": "views=cls, seeds=0,1",
        "b-1": "views=mean,cls, seeds=2",
    }
    grid = differences_grid(found, list(runs))
    assert grid
    assert grid.heads == ["setting", "a-1", "a-2", "b-1"]
    assert grid.rows == [["plan.views", "mean", "cls", "mean,cls"], ["train.seeds", "0,1", "0,1", "2"]]


def test_equal_recipes_have_the_names_of_their_folders(tmp_path):
    runs = runs_of(tmp_path, {"a-1": [], "a-2": [], "c": ["plan.backbone=gpt2"]})
    alike = {name: runs[name] for name in ("a-1", "a-2")}
    assert what_differs(alike) == {}
    assert run_labels({}, list(alike)) == {}
    assert differences_grid({}, list(alike)) is None
    labels = run_labels(what_differs(runs), list(runs))
    assert labels == {"a-1": "backbone=minilm (a-1)", "a-2": "backbone=minilm (a-2)", "c": "backbone=gpt2"}


def test_variants_and_tasks_are_compared_by_name_and_an_absent_one_is_a_dash(tmp_path):
    variants = 'variants=[{name="one",set={"probe.encoder"="linear"}},{name="two",set={"probe.depth"=3}}]'
    runs = runs_of(tmp_path, {"a": [variants], "b": ["variants=[]"]})
    found = what_differs(runs)
    assert found == {"variants.one.probe.encoder": {"a": "linear"}, "variants.two.probe.depth": {"a": "3"}}
    grid = differences_grid(found, list(runs))
    assert grid
    assert [line[2] for line in grid.rows] == [ABSENT, ABSENT]
    assert run_labels(found, list(runs)) == {
        "a": "variants.one.probe.encoder=linear, variants.two.probe.depth=3",
        "b": "b",
    }


def test_data_weights_and_versions_are_compared_if_their_settings_are_the_same(tmp_path):
    def stores(weights: str) -> dict[str, Any]:
        return {"probe": {"": {"identity": {"weights": weights}}}}

    facts = {"corpus": {"name": "mine"}, "data": {"spec": "1" * 16}, "stores": stores("a" * 64)}
    first = run_of(tmp_path / "first", [], **facts)
    second = run_of(tmp_path / "second", [], **facts | {"data": {"spec": "2" * 16}, "stores": stores("b" * 64)})
    third = run_of(tmp_path / "third", [], **facts, versions={"torch": "2.14", "h5py": "4"})
    found = what_differs({"first": first, "second": second, "third": third})
    assert found == {
        "torch version": {"first": "2.13", "second": "2.13", "third": "2.14"},
        "data of mine": {"first": "11111111", "second": "22222222", "third": "11111111"},
        "weights of the backbone": {"first": "aaaaaaaa", "second": "bbbbbbbb", "third": "aaaaaaaa"},
    }
    other = run_of(tmp_path / "other", ["plan.backbone=gpt2"], **facts | {"stores": stores("c" * 64)})
    assert list(what_differs({"first": first, "other": other})) == ["plan.backbone"]  # which says it


def test_other_code_of_a_part_from_outside_is_a_difference(tmp_path):
    codes = {"first": "parts 2.5, code 01ab", "second": "parts 2.5, code 02cd"}
    runs = {name: run_of(tmp_path / name, [], plugins={"head gated": code}) for name, code in codes.items()}
    assert what_differs(runs) == {"head gated": codes}
    assert len(set(run_labels(what_differs(runs), list(runs)).values())) == 2


def test_a_run_without_a_recipe_differs_in_what_it_has(tmp_path):
    runs = runs_of(tmp_path, {"a": []})
    (tmp_path / "e").mkdir()
    about = {"run": "a", "task": "probe", "data": "b.csv", "split": "test"}
    write_record(tmp_path / "e", {"experiment": "evaluation", "evaluations": {"one": about}})
    runs["e"] = RunFolder(tmp_path / "e", ReportError)
    assert what_differs(runs) == {"experiment": {"a": "run", "e": "evaluation"}}
    (tmp_path / "e" / "recipe.toml").write_text("not = toml = at all")
    write_record(tmp_path / "e", {"experiment": "evaluation"})
    assert list(what_differs(runs | {"e": RunFolder(tmp_path / "e", ReportError)})) == ["experiment"]


@settings(max_examples=40)
@given(st.lists(st.text(max_size=200), min_size=2, max_size=6))
def test_runs_with_different_values_have_different_names_however_long_they_are(values):
    names = [f"run-{index}" for index in range(len(values))]
    differing = {"plan.backbone": dict(zip(names, values, strict=True))} if len(set(values)) > 1 else {}
    labels = run_labels(differing, names)
    if differing:
        assert len(set(labels.values())) == len(names)
        assert all(len(label) < 80 for label in labels.values())
        grid = differences_grid(differing, names)
        assert grid
        assert all(len(cell) <= 120 for cell in grid.rows[0])


def test_a_name_says_as_many_settings_as_tell_the_runs_apart():
    keys = ["plan.views", "probe.depth", "probe.hidden", "train.epochs", "train.batch_rows", "train.clip"]
    differing = {key: {"a": "1", "b": "2", "c": "2"} for key in keys[:-1]} | {keys[-1]: {"a": "1", "b": "1", "c": "2"}}
    labels = run_labels(differing, ["a", "b", "c"])
    assert labels["b"] == "views=2, depth=2, hidden=2, epochs=2, clip=1"  # batch_rows tells no further runs apart
    assert [label.count("=") for label in labels.values()] == [5, 5, 5]
    labels = run_labels(dict(list(differing.items())[:-1]), ["a", "b", "c"])
    assert [label.count("=") for label in labels.values()] == [4, 4, 4]
    assert labels["c"].endswith(" (c)")
    json.dumps(differing)
