"""The tables of a run folder, and of each task of a run that trains several. A report is drawn from these alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from permafrost.data.corpora.records import HELD_OUT, Kind
from permafrost.data.digests import DamageError
from permafrost.probes.config.names import PROBABILITY, RANDOM_TARGETS, TASK_NAME, UNTRAINED
from permafrost.probes.results.files import (
    ReportError,
    Schema,
    as_numbers,
    checked,
    number,
    read_table,
    read_words,
    shown_name,
)
from permafrost.probes.results.run_folder import REMEDY, RunFolder
from permafrost.probes.results.schema import PREDICTED, RESULTS, SCHEMAS, TAG

__all__ = [
    "PROBABILITY", "RANDOM_TARGETS", "SCHEMAS", "UNTRAINED", "ReportError", "Schema", "Tables", "TaskTables",
    "as_numbers", "chooses", "first_seed", "number", "read_table", "read_tables", "scored",
]  # fmt: skip


class TaskTables(NamedTuple):
    """What the folder of a task holds, in a run that trains several."""

    predictions: pd.DataFrame
    breakdown: pd.DataFrame
    """Of every variant."""

    confusion: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Tables:
    """What a run folder says: a table that is not there is empty, with its columns."""

    name: str
    """The folder's, or what the record calls a run that is still being written."""

    record: Mapping[str, Any]
    recipe: str
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    training: pd.DataFrame
    autoencoder: pd.DataFrame
    latents: pd.DataFrame
    ablation: pd.DataFrame
    trials: pd.DataFrame
    intermediate: pd.DataFrame
    importances: pd.DataFrame
    breakdown: pd.DataFrame
    layers: pd.DataFrame
    variants: pd.DataFrame
    epochs: pd.DataFrame
    conflicts: pd.DataFrame
    comparisons: pd.DataFrame
    frozen: pd.DataFrame
    confusion: pd.DataFrame
    tasks: Mapping[str, TaskTables] = field(default_factory=dict)
    """Of a run that trains several tasks, in the order of its figures."""

    @property
    def kind(self) -> Kind:
        """What the predicted rows are labelled with; none where nothing was predicted."""
        told = record_table_of(self.predictions)
        return PREDICTED[told][0] if told and len(self.predictions) else "none"

    @property
    def selected(self) -> str:
        """The variant that was chosen; of a record that does not say, the first."""
        trained = self.metrics.loc[~self.metrics["variant"].str.startswith(UNTRAINED), "variant"]
        return str(self.record.get("selected") or (trained.iloc[0] if len(trained) else ""))

    @property
    def metric(self) -> str:
        """The metric that chose; of a record that does not say, the first measured."""
        known = pd.concat([self.metrics["metric"], self.ablation["metric"]])
        return str(self.record.get("metric") or (known.iloc[0] if len(known) else "value"))

    @property
    def split(self) -> str:
        """The split that the figures of merit are of: test, or else validation."""
        return scored(self.metrics)

    @property
    def over_seeds(self) -> str:
        """What figures of several seeds are, in words."""
        joint = len(self.predictions) and self.predictions["seed"].isna().all()
        return "the seeds answering together" if joint else "means over seeds"

    @property
    def selection(self) -> str:
        """The split that chose epochs and variant."""
        return chooses(self.metrics)

    def record_table(self, *keys: str) -> Mapping[str, Any]:
        """A table of the record; empty where it is missing or something else."""
        found: Any = self.record
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    @property
    def task_names(self) -> list[str]:
        """Of a run that trains several tasks, in the order of its figures; empty for any other run."""
        return [name for name in dict.fromkeys([*self.metrics["task"], *self.tasks]) if name] if self.tasks else []

    def for_task(self, name: str) -> "Tables":
        """One task of a run that trains several, as if it were a run of that task alone.

        Its breakdown is that of the variant that was chosen; ``tasks`` has those of all.
        """
        nothing = TaskTables(self.predictions.iloc[:0], self.breakdown.iloc[:0], self.confusion.iloc[:0])
        metrics = self.metrics[self.metrics["task"] == name]
        chose = self.record_table("metrics").get(name)
        record = {key: value for key, value in self.record.items() if key != "metric"}
        record |= {"selected": self.selected} | ({"metric": chose} if chose in metrics["metric"].tolist() else {})
        mine = self.tasks.get(name, nothing)
        mine = mine._replace(breakdown=mine.breakdown[mine.breakdown["variant"] == self.selected])
        return replace(self, name=name, record=record, metrics=metrics, tasks={}, **mine._asdict())


def read_tables(folder: Path) -> Tables:
    """Read a run folder.

    Raises:
        ReportError: the run did not finish or is of another version, or a file in it cannot be read.
        DamageError: a file is not as the run wrote it.
    """
    run = RunFolder(folder, ReportError)
    if not any(run.has(f"{name}.csv") for name in RESULTS):
        names = ", ".join(f"{name}.csv" for name in RESULTS)
        raise ReportError(f"{folder} is no finished run: it has none of {names}. Run the recipe again.")
    frames = {name: _read(run, name) for name in SCHEMAS}
    tasks = _tasks(run, list(dict.fromkeys(frames["metrics"]["task"])))
    return Tables(shown_name(run, "run"), run.record, read_words(run), **frames, tasks=tasks)


def record_table_of(predictions: pd.DataFrame) -> str | None:
    """The column that tells what kind of predictions these are."""
    return next((name for name in PREDICTED if name in predictions), None)


def first_seed(predictions: pd.DataFrame) -> pd.DataFrame:
    """What the first seed said, or all together."""
    seed = predictions["seed"].iloc[0]
    return predictions[predictions["seed"].isna() if pd.isna(seed) else predictions["seed"] == seed]


def scored(metrics: pd.DataFrame) -> str:
    """Test where it was measured, or else validation."""
    return "test" if (metrics["split"] == "test").any() else "validation"


def chooses(metrics: pd.DataFrame) -> str:
    """The held-out part of train where one was measured, or else validation."""
    return HELD_OUT if (metrics["split"] == HELD_OUT).any() else "validation"


def _read(run: RunFolder, name: str, within: str = "") -> pd.DataFrame:
    path = f"{within}{name}.csv"
    frame = read_table(run, path, SCHEMAS[name])
    return _predictions(run.path / path, frame) if name == "predictions" else frame


def _tasks(run: RunFolder, order: Sequence[str]) -> dict[str, TaskTables]:
    """The tables of every task, those of ``order`` first; of a task that has no folder they are empty."""
    folder, written = run.path / "tasks", run.folders("tasks")
    if folder.is_symlink():
        raise ReportError(f"{folder} is a link; a run folder holds its files itself.")
    found = [path for path in sorted(folder.iterdir()) if path.name[0] != "."] if folder.is_dir() else []
    for path in found:
        if path.is_symlink() or not path.is_dir() or not TASK_NAME.fullmatch(path.name):
            expected = "expected the folder of a task, named by at most 64 letters, digits, _ and -, no sign first"
            raise ReportError(f"{folder}: {expected}; found {path.name[:80]!r}.")
        if path.name not in written:
            raise DamageError(f"{path} is none of what the run wrote: remove it, or {REMEDY}.")
    if not written:
        return {}
    names = dict.fromkeys([*filter(TASK_NAME.fullmatch, order), *written])
    return {name: TaskTables(*(_read(run, table, f"tasks/{name}/") for table in TaskTables._fields)) for name in names}


def _predictions(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Predictions with the columns of their kind."""
    told = record_table_of(frame)
    kind, schema = PREDICTED[told] if told else ("none", Schema())
    for name in ("target", "label") if kind == "tags" else ():
        bad = ~frame[name].str.fullmatch(TAG)
        if bad.any():
            row = int(np.argmax(bad))
            raise ReportError(
                f"{path}: row {row + 1}: expected an IOB2 tag as B-PER or O, got {frame[name].iloc[row][:40]!r}."
            )
    spare = {("score", "raw"), ("answers", "target_start")}
    optional = [str(name) for name in frame if str(name).startswith(PROBABILITY) or (kind, name) in spare]
    return checked(path, frame, Schema(schema.text, (*schema.numbers, *optional)))
