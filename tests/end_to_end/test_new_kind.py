"""A kind of task of one's own, of one class and one line, and a metric of one function and one line."""

from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from permafrost import api
from permafrost.data.corpora.targets import TARGETS, Classes
from permafrost.probes.metrics.probabilities import softmax
from permafrost.probes.reports.report import write_report
from permafrost.probes.results.run_tables import read_tables
from permafrost.probes.tasks.base import BreakdownRow
from permafrost.probes.tasks.classes import Classification
from permafrost.probes.tasks.registry import TASKS, register
from permafrost.probes.tasks.rows import RowScorer, RowTask, measured_ratio, predict_items, text_columns


def mean_distance(prediction: NDArray[Any], target: NDArray[Any]) -> Any:
    """Negative mean distance of predicted and gold grade, over the last axis."""
    return -np.abs(prediction - target).mean(-1)


class GradeScorer(RowScorer):
    def decode(self, predictions, calibration=None):
        return softmax(predictions) @ np.arange(predictions.shape[-1], dtype=np.float64)


class Grades(RowTask):
    """Ordered grades, predicted as the expectation over the grades."""

    kind = "grade"
    encoding = Classes
    name = "grading"
    loss = "cross_entropy"
    losses = ("cross_entropy",)
    metric = "mean_distance"
    metrics: ClassVar = {"mean_distance": mean_distance}
    heads = ("classes",)
    scorer_class = GradeScorer
    reference = "the median grade of training"
    numbers = ("grade",)

    def breakdown(self, scorer, decoded):
        for end in ("!", ".."):
            rows = np.array([str(scorer.corpus.texts[text]).endswith(end) for (text,) in scorer.rows.texts])
            if rows.any():
                counts = [(np.abs(grades - scorer.rows.targets)[rows], np.ones(rows.sum())) for grades in decoded]
                yield BreakdownRow("last character", end, "distance", measured_ratio(counts, int(rows.sum())))

    def untrained(self, corpus, rows):
        return np.full(len(rows), np.median(corpus.split("train").targets))

    def prediction_columns(self, predictions, scorer, calibration):
        target = np.array(scorer.corpus.labels)[scorer.rows.targets]
        return text_columns(scorer) | {"target": target, "grade": scorer.decode(predictions)}

    def answers(self, space, items, predict):
        grades = softmax(predict_items(items, predict)) @ np.arange(len(space.labels))
        return [{"grade": float(grade)} for grade in grades]

    def row_labels(self, corpus, rows):
        return [corpus.labels[code] for code in rows.targets]


@pytest.fixture
def registered():
    yield register(Grades())
    del TASKS["grade"], TARGETS["grade"]


@pytest.fixture
def graded(tmp_path):
    """A file of texts with the grades that their number of exclamation marks gives."""
    rows = [
        f"the soup was {'warm' if row % 2 else 'cold'} on day {row}{'!' * (row % 3)}\tg{row % 3}" for row in range(90)
    ]
    path = tmp_path / "grades.tsv"
    path.write_text("text\tgrade\n" + "\n".join(rows) + "\n", "utf-8")
    return [
        f"corpus.path={path}", "corpus.columns=text,grade", "corpus.target=grade", "variants=[]", "train.seeds=0",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_new_kind_of_task_runs_is_ablated_predicts_and_has_a_page(registered, graded, tmp_path, quick):
    run = api.run("classify", graded, tmp_path / "runs")
    values = {row["variant"]: row["value"] for row in run.metrics if row["split"] == "test" and row["seed"] is None}
    assert values["probe"] > values["raw"] + 0.2

    cold, warm = api.load(run.path).predict(["the soup was cold on day 4", "the soup was warm on day 5!!"])
    assert 0 <= cold["grade"] < warm["grade"] <= 2

    ablation = api.ablate("classify", [*graded, "ablation.kinds=single"], tmp_path / "runs")
    assert {row["subset"] for row in ablation.metrics} > {"all", "single 0", "single 6"}

    for folder in (run.path, ablation.path):
        page = write_report(folder).read_text("utf-8")
        assert "mean distance" in page
        assert read_tables(folder).metric == "mean_distance"
    assert "By last character" in (run.path / "report.html").read_text("utf-8")
    assert "the median grade of training" in (run.path / "report.html").read_text("utf-8")


def error_rate(prediction: NDArray[Any], target: NDArray[Any]) -> Any:
    """Negative share of mistakes, over the last axis."""
    return -(prediction != target).mean(-1)


def test_a_new_metric_selects_and_is_measured(monkeypatch, tmp_path, quick):
    monkeypatch.setitem(Classification.metrics, "error_rate", error_rate)
    changes = ["corpus.name=samples-topics", "train.metric=error_rate", "train.epochs=2", "train.seeds=0"]
    run = api.run("classify", changes, tmp_path)
    assert read_tables(run.path).metric == "error_rate"
    values = {(row["variant"], row["split"], row["metric"]): row["value"] for row in run.metrics if row["seed"] is None}
    measured = [key for key in values if key[2] == "error_rate"]
    assert len(measured) > 3
    for variant, split, metric in measured:
        assert values[variant, split, metric] == pytest.approx(values[variant, split, "accuracy"] - 1)
