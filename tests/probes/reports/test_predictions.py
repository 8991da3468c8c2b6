"""What a page shows of predictions depends on what the record says of them, which may be anything; and label sets."""

import itertools

import numpy as np
import pandas as pd
import pytest

from permafrost.probes.figures.predictions import confusion, predicted_against_gold
from permafrost.probes.reports.compare import comparison
from permafrost.probes.reports.report import example_blocks, write_report
from permafrost.probes.results.run_folder import ReportError
from permafrost.probes.results.run_tables import read_tables
from permafrost.probes.tasks.registry import TASKS
from tests.support.example_run import (
    EVIL,
    answered,
    breakdown,
    label_sets,
    metrics,
    predictions,
    ranking,
    record,
    tagged,
    task_record,
    write_tables,
    write_together,
)
from tests.support.marks import slow_but_first
from tests.support.page_reader import Page

pytestmark = pytest.mark.usefixtures("pages_alone")

TABLES = {
    "score": predictions(rows=12),
    "class": predictions(True, rows=12),
    "labels": label_sets(),
    "tags": tagged(),
    "answers": answered(),
    "rank": ranking(),
}
"""Kind of a task -> a table of its predictions."""

NUMBERED = predictions(True, rows=12).replace({"negative": "0", "<i>neutral</i>": "1", "positive": "2"})

ANYTHING = {
    "a list": [],
    "a word": "probe",
    "a task that is a number": {"probe": 7},
    "no kind": {"probe": {}},
    "a list for a kind": {"probe": {"kind": ["score"]}},
    "an unknown kind": {"probe": {"kind": "astrology", "numbers": ["target"]}},
    "a word for numbers": {"probe": {"kind": "score", "numbers": "score"}},
    "numbers that are no names": {"probe": {"kind": "score", "numbers": [1, None, {}, ["target"]]}},
    "columns that are not there": {"probe": {"kind": "class", "reference": [7], "numbers": ["nowhere", "seed"]}},
    "every column": {"probe": {"kind": "answers", "numbers": ["sentence", "word", "context", "label", "target"]}},
    "one of two": {"probe": {"kind": "astrology", "numbers": ["label", "score"]}},
}


def run_of(folder, table, tasks, kind="class"):
    """A run that says of its predictions what ``tasks`` says; its metric is one of the kind."""
    about = record(True) | {"metric": TASKS[kind].metric, "tasks": tasks}
    rows = metrics(True).replace({"metric": {"accuracy": TASKS[kind].metric}})
    return write_tables(folder, {"metrics": rows, "predictions": table}, about)


def shown(folder) -> str:
    """All that is made of the predictions; or the one line that refuses them."""
    try:
        run = read_tables(folder)
        blocks = example_blocks(run)
        comparison([folder, folder])
    except ReportError as error:
        return str(error)
    for draw in (predicted_against_gold, confusion):
        draw(run)
    return "examples" if blocks else "nothing"


@pytest.mark.parametrize("kind", TASKS)  # a new task without a table fails here
def test_predictions_that_are_said_to_be_what_they_are_are_shown(tmp_path, kind):
    folder = run_of(tmp_path / "run", TABLES[kind], {"probe": task_record(kind)}, kind)
    assert shown(folder) == "examples"
    assert comparison([folder, folder])["difference"][1] == 0


@pytest.mark.parametrize("fault", slow_but_first(ANYTHING))
def test_a_record_may_say_anything_of_predictions(tmp_path, fault):
    for name, table in (TABLES | {"numbered": NUMBERED}).items():
        assert "\n" not in shown(run_of(tmp_path / name, table, ANYTHING[fault]))


@pytest.mark.parametrize(("kind", "said"), list(itertools.permutations(TASKS, 2)))
def test_predictions_that_are_said_to_be_of_another_kind_are_refused_or_shown(tmp_path, kind, said):
    assert "\n" not in shown(run_of(tmp_path / "run", TABLES[kind], {"probe": task_record(said)}, said))


@pytest.mark.parametrize("kind", TASKS)
def test_a_column_that_the_record_wrongly_calls_a_number_or_text_is_named(tmp_path, kind):
    task = TASKS[kind]
    required = [name for name in task.required if name in task.numbers]
    for name in required:
        numbers = [other for other in task.numbers if other != name]
        folder = run_of(tmp_path / name, TABLES[kind], {"probe": task_record(kind) | {"numbers": numbers}}, kind)
        assert f"column '{name}' must be numbers" in shown(folder)
    folder = run_of(tmp_path / "all", NUMBERED, {"probe": task_record("class") | {"numbers": ["label"]}})
    assert "column 'label' must be text" in shown(folder)


@pytest.mark.parametrize("kind", TASKS)
def test_a_table_without_a_column_that_its_task_shows_is_refused(tmp_path, kind):
    for name in TASKS[kind].required[1:] if kind != "tags" else ("sentence", "word", "label"):
        folder = tmp_path / name
        run_of(folder, TABLES[kind].drop(columns=name), {"probe": task_record(kind)}, kind)
        assert f"has no column '{name}'" in shown(folder)


@pytest.mark.parametrize("tasks", [[], {"probe": {"kind": "astrology"}}], ids=["none", "unknown"])
def test_the_page_of_predictions_of_no_known_kind_lacks_examples_only(tmp_path, tasks):
    page = Page(write_report(run_of(tmp_path / "run", TABLES["tags"], tasks)).read_text("utf-8"))
    assert {"figure-variants", "figure-confusion"} <= set(page.ids)
    assert "mark" not in page.tags


def test_of_several_tasks_each_is_shown_as_its_own_entry_says(tmp_path):
    folder = write_together(tmp_path / "run", {"ner": "tags", "topic": "class"}, ["one", "other"])
    run = read_tables(folder)
    assert [run.for_task(name).kind for name in run.tasks] == ["tags", "class"]
    assert len(example_blocks(run.for_task("ner"))) == 2


def test_label_sets_have_a_page(tmp_path):
    table = pd.concat([label_sets(), label_sets().assign(sentence=EVIL, target="late", labels="")])
    tables = {"metrics": metrics(True), "predictions": table, "breakdown": breakdown()}
    page = Page(write_report(write_tables(tmp_path / "run", tables, record(True))).read_text("utf-8"))
    assert {"figure-by_label", "by-label", "predictions"} <= set(page.ids)
    assert "figure-confusion" not in page.ids
    assert "Most wrong labels first, of the first seed." in page.text
    assert EVIL in page.text
    assert not {"script", "img"} & set(page.tags)


def test_the_most_wrong_label_sets_come_first_and_right_ones_are_not_shown(tmp_path):
    folder = run_of(tmp_path / "run", label_sets(), {"probe": task_record("labels")}, "labels")
    (grid,) = example_blocks(read_tables(folder))
    assert list(grid.heads) == ["sentence", "gold", "predicted", "wrong labels"]
    assert [row[0] for row in grid.rows] == ["one for another", "both are missed", "one too many"]
    assert [row[-1] for row in grid.rows] == ["2", "2", "1"]


@pytest.mark.parametrize("cell", [",", ", , ", "late,refund", "late, late", "<b>, $x", "probability_late", "0.5"])
def test_label_sets_may_have_odd_names(tmp_path, cell):
    table = label_sets().rename(columns={"probability_refund": f"probability_{cell}"})
    table.loc[table.index % 2 == 0, "labels"] = cell
    table.loc[table.index % 3 == 0, "target"] = cell
    folder = run_of(tmp_path / "run", table, {"probe": task_record("labels")}, "labels")
    assert shown(folder) == "examples"


@pytest.mark.parametrize("metric", TASKS["labels"].metrics)
def test_runs_of_label_sets_are_compared_by_row(tmp_path, metric):
    about = record(True) | {"metric": metric}
    rows = metrics(True).replace({"metric": {"accuracy": metric}})
    better = label_sets()
    for name in ("late", "refund"):
        gold = better["target"].str.split(", ").map(lambda names, name=name: name in names)
        better[f"probability_{name}"] = np.where(gold, 0.9, 0.1)
    better["labels"] = better["target"]
    folders = [
        write_tables(tmp_path / name, {"metrics": rows, "predictions": table}, about)
        for name, table in {
            "one": label_sets(),
            "two": better.sample(frac=1, random_state=0),
            "less": better.iloc[:-1],
            "no names": label_sets().drop(columns=["probability_late", "probability_refund"]),
        }.items()
    ]
    found = comparison(folders)
    values = {"micro_f1": 1 - 4 / 9, "subset_accuracy": 1 - 2 / 5}
    assert found["difference"][1] > 0
    if metric in values:
        assert found["difference"][1] == pytest.approx(values[metric])
    assert found["note"][2] == "not the same rows: no paired test"
    if metric == "mean_average_precision":
        assert found["note"][3] == "no predictions: no paired test"
    assert comparison([folders[3], folders[0]])["note"][1] == "no predictions: no paired test"
