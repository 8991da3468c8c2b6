"""The tables of a run folder: their columns, and reading with validation against a :class:`Schema`.

Text columns stay text ("NA" is a word), number columns hold finite numbers or NaN, and a file that cannot be read
raises a :class:`ReportError` that names it.
"""

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from permafrost.data.errors import first_line
from permafrost.data.text import unquote_formula
from permafrost.probes.config.names import RECIPE
from permafrost.probes.results.run_folder import ReportError, RunFolder

LARGEST = 1e30
"""Numbers of at least this magnitude are read as missing, as infinite ones are: no axis can show them."""


@dataclass(frozen=True)
class Schema:
    """Columns of a table; columns that it does not name are read as text."""

    text: tuple[str, ...] = ()
    """Required text columns."""

    numbers: tuple[str, ...] = ()
    """Required number columns."""

    spare_text: tuple[str, ...] = ()
    """Optional text columns; empty if the table lacks them."""

    spare_numbers: tuple[str, ...] = ()
    """Optional number columns; NaN if the table lacks them."""


SCHEMAS: dict[str, Schema] = {
    "metrics": Schema(
        ("variant", "against", "backbone", "corpus", "view", "subset", "control", "task", "split", "metric"),
        ("layer", "value", "low", "high", "p", "n", "seed"),
    ),
    "predictions": Schema(("target",), ("seed",)),
    "training": Schema(("variant", "phase"), ("seed", "epoch", "loss", "value"), ("task",), ("weight",)),
    "autoencoder": Schema(("variant", "plan", "view"), ("seed", "layer", "norm", "loss", "unexplained")),
    "latents": Schema(("plan", "view", "method", "label", "text"), ("layer", "x", "y", "z")),
    "trials": Schema(("state",), ("number", "value", "seconds")),
    "intermediate": Schema((), ("trial", "step", "value")),
    "importances": Schema(("parameter",), ("importance",)),
    "breakdown": Schema(("variant", "split", "kind", "group", "metric"), ("value", "low", "high", "n")),
    "epochs": Schema(("variant", "task", "metric"), ("seed", "epoch", "value")),
    "conflicts": Schema(("variant", "first", "second"), ("seed", "epoch", "cosine", "conflict")),
    "frozen": Schema(("variant", "component"), ("seed", "epoch")),
    "calibration": Schema(("variant", "split", "stage", "metric"), ("temperature", "value", "low", "high", "n")),
    "reliability": Schema(("variant", "split", "stage"), ("confidence", "accuracy", "n")),
    "confusion": Schema(("variant", "target", "label"), ("n",)),
    "losses": Schema((), ("step", "loss")),
    "cosines": Schema(("backbone",), ("first", "second", "cosine")),
    "sentences": Schema(("text",), ("sentence",)),
    "maps": Schema(("map", "backbone", "method"), ("sentence", "x", "y", "z")),
}
"""Table name -> schema; the file is ``<name>.csv``."""

TASK_TABLES = ("predictions", "breakdown", "confusion", "calibration", "reliability")
"""Tables in the folder of one task of a multi-task run."""

NEEDED = {
    "run": ("metrics.csv",),
    "multitask": ("metrics.csv",),
    "layers": ("metrics.csv",),
    "ablation": ("metrics.csv",),
    "study": ("trials.csv",),
    "evaluation": ("metrics.csv",),
    "similarity": ("cosines.csv", "sentences.csv", "maps.csv"),
    "pretraining": ("losses.csv", "metrics.csv", RECIPE),
}
"""Experiment, as the record names it -> files that every finished run of it has."""


def read_table(run: RunFolder, name: str, schema: Schema, most_rows: int | None = None) -> pd.DataFrame:
    """Read a csv file of a run; an empty table with the columns of the schema if the run wrote no such file.

    Args:
        most_rows: rows to read, from the first; None reads all.

    Raises:
        ReportError: the file is no table, lacks a column, or has text in a number column.
        DamageError: the file differs from what the run wrote.
    """
    path, content = run.path / name, run.read(name)
    columns = [*schema.text, *schema.spare_text, *schema.numbers, *schema.spare_numbers]
    frame = pd.DataFrame(columns=columns, dtype="str")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if run.has(name):
                frame = pd.read_csv(
                    io.BytesIO(content), dtype=str, keep_default_na=False, index_col=False, encoding="utf-8",
                    lineterminator="\n", nrows=most_rows,
                )  # fmt: skip
                frame = with_texts(frame, unquote_formula)
    except (ValueError, Warning) as error:
        raise ReportError(f"{path} is no table that can be read ({first_line(error)}).") from error
    return with_schema(path, frame, schema)


def with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with all of its texts changed."""
    changed = {
        str(name): table[name].map(lambda value: change(value) if isinstance(value, str) else value)
        for name in table.select_dtypes(exclude="number")
    }
    return table.assign(**changed)


def with_schema(path: Path, frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return a table of texts with all columns of a schema, number columns parsed; raises as :func:`read_table`."""
    missing = [name for name in (*schema.text, *schema.numbers) if name not in frame]
    if missing:
        raise ReportError(f"{path}: it has no column '{missing[0]}'. It has {', '.join(map(str, frame.columns))}.")
    optional = (*schema.spare_text, *schema.spare_numbers)
    frame = frame.assign(**{name: "" for name in optional if name not in frame})
    numbers = (*schema.numbers, *schema.spare_numbers)
    parsed = {name: _number_column(path, frame, name) for name in numbers}
    return pd.DataFrame({name: parsed.get(str(name), frame[name]) for name in frame}, index=frame.index)


def as_numbers(texts: pd.Series) -> pd.Series:
    """Return texts as finite numbers; NaN if a text is none."""
    values = pd.to_numeric(texts, errors="coerce").astype(float)
    return values.where(values.abs() < LARGEST)


def number(value: Any) -> float | None:
    """Return a finite number of a record as float, or None for any other value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < LARGEST and math.isfinite(value) else None


def _number_column(path: Path, frame: pd.DataFrame, name: str) -> pd.Series:
    texts = frame[name]
    invalid = pd.to_numeric(texts, errors="coerce").isna() & ~texts.str.strip().str.lower().isin(["", "nan"])
    if invalid.any():
        row = int(np.argmax(invalid))
        raise ReportError(f"{path}: row {row + 1}, column '{name}': expected a number, got {texts.iloc[row][:40]!r}.")
    return as_numbers(texts)
