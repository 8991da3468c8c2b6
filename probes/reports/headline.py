"""Headlines: the chosen figure of a run of any kind, one for each of its tasks, in the form of a run of one task."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from permafrost.probes.reports import evaluation
from permafrost.probes.reports.metrics import parameters_and_share
from permafrost.probes.results.files import number
from permafrost.probes.results.run_tables import Tables

NOTHING: dict[str, Any] = dict.fromkeys(("value", "low", "high", "n", "parameters"), float("nan"))

MOST_PAIRS = 6
"""Pairs of sentences of a comparison of sentences that are shown for each backbone."""


@dataclass(frozen=True, eq=False)
class Headline:
    """One figure of a run."""

    columns: dict[str, Any]
    """``task, corpus, variant, split, metric, value, low, high, n, parameters``; NaN if unknown."""

    tables: Tables | None
    """The task in the form of a run of one task; None if it has no predictions of rows."""


def headlines(run: Tables) -> list[Headline]:
    """Return the headlines of a run: of each task, evaluation, backbone or objective that it measured."""
    return list(HEADLINES.get(run.experiment, _of_tasks)(run))


def _of_variant(run: Tables, task: str = "") -> Headline:
    rows = run.metrics[(run.metrics["variant"] == run.selected) & (run.metrics["metric"] == run.metric)]
    rows = rows[(rows["split"] == run.split) & rows["seed"].isna()]
    about = {"task": task, "corpus": _corpus(run, rows), "variant": run.selected}
    parameters = {"parameters": parameters_and_share(run, run.selected)[0]}
    return Headline(about | {"split": run.split, "metric": run.metric} | _measured(rows) | parameters, run)


def _of_tasks(run: Tables) -> Iterator[Headline]:
    for task in run.task_names or [""]:
        yield _of_variant(run.for_task(task), task)


def _of_subsets(run: Tables) -> Iterator[Headline]:
    """The probe on all layers, for each task."""
    rows = run.metrics[(run.metrics["subset"] == "all") & (run.metrics["control"] == "") & run.metrics["seed"].isna()]
    by_task = run.record_table("metrics")
    for task in dict.fromkeys(rows["task"]):
        of_task = rows[rows["task"] == task]
        metric = str(by_task.get(task) or run.metric)
        of_task = of_task[(of_task["metric"] == metric) & (of_task["split"] == run.split)]
        about = {"task": task if by_task else "", "corpus": _corpus(run, of_task), "variant": "all layers"}
        yield Headline(NOTHING | about | {"split": run.split, "metric": metric} | _measured(of_task), None)


def _of_evaluations(run: Tables) -> Iterator[Headline]:
    known = evaluation.evaluations(run)
    if len(known) < 2:
        yield _of_variant(run)
        return
    for name, about in known.items():
        if name in run.tasks:
            found = _of_variant(evaluation.pair_tables(run, name))
            yield Headline(found.columns | {"task": str(about["task"]), "corpus": str(about["data"])}, found.tables)


def _of_study(run: Tables) -> Iterator[Headline]:
    best = run.record_table("best")
    trial, value = number(best.get("number")), number(best.get("value"))
    about = {"task": "", "corpus": _corpus(run, run.metrics), "variant": "" if trial is None else f"trial {trial:.0f}"}
    value = float("nan") if value is None else value
    yield Headline(NOTHING | about | {"split": "validation", "metric": run.metric, "value": value}, None)


def _of_sentences(run: Tables) -> Iterator[Headline]:
    for backbone, rows in run["cosines"].groupby("backbone", sort=False):
        for _, row in rows.head(MOST_PAIRS).iterrows():
            metric = f"cosine of {row['first']:.0f} and {row['second']:.0f}"
            about = {"task": "", "corpus": "", "variant": str(backbone), "split": "sentences", "metric": metric}
            yield Headline(NOTHING | about | {"value": row["cosine"]}, None)


def _of_pretraining(run: Tables) -> Iterator[Headline]:
    for _, row in run.means.iterrows():
        about = {"task": "", "corpus": _corpus(run, run.metrics)} | {key: row[key] for key in ("variant", "split")}
        yield Headline(NOTHING | about | {"metric": row["metric"]} | _measured(pd.DataFrame([row])), None)


HEADLINES: dict[str, Callable[[Tables], Iterator[Headline]]] = {
    "run": _of_tasks,
    "multitask": _of_tasks,
    "layers": _of_subsets,
    "ablation": _of_subsets,
    "study": _of_study,
    "evaluation": _of_evaluations,
    "similarity": _of_sentences,
    "pretraining": _of_pretraining,
}
"""Experiment, as the record names it -> its headlines."""


def _measured(rows: pd.DataFrame) -> dict[str, Any]:
    return {key: rows[key].iloc[0] if len(rows) else float("nan") for key in ("value", "low", "high", "n")}


def _corpus(run: Tables, rows: pd.DataFrame) -> str:
    """Return the name of the corpus of some rows, or that in the record."""
    return str(rows["corpus"].iloc[0] if len(rows) and run.tasks else run.record_table("corpus").get("name", ""))
