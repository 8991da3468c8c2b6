"""What series hold of a run: parameters of recipes, metrics of events, and final metrics of metrics.csv."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from permafrost.data.spec import flatten_settings, plain
from permafrost.probes.config.names import PROBE, UNTRAINED
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.tracking.series import Parameter, series_name

NAMING = ("variant", "subset", "control")
"""Columns of metrics.csv that are empty unless they name a training."""


def parameters_of(recipe: Recipe) -> dict[str, Parameter]:
    """Return a recipe as dotted key -> value; lists and tables without keys are JSON."""
    parameters: dict[str, Parameter] = {}
    for key, text in flatten_settings(plain(recipe)):
        value = json.loads(text)
        parameters[key] = value if isinstance(value, str | int | float | bool) else text
    return parameters


def epoch_values(facts: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], dict[str, float]]]:
    """Yield for each training of an event ``epoch`` its columns and its metrics.

    The metrics are ``train/loss``, ``train/learning_rate`` and ``validation/METRIC``, of several tasks
    ``train/TASK/loss`` and ``validation/TASK/METRIC``. Layers that are pretrained side by side are one training, with
    the means of those that still learn. Nothing is yielded for a member that had stopped before.
    """
    members: Sequence[Mapping[str, Any]] = facts["members"]
    distinct = {json.dumps(member, sort_keys=True): member for member in members}
    for key, columns in distinct.items():
        indices = [index for index, member in enumerate(members) if json.dumps(member, sort_keys=True) == key]
        values = dict(_metric_values(facts, indices))
        if values:
            yield columns, values | _learning_rates(facts["learning_rate"])


def _metric_values(facts: Mapping[str, Any], indices: Sequence[int]) -> Iterator[tuple[str, float]]:
    for task, losses in facts["loss"].items():
        within = "" if task in ("", PROBE) else f"{task}/"
        named = {f"train/{within}loss": losses}
        named |= {f"validation/{within}{name}": values for name, values in facts["metrics"][task].items()}
        for name, values in named.items():
            defined = [values[index] for index in indices if values[index] is not None]
            if defined:
                yield name, float(np.mean(defined))


def _learning_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """Return the learning rates by name: of the probe, or of all there is, without the name of the component."""
    plain_names = set(rates) if len(rates) == 1 else {PROBE}
    return {
        "train/learning_rate" + ("" if component in plain_names else f".{component}"): rate
        for component, rate in rates.items()
    }


class FinalMetrics:
    """The metrics of the reported split in ``metrics.csv``: of each training, and of the run as a whole."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], recipe: Recipe, kind: str) -> None:
        """Take the rows of ``metrics.csv`` of a run of some kind."""
        self.split = "test" if any(row["split"] == "test" for row in rows) else "validation"
        self._rows = [row for row in rows if row["split"] == self.split and not row["against"]]
        self._recipe, self._kind = recipe, kind
        self._prefix = self.split if self.split == "test" else f"final_{self.split}"

    def of_training(self, columns: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics of one seed; empty if the table has only those of several seeds together.

        Args:
            columns: columns of ``metrics.csv`` that name the training.
        """
        rows = [
            row
            for row in self._rows
            if all(str(row[name]) == str(columns.get(name, "")) for name in NAMING) and "phase" not in columns
            if all(row[name] == columns[name] for name in ("backbone", "task") if name in columns)
        ]
        of_seed = [row for row in rows if row["seed"] == columns["seed"]]
        if not of_seed and len(self._recipe.train.seeds) == 1:
            of_seed = [row for row in rows if row["seed"] is None]
        return {self._metric(row): row["value"] for row in of_seed}

    def of_run(self, selected: str) -> dict[str, float]:
        """Return the metrics of all seeds together: of every training, and, without a name, of the selected one.

        Args:
            selected: the selected variant; empty selects the probe on all layers.
        """
        found: dict[str, float] = {}
        for row in (row for row in self._rows if row["seed"] is None):
            columns = {name: row[name] for name in (*NAMING, "backbone")} | {"seed": None}
            if not row["subset"]:  # a variant, whose backbones its name stands for
                columns["backbone"] = self._recipe.plan.backbone
            if row["variant"] == UNTRAINED and row["layer"] is not None:
                columns["variant"] += f" layer {row['layer']}"
            if self._kind == "layers":
                columns["task"] = row["task"]
            name = series_name(columns, self._recipe.plan.backbone)
            found[f"{name}/{self._metric(row)}"] = row["value"]
            if name == (selected or "all"):
                found[self._metric(row)] = row["value"]
        return found

    def _metric(self, row: Mapping[str, Any]) -> str:
        within = f"{row['task']}/" if self._kind == "multitask" else ""
        return f"{self._prefix}/{within}{row['metric']}"
