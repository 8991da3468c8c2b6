"""The tables of a run folder, and those of each task of a multi-task run.

A report is made from these tables alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from permafrost.data.corpora.records import HELD_OUT
from permafrost.data.errors import first_line
from permafrost.probes.config.names import PROBABILITY, PROBE, RECIPE, TASK_NAME, UNTRAINED
from permafrost.probes.results.files import NEEDED, SCHEMAS, TASK_TABLES, Schema, read_table, with_schema
from permafrost.probes.results.run_folder import TASKS_FOLDER, ReportError, RunFolder

OF_TEXTS = ("predictions", "latents")
"""Tables with a row for each text."""

Frames = Mapping[str, pd.DataFrame]
"""Name of a table -> the table; it is empty, with its columns, if there is no such file."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tables:
    """The tables of a run folder, its record and recipe."""

    name: str
    """Name of the folder, or that in the record while the run is being written."""

    record: Mapping[str, Any]
    recipe: str
    frames: Frames
    """Every table of ``SCHEMAS``, as it was written."""

    tasks: Mapping[str, Frames] = field(default_factory=dict)
    """Task name -> ``TASK_TABLES`` of the task, in the order of ``metrics.csv``; empty if it is no multi-task run."""

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.frames[name]

    @property
    def experiment(self) -> str:
        """What ran, a key of ``NEEDED``."""
        return str(self.record.get("experiment"))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The rows of ``metrics.csv`` that are metrics on a split."""
        rows = self["metrics"]
        return rows[(rows["against"] == "") & (rows["split"] != "")]

    @cached_property
    def means(self) -> pd.DataFrame:
        """The rows of ``metrics`` that aggregate over seeds and have a value."""
        return self.metrics[self.metrics["seed"].isna() & self.metrics["value"].notna()]

    @cached_property
    def differences(self) -> pd.DataFrame:
        """The rows of ``metrics.csv`` that are differences between two metrics."""
        return self["metrics"][self["metrics"]["against"] != ""]

    @cached_property
    def counts(self) -> pd.DataFrame:
        """The rows of ``metrics.csv`` that are counts of parameters."""
        return self["metrics"][self["metrics"]["split"] == ""]

    @property
    def kind(self) -> str:
        """The kind of the targets of the predicted rows; ``none`` if there are no predictions."""
        return str(self.record_table("tasks", PROBE).get("kind", "none")) if len(self["predictions"]) else "none"

    @property
    def selected(self) -> str:
        """The selected variant; the first trained one if the record names none."""
        trained = self.metrics.loc[~self.metrics["variant"].str.startswith(UNTRAINED), "variant"]
        return str(self.record.get("selected") or (trained.iloc[0] if len(trained) else ""))

    @property
    def metric(self) -> str:
        """The metric that selected the variant; the first measured one if the record names none."""
        return str(self.record.get("metric") or (self.metrics["metric"].iloc[0] if len(self.metrics) else "value"))

    @property
    def split(self) -> str:
        """The split whose metrics are reported: test if it was measured, else validation; of an evaluation, its own."""
        found = reported_split(self.metrics)
        return "validation" if found == "train" and self.experiment != "evaluation" else found

    @property
    def seed_aggregation(self) -> str:
        """How the seeds are combined, in words for captions."""
        if self.selected.startswith(UNTRAINED):
            return "of all seeds"
        joint = len(self["predictions"]) and self["predictions"]["seed"].isna().all()
        return "the seeds answering together" if joint else "means over seeds"

    @property
    def selection(self) -> str:
        """The split that selected the epochs and the variant."""
        return selection_split(self.metrics)

    def record_table(self, *keys: str) -> Mapping[str, Any]:
        """Return the table of the record at nested keys; empty if it is missing or no table."""
        value: Any = self.record
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, Mapping) else {}

    @property
    def task_names(self) -> list[str]:
        """The tasks of a multi-task run, in the order of ``metrics.csv``; empty for any other run."""
        return [name for name in dict.fromkeys([*self.metrics["task"], *self.tasks]) if name] if self.tasks else []

    def for_task(self, name: str) -> "Tables":
        """Return one task of a multi-task run in the form of a single-task run.

        Its breakdown has the rows of the selected variant only; ``tasks`` has those of all variants. A run of one task
        is returned as it is, and so are all tables for an empty name.
        """
        if not name or not self.tasks:
            return self
        frames = dict(self.tasks.get(name) or {table: self[table].iloc[:0] for table in TASK_TABLES})
        frames["breakdown"] = frames["breakdown"][frames["breakdown"]["variant"] == self.selected]
        rows = self["metrics"]
        frames["metrics"] = rows[(rows["task"] == name) | (rows["split"] == "")]
        metric = self.record_table("metrics").get(name)
        record = {key: value for key, value in self.record.items() if key not in ("metric", "costs")}
        record |= {"selected": self.selected, "tasks": {PROBE: self.record_table("tasks", name)}}
        if metric in frames["metrics"]["metric"].tolist():
            record["metric"] = metric
        return replace(self, name=name, record=record, frames={**self.frames, **frames}, tasks={})


def read_tables(folder: Path, most_rows: int | None = None) -> Tables:
    """Read the tables of a run folder.

    Args:
        most_rows: of the tables with a row for each text; None reads them all.

    Raises:
        ReportError: the run is unfinished or of another version, or a file in it cannot be read.
        DamageError: a file differs from what the run wrote.
    """
    run = RunFolder(folder, ReportError)
    experiment = str(run.record.get("experiment"))
    if experiment not in NEEDED:
        raise ReportError(f"{folder}: its record names the experiment {experiment[:40]!r}; known: {', '.join(NEEDED)}.")
    for file in NEEDED[experiment]:
        if not run.has(file):
            raise ReportError(f"{folder} is no finished run: it has no {file}. Run the recipe again.")
    frames = _read_frames(run, SCHEMAS, PROBE, most_rows=most_rows)
    if experiment == "similarity":
        _check_sentences(folder, frames)
    name = folder.resolve().name
    if name.startswith("."):  # a temporary one, while the run is being written
        name = str(run.record.get("name") or experiment)
    try:
        recipe = run.read(RECIPE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReportError(f"{folder / RECIPE} cannot be read ({first_line(error)}).") from error
    tasks = {
        task: _read_frames(run, TASK_TABLES, task, f"{TASKS_FOLDER}/{task}/", most_rows)
        for task in _task_names(run, frames["metrics"]["task"])
    }
    return Tables(name=name, record=run.record, recipe=recipe, frames=frames, tasks=tasks)


def first_seed(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions of the first seed, or the joint predictions of all seeds."""
    seed = predictions["seed"].iloc[0]
    return predictions[predictions["seed"].isna() if pd.isna(seed) else predictions["seed"] == seed]


def reported_split(metrics: pd.DataFrame) -> str:
    """Return the split whose metrics are reported: test if it was measured, else validation, or the only one."""
    splits = list(dict.fromkeys(metrics["split"]))
    return splits[0] if len(splits) == 1 else "test" if "test" in splits else "validation"


def selection_split(metrics: pd.DataFrame) -> str:
    """Return the split that selects epochs and variants: the held-out part of train if measured, else validation."""
    return HELD_OUT if (metrics["split"] == HELD_OUT).any() else "validation"


def _check_sentences(folder: Path, frames: Frames) -> None:
    """Raise a :class:`ReportError` unless there are cosines, and sentences are numbered from 1."""
    sentences = len(frames["sentences"])
    for table, columns in (("cosines", ("first", "second")), ("maps", ("sentence",))):
        for column in columns:
            if not frames[table][column].isin(range(1, sentences + 1)).all():
                raise ReportError(f"{folder / table}.csv: column '{column}' must be numbers from 1 to {sentences}.")
    if frames["cosines"].empty:
        raise ReportError(f"{folder / 'cosines.csv'} holds no cosines. Run 'similarity' again.")


def _task_names(run: RunFolder, order: Iterable[str]) -> list[str]:
    """Return the tasks of a multi-task run, those of ``order`` first, even if they have no folder."""
    folder = run.path / TASKS_FOLDER
    run.refuse_link(TASKS_FOLDER)
    for path in sorted(folder.glob("[!.]*")):
        if path.is_symlink() or not path.is_dir() or not TASK_NAME.fullmatch(path.name):
            expected = "expected the folder of a task, named by at most 64 letters, digits, _ and -, no sign first"
            raise ReportError(f"{folder}: {expected}; found {path.name[:80]!r}.")
    written = run.task_names()
    return list(dict.fromkeys([*filter(TASK_NAME.fullmatch, order), *written])) if written else []


def _read_frames(
    run: RunFolder, tables: Iterable[str], task: str, within: str = "", most_rows: int | None = None
) -> dict[str, pd.DataFrame]:
    """Read tables of a folder within the run; the record names the number columns of a task's predictions."""
    frames = {
        name: read_table(run, f"{within}{name}.csv", SCHEMAS[name], most_rows if name in OF_TEXTS else None)
        for name in tables
    }
    predictions, about = frames["predictions"], run.record.get("tasks")
    own = about.get(task) if isinstance(about, dict) else None
    named = own.get("numbers") if isinstance(own, dict) else None
    named = named if isinstance(named, list) else []
    texts = [name for name in map(str, predictions) if name not in SCHEMAS["predictions"].numbers]
    numbers = tuple(name for name in texts if name in named or name.startswith(PROBABILITY))
    path = run.path / f"{within}predictions.csv"
    return frames | {"predictions": with_schema(path, predictions, Schema((), numbers))}
