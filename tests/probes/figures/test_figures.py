"""Each figure is drawn from the tables it needs, and from nothing where they are not there."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context

from permafrost.probes.figures.study import history
from permafrost.probes.figures.style import SETTINGS, short_name
from permafrost.probes.figures.subsets import selectivities, subset_layers, subset_rows
from permafrost.probes.reports.figures import FIGURES
from permafrost.probes.results.files import SCHEMAS, TASK_TABLES
from permafrost.probes.results.run_tables import Tables
from tests.support.example_run import (
    SELECTED,
    VARIANTS,
    ablation,
    by_layer,
    confusion,
    evaluation,
    every_table,
    record,
    tagged,
    together,
)

NEEDS = {
    "by_layer": "metrics",
    "diagram": "record",
    "predicted_against_gold": "predictions",
    "confusion": "predictions",
    "confusions": "confusion",
    "by_class": "breakdown",
    "by_label": "breakdown",
    "by_entity_type": "breakdown",
    "by_pattern": "breakdown",
    "by_question_word": "breakdown",
    "layer_map": "metrics",
    "layer_curves": "metrics",
    "variants": "metrics",
    "by_epoch": "epochs",
    "by_epoch_second": "epochs",
    "weights": "training",
    "conflicts": "conflicts",
    "training": "training",
    "autoencoder": "autoencoder",
    "choices": "metrics",
    "selectivity": "metrics",
    "loss": "losses",
    "history": "trials",
    "intermediate": "intermediate",
    "importances": "importances",
    "unexplained": "trials",
    "transfer": "metrics",
    "reliability": "reliability",
}
TOGETHER = {"by_epoch", "by_epoch_second", "weights", "conflicts"}
"""Figures of a run that trains several tasks."""


@pytest.fixture(scope="module")
def runs():
    """Runs with every table, of scores and of classes (True), of tasks by layer, of tasks together, of one of these."""
    made = {classes: full(every_table(classes), record(classes)) for classes in (False, True)}
    of_tasks = full(together({"ner": "tags", "qa": "answers"}, ["one", "other", "gradnorm"]), record())
    tasks = {name: {table: of_tasks[table] for table in TASK_TABLES} for name in ("ner", "qa")}
    made |= {"layers": full({"metrics": by_layer()}, record()), "together": replace(of_tasks, tasks=tasks)}
    made["ablation"] = full({"metrics": ablation()}, record())
    metrics, about = evaluation()
    made["evaluation"] = full({"metrics": metrics}, about)
    return made | {"task": full(every_table(True) | {"confusion": confusion(["one", "other"])}, record(True))}


def full(tables: dict[str, pd.DataFrame], about: dict[str, Any]) -> Tables:
    found = {}
    for name, schema in SCHEMAS.items():
        table = tables.get(name, pd.DataFrame(columns=[*schema.text, *schema.numbers])).reset_index(drop=True)
        assert set(schema.text) <= set(table)
        table = table.assign(**{spare: "" for spare in schema.spare_text if spare not in table})
        table = table.assign(**{spare: np.nan for spare in schema.spare_numbers if spare not in table})
        found[name] = table.astype(dict.fromkeys(schema.numbers, "float"))
    return Tables(name="made-up", record=about, recipe="", frames=found)


def for_figure(name: str, runs: dict[Any, Tables]) -> Tables:
    kinds = {
        "together": name in TOGETHER,
        "task": name == "confusions",
        "layers": name.startswith("layer_"),
        "ablation": name in ("choices", "selectivity"),
        "evaluation": name == "transfer",
        True: name in ("confusion", "reliability"),
    }
    return runs[next((kind for kind, here in kinds.items() if here), False)]


def with_tables(run: Tables, **tables: pd.DataFrame) -> Tables:
    return replace(run, frames={**run.frames, **tables})


def without(run: Tables, name: str) -> Tables:
    if name == "record":
        return replace(run, record={"selected": SELECTED, "metric": "pearson"})
    return with_tables(run, **{name: run[name].iloc[:0]})


def test_every_figure_says_what_it_shows_and_what_it_needs():
    assert set(NEEDS) == set(FIGURES)
    assert all(spec.title and spec.caption for spec in FIGURES.values())


@pytest.mark.parametrize("name", FIGURES)  # a new figure without a line in NEEDS fails here
def test_a_figure_has_marks_and_is_absent_without_its_table(name, runs):
    run = for_figure(name, runs)
    with rc_context(SETTINGS):
        figure = FIGURES[name].draw(run)
        assert figure is not None
        drawn = [one for axes in figure.axes for one in (*axes.lines, *axes.collections, *axes.patches)]
        assert drawn
        assert FIGURES[name].draw(without(run, NEEDS[name])) is None


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_takes_one_row_and_figures_that_do_not_exist(name, runs):
    run = for_figure(name, runs)
    with rc_context(SETTINGS):
        for broken in (slice(0, 1), slice(None)):
            table = {} if NEEDS[name] == "record" else {NEEDS[name]: run[NEEDS[name]].iloc[broken].copy()}
            for column in ("value", "low", "high") if broken == slice(None) else ():
                for frame in table.values():
                    if column in frame:
                        frame[column] = np.nan
            figure = FIGURES[name].draw(with_tables(run, **table))
            if figure:
                figure.savefig(io.BytesIO(), format="svg")


def test_the_marks_by_layer_are_the_values_of_the_table(runs):
    figure = FIGURES["by_layer"].draw(runs[False])
    table = runs[False].metrics
    rows = table[(table["variant"] == "raw") & (table["view"] == "mean") & (table["split"] == "test")]
    assert [axes.get_title("left") or axes.get_title() for axes in figure.axes] == ["train", "validation", "test"]
    line = figure.axes[-1].lines[0]
    assert line.get_ydata().tolist() == rows.loc[rows["metric"] == "pearson", "value"].tolist()


def test_the_points_of_variants_keep_the_order_of_the_recipe_from_the_top(runs):
    axes = FIGURES["variants"].draw(runs[False]).axes[0]
    assert (axes.get_title("left") or axes.get_title()) == "pearson on test"
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["raw, mean", "raw, last", *(short_name(name, 30) for name in VARIANTS)]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    filled = [line.get_ydata()[0] for line in points if line.get_markerfacecolor() != "none"]
    assert [shown[height] for height in filled] == [SELECTED]
    assert [text.get_text() for text in axes.texts][-3:] == [f"{value:.3f}" for value in VARIANTS.values()]


def test_a_confusion_counts_each_row_once(runs):
    counts = [int(text.get_text()) for text in FIGURES["confusion"].draw(runs[True]).axes[0].texts]
    assert sum(counts) == 120


def test_tags_have_a_confusion_that_o_does_not_drown(runs):
    figure = FIGURES["confusion"].draw(with_tables(runs[False], predictions=tagged()))
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["O", "B-LOC", "I-LOC", "B-ORG", "B-PER", "I-PER"]
    assert sum(int(text.get_text()) for text in axes.texts) == len(tagged()) // 2
    shades = {(round(bar.get_y()), round(bar.get_x())): bar.get_alpha() for bar in axes.patches}
    assert shades[4, 1] == pytest.approx(0.04 + 0.56 / 3)  # one of three B-PER, however many O there are
    assert shades[4, 4] == pytest.approx(0.04 + 0.56 * 2 / 3)


def test_a_bar_is_the_value_and_its_line_the_interval(runs):
    panel = FIGURES["by_class"].draw(runs[False]).axes[0]
    table = runs[False]["breakdown"]
    rows = table[(table["kind"] == "class") & (table["metric"] == "precision") & (table["split"] == "test")]
    assert [bar.get_width() for bar in panel.patches] == rows["value"].tolist()
    assert [list(line.get_xdata()) for line in panel.lines] == rows[["low", "high"]].dropna().to_numpy().tolist()


def test_the_map_has_every_layer_of_every_task_in_its_first_metric(runs):
    axes = FIGURES["layer_map"].draw(runs["layers"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ner <b>, f1", "nli, accuracy"]
    assert [text.get_text() for text in axes.texts] == 2 * [".50", ".55", ".60", ".65", ".70", ".75", ".80", ".50"]
    darkest = max(axes.patches[:8], key=lambda bar: bar.get_alpha())
    assert list(axes.patches).index(darkest) == 6


def test_a_task_has_its_controls_in_its_panel(runs):
    panel = FIGURES["layer_curves"].draw(runs["layers"]).axes[0]
    assert [line.get_label() for line in panel.lines] == [
        "trained backbone",
        "untrained",
        "trained backbone, on train",
        "random targets, on train",
        "all layers together",
    ]
    assert panel.lines[1].get_ydata()[3] == pytest.approx(0.45)


def test_selectivity_is_the_metric_less_the_metric_on_random_targets(runs):
    table = selectivities(runs["ablation"])
    assert table["selectivity"].tolist() == pytest.approx([0.6] * len(table))
    assert set(table["kind"]) == {"all", "single", "prefix", "suffix", "greedy", "without", "view"}
    assert table["backbone"].nunique() == 2


def test_an_ablation_has_a_panel_for_each_kind_of_subset_and_its_layers_in_order(runs):
    figure = FIGURES["layer_curves"].draw(runs["ablation"])
    titles = [panel.get_title("left") or panel.get_title() for panel in figure.axes]
    assert titles == [
        "one layer alone", "all layers but one", "layers up to", "layers from", "layers added greedily",
    ]  # fmt: skip
    assert list(figure.axes[-1].lines[0].get_xdata()) == list(range(1, 8))
    assert list(figure.axes[0].lines[0].get_xdata()) == list(range(7))


def test_backbones_stand_side_by_side_by_all_layers_and_by_the_last(runs):
    _, backbones = FIGURES["choices"].draw(runs["ablation"]).axes
    first = "all-MiniLM-L6-v2"
    assert [label.get_text() for label in backbones.get_yticklabels()] == [
        first, f"{first}, last layer"[:23] + "…", "another", "another, last layer",
    ]  # fmt: skip


@pytest.mark.parametrize("older", [False, True])
def test_layers_left_out_are_found(runs, older):
    run = runs["ablation"]
    if older:  # runs that named the layers which remain
        names = {
            f"without layer {out}": "without " + ",".join(str(k) for k in range(7) if k != out) for out in range(7)
        }
        run = with_tables(run, metrics=run["metrics"].replace({"subset": names}))
    rows = subset_rows(run)
    rows = rows[rows["scored"]]
    assert rows.loc[(rows["kind"] == "without") & (rows["control"] == ""), "position"].tolist() == list(range(7))
    assert subset_layers("prefix 0-2,5 and x") == [0, 1, 2, 5]
    assert subset_layers("view l2") == []


def test_a_name_becomes_one_short_line():
    assert short_name("_a\x00b\nc") == "a b c"
    assert short_name("") == "(no name)"
    assert len(short_name("x" * 99)) == 36
    assert pd.notna(short_name(None))


def test_the_best_so_far_never_falls(runs):
    best = list(history(runs[False]).axes[0].lines[0].get_ydata())
    assert best == sorted(best)
    assert best[0] < best[-1]
