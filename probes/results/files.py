"""The tables of a run folder, read as if a stranger had written them.

Texts stay texts ("NA" is a word), numbers are numbers or missing, and whatever does not read is a :class:`ReportError`
that names the file.
"""

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from permafrost.data.errors import InputError
from permafrost.probes.config.names import RECIPE
from permafrost.probes.results.run_folder import RunFolder

LARGEST = 1e30
"""A number beyond this is as good as infinite, which is as good as missing: no axis can hold it."""


class ReportError(InputError):
    """A folder that no report can be drawn from."""


@dataclass(frozen=True)
class Schema:
    """Columns of a table; further ones are read as text."""

    text: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    spare_text: tuple[str, ...] = ()
    """A table without these has them empty."""

    spare_numbers: tuple[str, ...] = ()
    """A table without these has them missing in every row."""


def read_table(run: RunFolder, name: str, schema: Schema) -> pd.DataFrame:
    """A csv file with the columns of a schema at least; empty where the run wrote none of this name.

    Raises:
        ReportError: it is no table, lacks a column, or holds a word where a number belongs.
        DamageError: it is not as the run wrote it.
    """
    path, content = run.path / name, run.read(name)
    numbers = (*schema.numbers, *schema.spare_numbers)
    expected = [*schema.text, *schema.spare_text, *numbers]
    if not run.has(name):
        return pd.DataFrame({name: pd.Series(dtype="float" if name in numbers else "str") for name in expected})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frame = pd.read_csv(
                io.BytesIO(content), dtype=str, keep_default_na=False, index_col=False, encoding="utf-8",
                lineterminator="\n",
            )  # fmt: skip
    except (ValueError, Warning) as error:
        raise ReportError(f"{path} is no table that can be read ({_first_line(error)}).") from error
    return checked(path, frame, schema)


def checked(path: Path, frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """A table of texts with the columns of a schema, numbers as numbers; raises as :func:`read_table`."""
    missing = [name for name in (*schema.text, *schema.numbers) if name not in frame]
    if missing:
        raise ReportError(f"{path}: it has no column '{missing[0]}'. It has {', '.join(map(str, frame.columns))}.")
    spare = (*schema.spare_text, *schema.spare_numbers)
    frame = frame.assign(**{name: "" for name in spare if name not in frame})
    return frame.assign(**{name: _numbers(path, frame, name) for name in (*schema.numbers, *schema.spare_numbers)})


def read_words(run: RunFolder) -> str:
    """The recipe of a run as text; empty where it has none."""
    try:
        return run.read(RECIPE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReportError(f"{run.path / RECIPE} cannot be read ({_first_line(error)}).") from error


def shown_name(run: RunFolder, kind: str) -> str:
    """What a run is called: by its folder, or by its record while it is being written under a temporary name."""
    name = run.path.resolve().name
    return str(run.record.get("name") or kind) if name.startswith(".") else name


def as_numbers(texts: pd.Series) -> pd.Series:
    """Texts as finite numbers; what is none is missing."""
    values = pd.to_numeric(texts, errors="coerce").astype(float)
    return values.where(values.abs() < LARGEST)


def number(value: Any) -> float | None:
    """A finite number of a record, or None for anything else."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real and abs(value) < LARGEST and math.isfinite(value) else None


def _numbers(path: Path, frame: pd.DataFrame, name: str) -> pd.Series:
    texts = frame[name]
    bad = pd.to_numeric(texts, errors="coerce").isna() & ~texts.str.strip().str.lower().isin(["", "nan"])
    if bad.any():
        row = int(np.argmax(bad))
        raise ReportError(f"{path}: row {row + 1}, column '{name}': expected a number, got {texts.iloc[row][:40]!r}.")
    return as_numbers(texts)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
