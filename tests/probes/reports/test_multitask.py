"""The report of a run that trains several tasks: what it shows of all of them, and of each as of a run of its own."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from permafrost.probes.figures import metrics as variant_figures
from permafrost.probes.figures import predictions as prediction_figures
from permafrost.probes.figures import training as figures
from permafrost.probes.reports import breakdown as breakdown_module
from permafrost.probes.reports import metrics as grids
from permafrost.probes.reports.report import result_grids, write_report
from permafrost.probes.results.run_folder import ReportError
from permafrost.probes.results.run_tables import read_tables
from tests.support.damage import resealed
from tests.support.example_run import (
    EVIL,
    breakdown,
    costs,
    metrics,
    predictions,
    record,
    together,
    write_tables,
    write_together,
)
from tests.support.marks import slow_but_first
from tests.support.page_reader import Page

TASKS = {"ner": "tags", "qa": "answers"}
VARIANTS = ["ner only", "qa only", "both", "both, gradnorm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two tasks in four variants, reported."""
    made = write_together(tmp_path_factory.mktemp("runs") / "ner-qa-1", TASKS, VARIANTS, epochs=3, seeds=(0, 1))
    write_report(made)
    return made


@pytest.fixture(scope="module")
def run(folder):
    return read_tables(folder)


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text("utf-8"))


@pytest.fixture
def copy(folder, tmp_path):
    """The run, to be broken."""
    return shutil.copytree(folder, tmp_path / "run")


def test_a_page_has_a_section_of_all_tasks_and_one_of_each(page):
    contents = ["#results", "#comparisons", "#task-ner", "#task-qa", "#learning", "#provenance"]
    assert page.links[:6] == contents
    assert len(page.ids) == len(set(page.ids))
    assert "2 tasks on all-MiniLM-L6-v2: ner, qa. Chosen on validation." in page.text


def test_figures_of_a_task_are_called_by_its_name(folder, page):
    expected = {"variants", "training", "by_epoch", "by_epoch_second", "weights", "conflicts"}
    expected |= {"ner-confusion", "ner-by_entity_type", "qa-by_question_word"}
    assert {name.removeprefix("figure-") for name in page.ids if name.startswith("figure-")} == expected
    beside = {path.name for path in (folder / "figures").iterdir()}
    assert beside == {f"{name}.{kind}" for name in expected for kind in ("png", "svg")}


def test_each_task_is_shown_as_a_run_of_it_alone_would_be(page):
    assert page.tags.count("mark") == 8 + 7
    assert "How long is the Nile?" in page.text
    assert "“raw” is the tag that each word has most often in training." in page.text
    assert "“raw” is the sentence that shares most words with the question." in page.text
    assert "script" not in page.tags
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_a_task_is_tables_of_its_own(run):
    ner, qa = (run.for_task(name) for name in TASKS)
    assert (ner.kind, qa.kind) == ("tags", "answers")
    assert (ner.split, qa.split) == ("test", "validation")
    assert (ner.metric, qa.metric) == ("f1", "f1")
    assert ner.selected == VARIANTS[-1]
    assert set(ner.metrics["task"]) == {"ner"}
    assert not ner.tasks


def test_what_the_record_says_of_a_task_counts(copy):
    resealed(copy, {"experiment": "multitask", "selected": "both", "metrics": {"ner": "recall", "qa": [7]}})
    run = read_tables(copy)
    assert (run.for_task("ner").metric, run.for_task("ner").selected) == ("recall", "both")
    assert run.for_task("qa").metric == "f1"


def test_variants_stand_in_one_table_with_their_figures_and_costs(run):
    grid = grids.results_grid(run)
    assert list(grid.heads) == [
        "variant", "ner: F1 on test", "ner: accuracy on test", "qa: F1 on validation", "qa: exact match on validation",
        "trained", "saved", "took", "memory",
    ]  # fmt: skip
    assert [row[0] for row in grid.rows] == ["raw", *VARIANTS]
    both = ("0.6600", "[0.645, 0.672]"), ("0.5700", "[0.555, 0.582]"), ("0.6600", "[0.645, 0.672]")
    assert tuple(grid.rows[3][1:4]) == both
    assert grid.rows[3][5:] == [
        ("9,000,000", "39.6\u00a0%"), "22,500,000", "1\u00a0min 50\u00a0s", "900\u00a0MiB",
    ]  # fmt: skip
    assert grid.rows[1][3:5] == ["–", "–"]  # ner only was not trained on qa
    assert grid.rows[0][5:] == ["–"] * 4
    assert grid.strong == 4


@pytest.mark.parametrize(("tasks", "shown"), [(2, 4), (3, 3), (5, 5)])
def test_of_many_metrics_a_few_are_shown_but_one_of_each_task(tmp_path, tasks, shown):
    run = read_tables(write_together(tmp_path / "run", {f"t{n}": "tags" for n in range(tasks)}, ["both"]))
    assert sum(head.startswith("t") and ":" in head for head in grids.results_grid(run).heads) == shown


def test_where_a_part_of_train_chooses_validation_stands_beside_test(copy):
    table = pd.read_csv(copy / "metrics.csv")
    ner = table[table["task"] == "ner"]
    more = [ner.assign(split="validation", value=0.5, low=None, high=None), ner.assign(split="held-out")]
    pd.concat([table, *more]).to_csv(copy / "metrics.csv", index=False)
    grid = grids.results_grid(read_tables(resealed(copy)))
    assert list(grid.heads[1:4]) == ["ner: F1 on test", "ner: accuracy on test", "ner: F1 on validation"]
    assert grid.rows[-1][3] == "0.5000"


def test_pairs_of_variants_are_compared_in_words(run):
    grid = grids.comparisons_grid(run)
    assert grid.rows[0] == [
        "both, gradnorm against ner only", "ner", "F1 on test", "no difference shown",
        ("-0.4\u00a0points", "[-1.2, 0.5]"), "0.31", "400",
    ]  # fmt: skip
    assert grid.rows[1][3:6] == ["better", ("+5.1\u00a0points", "[3.1, 7.0]"), "<\u00a00.001"]


@pytest.mark.parametrize(
    ("metric", "ends", "words"),
    [
        ("f1", (0.01, 0.03), "better"),
        ("f1", (-0.03, -0.01), "worse"),
        ("f1", (0.0, 0.03), "no difference shown"),
        ("mae", (0.01, 0.03), "worse"),
        ("mae", (-0.03, -0.01), "better"),
        ("f1", (np.nan, 0.03), "–"),
    ],
)
def test_an_outcome_is_what_the_interval_allows(metric, ends, words):
    assert grids.verdict(pd.Series({"metric": metric, "low": ends[0], "high": ends[1]})) == words


def test_a_correlation_differs_by_no_points():
    row = pd.Series({"metric": "spearman", "value": -0.004, "low": -0.0125, "high": 0.005})
    assert grids.difference_cell(row) == ("-0.004", "[-0.013, 0.005]")


def test_a_task_has_a_line_for_each_variant_that_trains_it_with_its_parameters(run):
    grid = grids.results_grid(run.for_task("ner"))
    assert list(grid.heads) == ["variant", "latents", "F1", "precision", "recall", "accuracy", "trained", "saved"]
    assert [row[0] for row in grid.rows] == ["raw", "ner only", "both", "both, gradnorm"]
    assert [row[-2] for row in grid.rows] == [
        "–", ("3,000,000", "13.2\u00a0%"), ("9,000,000", "39.6\u00a0%"), ("12,000,000", "52.9\u00a0%"),
    ]  # fmt: skip


def test_epochs_stand_in_a_table_that_begins_before_training(run):
    grid = grids.epochs_grid(run)
    assert list(grid.heads) == ["task", "metric", "variant", "before", "epoch 1", "epoch 2", "epoch 3"]
    assert grid.rows[0] == ["ner", "F1", "ner only", "0.225", "0.425", "0.525", "0.575"]  # the mean of two seeds
    assert {tuple(row[:2]) for row in grid.rows} == {
        ("ner", "F1"), ("ner", "accuracy"), ("qa", "F1"), ("qa", "exact match"),
    }  # fmt: skip


def test_of_many_epochs_the_first_and_the_last_are_among_those_shown(tmp_path):
    run = read_tables(write_together(tmp_path / "run", {"topic": "class"}, ["both"], epochs=40))
    heads = grids.epochs_grid(run).heads
    assert (heads[3], heads[-1], len(heads)) == ("before", "epoch 40", 3 + grids.MOST_EPOCHS)


def test_a_variant_is_a_point_in_the_panel_of_each_task_that_it_trains(run):
    figure = variant_figures.variants(run)
    ner, qa = figure.axes
    assert [panel.get_title("left") or panel.get_title() for panel in figure.axes] == [
        "ner, F1 on test",
        "qa, F1 on validation",
    ]
    assert [label.get_text() for label in ner.get_yticklabels()] == ["raw", *VARIANTS]
    for panel, places in ((ner, [0, 1, 3, 4]), (qa, [0, 2, 3, 4])):
        points = [line for line in panel.lines if line.get_marker() == "o"]
        assert [line.get_ydata()[0] for line in points] == places
        assert [line.get_markerfacecolor() == "none" for line in points] == [True, True, True, False]


def test_losses_have_a_line_for_each_variant_that_trains_the_task(run):
    ner, qa = figures.training(run).axes
    shown = {panel: [line for line in panel.lines if len(line.get_xdata())] for panel in (ner, qa)}
    assert [len(lines) for lines in shown.values()] == [3, 3]
    assert list(shown[ner][0].get_ydata()) == pytest.approx([1.95, 0.95, 2 / 3 - 0.05])  # the mean of two seeds
    assert len(ner.collections) == 3  # a band from one seed to the other


def test_a_variant_has_one_look_in_every_figure(copy):
    table = pd.read_csv(copy / "training.csv")
    table[table["variant"] != "ner only"].to_csv(copy / "training.csv", index=False)  # which learns nothing, say
    run = read_tables(resealed(copy))
    looks = [
        {line.get_label(): line.get_color() for line in figure.axes[0].lines if not line.get_label().startswith("_")}
        for figure in (figures.training(run), figures.by_epoch(run))
    ]
    assert list(looks[1]) == ["ner only", *looks[0]]
    assert looks[0].items() <= looks[1].items()


def test_the_first_epoch_of_a_curve_is_before_training(run):
    panel = figures.by_epoch(run).axes[0]
    assert list(panel.lines[-1].get_xdata()) == [0, 1, 2, 3]


def test_weights_are_drawn_where_they_move(run, tmp_path):
    assert [panel.get_title("left") or panel.get_title() for panel in figures.weights(run).axes] == [VARIANTS[-1]]
    still = read_tables(write_together(tmp_path / "run", TASKS, ["both"]))
    assert figures.weights(still) is None
    assert figures.conflicts(still) is None


def test_gradients_are_drawn_with_the_share_of_steps_in_which_they_conflict(run):
    cosine, share = figures.conflicts(run).axes
    drawn = [line for line in cosine.lines if len(line.get_xdata()) == 3]
    assert list(drawn[0].get_ydata()) == pytest.approx([0.1, 0, -0.1])
    assert list(share.lines[-1].get_ydata()) == pytest.approx([0.1, 0.2, 0.3])


def test_every_variant_has_its_precision_recall_and_f1_by_class_beside_the_figure_of_the_chosen_one(run):
    means, every = breakdown_module.variant_grids(run, "ner")
    assert list(means.heads) == ["variant", "macro precision", "macro recall", "macro F1"]
    assert [row[0] for row in means.rows] == ["ner only", "both", "both, gradnorm"]
    assert means.strong == 2
    table = run.tasks["ner"]["breakdown"]
    mine = table[(table["variant"] == "both") & (table["split"] == "test") & (table["metric"] == "recall")]
    assert len(mine) == 2
    assert means.rows[1][2] == f"{mine['value'].mean():.3f}"
    assert [row[:2] for row in every.rows[:3]] == [["ner only", "PER"], ["ner only", "<b>LOC</b>"], ["both", "PER"]]
    assert every.fold
    assert set(run.for_task("ner")["breakdown"]["variant"]) == {run.selected}
    assert breakdown_module.variant_grids(run, "qa") == []


def test_every_variant_has_a_confusion_matrix(tmp_path, pages_alone):
    folder = write_together(tmp_path / "run", {"topic": "class"}, ["one", "other"])
    write_report(folder)
    run = read_tables(folder)
    one, other = prediction_figures.confusions(run.for_task("topic")).axes
    assert [panel.get_title("left") or panel.get_title() for panel in (one, other)] == ["one", "other"]
    assert [text.get_text() for text in one.texts] == ["40", "0", "0", "20"]
    assert [text.get_text() for text in other.texts] == ["39", "1", "0", "20"]
    page = Page((folder / "report.html").read_text("utf-8"))
    assert {"figure-topic-confusion", "figure-topic-confusions"} <= set(page.ids)


def test_what_was_frozen_is_told_where_learning_is_shown(run, page):
    assert grids.frozen_note(run) == "Frozen: ner of “ner only” after 1 epoch."  # the mean of two seeds
    assert "Frozen: ner of “ner only” after 1 epoch." in page.text


def test_names_that_are_alike_once_cut_are_told_apart(tmp_path):
    long = [f"{'the same words again and again, ' * 2}{end}" for end in ("one", "two", "three")]
    run = read_tables(write_together(tmp_path / "run", {"topic": "class"}, long))
    names = [text.get_text() for text in figures.training(run).legends[0].get_texts()]
    assert len(set(names)) == 3
    labels = [label.get_text() for label in variant_figures.variants(run).axes[0].get_yticklabels()]
    assert len(set(labels)) == 4


@pytest.mark.slow
def test_a_task_that_what_was_chosen_does_not_train_is_shown_by_its_figures_of_merit(copy):
    shutil.rmtree(copy / "tasks" / "qa")
    page = Page(write_report(resealed(copy)).read_text("utf-8"))
    assert "figure-qa-by_question_word" not in page.ids
    assert not (copy / "figures" / "qa-by_question_word.png").exists()
    assert "task-qa" in page.ids


def test_tables_that_are_missing_leave_the_rest_of_the_page(copy, pages_alone):
    table = pd.read_csv(copy / "metrics.csv")
    table[table["split"].notna() & table["against"].isna()].to_csv(copy / "metrics.csv", index=False)
    for name in ("epochs", "training", "conflicts"):
        (copy / f"{name}.csv").unlink()
    page = Page(write_report(resealed(copy)).read_text("utf-8"))
    assert {"figure-variants", "figure-ner-confusion"} <= set(page.ids)
    assert not {"figure-training", "figure-by_epoch", "comparisons"} & set(page.ids)


def test_further_columns_are_texts(copy):
    table = pd.read_csv(copy / "metrics.csv")
    table = table[table["metric"] != "trained_parameters"]
    table.assign(note="NA").to_csv(copy / "metrics.csv", index=False)
    huge = {name: cost | {"memory": 1e300} for name, cost in costs(VARIANTS).items()}
    run = read_tables(resealed(copy, {"experiment": "multitask", "costs": huge}))
    assert set(run["metrics"]["note"]) == {"NA"}
    assert grids.results_grid(run).rows[1][-2:] == ["0", "30.5\u00a0s"]  # what nothing is known of has no column


def broken(fault, copy):
    """Break a run; returns what is said of it."""
    tasks = copy / "tasks"
    if fault == "a link to a folder":
        (tasks / "evil").symlink_to(copy)
        return "found 'evil'"
    if fault == "a link to the folder of tasks":
        tasks.rename(copy.parent / "elsewhere")
        tasks.symlink_to(copy.parent / "elsewhere")
        return "tasks is a link"
    if fault == "a link to a table":
        (tasks / "ner" / "breakdown.csv").unlink()
        (tasks / "ner" / "breakdown.csv").symlink_to(copy / "metrics.csv")
        return "breakdown.csv is a link"
    if fault == "a word for a number":
        table = pd.read_csv(tasks / "ner" / "breakdown.csv")
        table.assign(value="high").to_csv(tasks / "ner" / "breakdown.csv", index=False)
        resealed(copy)
        return "row 1, column 'value': expected a number, got 'high'"
    if fault == "a file":
        (tasks / "notes.txt").write_text("x")
        return "found 'notes.txt'"
    (tasks / fault).mkdir()
    return f"found {fault!r}"


FAULTS = [
    "a link to a folder", "a link to the folder of tasks", "a link to a table", "a word for a number", "a file",
    "a task", "na\nme", "<b>", "x" * 65,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_no_task_is_one_clear_line(copy, fault):
    message = broken(fault, copy)
    with pytest.raises(ReportError, match=re.escape(message[:70])) as caught:
        write_report(copy)
    assert "\n" not in str(caught.value)


def test_a_hidden_folder_is_left_alone(copy):
    (copy / "tasks" / ".ipynb_checkpoints").mkdir()
    assert list(read_tables(copy).tasks) == ["ner", "qa"]


@pytest.mark.parametrize("name", slow_but_first(["../../evil", "<b>", "a b", ""]))
def test_a_task_that_only_a_table_names_writes_nothing(copy, name):
    for table in ("metrics", "epochs", "training"):
        frame = pd.read_csv(copy / f"{table}.csv")
        frame.replace({"task": {"qa": name}}).to_csv(copy / f"{table}.csv", index=False)
    resealed(copy)
    outside = copy.parent / "evil-confusion.png"
    outside.write_bytes(b"mine")
    before = {path for path in copy.parent.rglob("*") if "run" not in path.relative_to(copy.parent).parts}
    Page(write_report(copy).read_text("utf-8"))
    assert {path for path in copy.parent.rglob("*") if "run" not in path.relative_to(copy.parent).parts} == before
    assert outside.read_bytes() == b"mine"


@pytest.mark.slow
def test_names_and_texts_are_only_texts(tmp_path, pages_alone):
    evil = EVIL[:60]
    folder = write_together(tmp_path / "run", {"topic": "class", "tone_-": "class"}, ["one", "other", evil])
    text = write_report(folder).read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert evil in page.text
    assert {"figure-tone_--confusion", "figure-topic-by_pattern"} <= set(page.ids)


@pytest.mark.slow
def test_a_run_of_one_task_says_how_its_variants_learnt(tmp_path, pages_alone):
    made = together({"stsb": "class"}, ["last", "upper"])
    tables = {name: made[name] for name in ("epochs", "training")}
    tables |= {"metrics": metrics(True), "predictions": predictions(True), "breakdown": breakdown()}
    run = read_tables(write_tables(tmp_path / "run", tables, record(True)))
    page = Page(write_report(tmp_path / "run").read_text("utf-8"))
    ids = {name.removeprefix("figure-") for name in page.ids if name.startswith("figure-")}
    assert {"variants", "training", "by_epoch", "by_epoch_second", "confusion"} <= ids
    assert "weights" not in ids
    assert list(grids.results_grid(run).heads)[:2] == ["variant", "latents"]


@pytest.mark.slow
def test_many_tasks_and_variants_have_a_page(tmp_path):
    tasks = {f"task-number-{n}": "tags" for n in range(5)}
    folder = write_together(tmp_path / "run", tasks, [f"variant {n}, gradnorm" for n in range(8)], epochs=2)
    page = Page(write_report(folder).read_text("utf-8"))
    assert {f"figure-{task}-confusion" for task in tasks} <= set(page.ids)
    assert "All 70 lines by epoch" in page.text


def test_the_screen_shows_the_table_of_the_page(folder, run):
    results, comparisons = result_grids(folder)
    assert results == grids.results_grid(run)
    assert comparisons == grids.comparisons_grid(run)
    assert results.rows[1][5:] == [("3,000,000", "13.2\u00a0%"), "0", "30.5\u00a0s", "900\u00a0MiB"]
