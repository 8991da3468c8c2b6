"""Runs of every kind are compared: their chosen figures, and what differs between them, on the page and in tables."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from permafrost import api
from permafrost.cli.main import app
from permafrost.probes.reports import compare
from permafrost.probes.reports.compare import comparison, comparison_grid, settings_grid
from permafrost.probes.reports.headline import HEADLINES
from permafrost.probes.reports.report import PAGES
from permafrost.probes.results.grid import Grid, to_latex, to_markdown
from tests.support.example_run import (
    example,
    metrics,
    predictions,
    record,
    study,
    write_evaluation,
    write_layers,
    write_tables,
    write_together,
)
from tests.support.marks import slow_but_first
from tests.support.page_reader import Page

BEST = {"number": 3, "value": 0.75, "params": {}}
KINDS = {
    "ablation": lambda folder: example(folder, "ablation"),
    "study": lambda folder: write_tables(folder, study(), record() | {"experiment": "study", "best": BEST}),
    "pretraining": lambda folder: example(folder, "pretraining"),
    "layers": write_layers,
    "multitask": lambda folder: write_together(folder, {"ner": "tags", "topic": "class"}, ["alone", "both"]),
    "evaluation": write_evaluation,
}


def similarity(folder: Path) -> Path:
    """A comparison of three sentences by two encoders."""
    pairs = [(backbone, *pair) for backbone in ("a", "b") for pair in ((1, 2, 0.5), (1, 3, 0.25), (2, 3, 0.75))]
    maps = [("one", "a", "pca", sentence, 0.0, 0.0, 0.0) for sentence in (1, 2, 3)]
    tables = {
        "cosines": pd.DataFrame(pairs, columns=["backbone", "first", "second", "cosine"]),
        "sentences": pd.DataFrame({"sentence": [1, 2, 3], "text": ["x", "y", "z"]}),
        "maps": pd.DataFrame(maps, columns=["map", "backbone", "method", "sentence", "x", "y", "z"]),
    }
    return write_tables(folder, tables, {"experiment": "similarity"})


def two_runs(folder: Path) -> list[Path]:
    tables = {"metrics": metrics(), "predictions": predictions()}
    recipes = {"large": '[plan]\nbackbone = "gpt2"', "small": '[plan]\nbackbone = "minilm"\nviews = ["cls"]'}
    return [write_tables(folder / name, tables, record(), recipe) for name, recipe in recipes.items()]


def test_there_is_a_headline_of_every_kind_of_run():
    assert set(HEADLINES) == set(PAGES) == {*KINDS, "run", "similarity"}


@pytest.mark.slow
def test_a_name_of_what_differs_stands_before_the_folder_in_every_form(tmp_path, capsys, quick):
    folders = two_runs(tmp_path)
    frame = comparison(folders)
    assert frame["run"].tolist() == ["large", "small"]
    assert frame["label"].tolist() == ["backbone=gpt2, views=mean", "backbone=minilm, views=cls"]
    (settings,) = [grid for grid in [settings_grid(folders)] if grid]
    assert [line[0] for line in settings.rows] == ["plan.backbone", "plan.views"]
    assert comparison_grid(frame).heads[:2] == ["run", "folder"]
    page = Page(api.report(*folders, out=tmp_path / "both.html").read_text("utf-8"))
    assert all(label in page.text for label in frame["label"])
    assert "What differs between the runs" in page.text
    for form, render in (("markdown", to_markdown), ("latex", to_latex)):
        app(["report", *map(str, folders), "--format", form], standalone_mode=False)
        printed = capsys.readouterr().out
        assert printed == f"{render(comparison_grid(frame))}\n{render(settings)}"
        assert "backbone=gpt2, views=mean" in printed
    app(["report", *map(str, folders), "--json", "--out", str(tmp_path / "c.html")], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["differs"] == {
        "plan.backbone": {"large": "gpt2", "small": "minilm"},
        "plan.views": {"large": "mean", "small": "cls"},
    }
    assert [run["label"] for run in told["runs"]] == frame["label"].tolist()


def test_runs_of_one_recipe_have_the_names_of_their_folders(tmp_path):
    tables = {"metrics": metrics(), "predictions": predictions()}
    folders = [write_tables(tmp_path / name, tables, record()) for name in ("one", "two")]
    frame = comparison(folders)
    assert frame["label"].tolist() == ["", ""]
    assert settings_grid(folders) is None
    assert comparison_grid(frame).heads[:2] == ["run", "corpus"]
    assert [line[0] for line in comparison_grid(frame).rows] == ["one", "two"]


@pytest.mark.parametrize("kind", slow_but_first(["similarity", *KINDS]))
def test_runs_of_every_kind_are_compared(kind, tmp_path, quick):
    make = KINDS.get(kind, similarity)
    folders = [make(tmp_path / name) for name in ("one", "two")]
    frame = comparison(folders)
    assert set(frame["run"]) == {"one", "two"}
    assert frame["value"].notna().any()
    half = len(frame) // 2
    assert frame["value"][:half].tolist() == pytest.approx(frame["value"][half:].tolist(), nan_ok=True)
    (other, _) = two_runs(tmp_path / "more")
    mixed = comparison([*folders, other])
    assert mixed["label"].str.contains(f"experiment={kind}").sum() == len(frame)
    section = compare.comparison_section([*folders, other])
    cells = [str(cell) for grid in section.blocks if isinstance(grid, Grid) for line in grid.rows for cell in line]
    assert {"one", "two"} <= set(cells)
    assert not [cell for cell in cells if re.search(r"\bnan\b|\bNone\b", cell)]


def test_several_tasks_have_a_line_each_and_are_paired_by_task(tmp_path, quick):
    folders = [KINDS["multitask"](tmp_path / name) for name in ("one", "two")]
    frame = comparison(folders)
    tasks = frame["task"][frame["run"] == "one"].tolist()
    assert len(tasks) > 1
    assert frame["task"][frame["run"] == "two"].tolist() == tasks
    assert frame["difference"][frame["run"] == "two"].dropna().tolist() == [0.0] * len(tasks)
    assert "task" in comparison_grid(frame).heads
