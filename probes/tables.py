"""The tables of a run folder, read as if a stranger had written them.

A report is drawn from these and from nothing else. Texts stay texts ("NA" is a word), numbers are numbers or missing,
and whatever does not read is a :class:`ReportError` that names the file.
"""

import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.corpus import HELD_OUT, Kind
from data.errors import InputError

UNTRAINED = "raw"
"""What names of the untrained reference begin with."""

RANDOM_TARGETS = "random targets"
"""What an ablation calls its control on shuffled targets."""


class ReportError(InputError):
    """A folder that no report can be drawn from."""


@dataclass(frozen=True)
class Schema:
    """Columns of a table; further ones are read as text."""

    text: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


SCHEMAS: dict[str, Schema] = {
    "metrics": Schema(
        ("variant", "backbone", "view", "task", "split", "metric"), ("layer", "value", "low", "high", "n", "seed")
    ),
    "predictions": Schema(("target",), ("seed",)),
    "training": Schema(("variant", "phase"), ("seed", "epoch", "loss", "value")),
    "autoencoder": Schema(("variant", "plan", "view"), ("seed", "layer", "norm", "loss", "unexplained")),
    "latents": Schema(("plan", "view", "method", "label", "text"), ("layer", "x", "y", "z")),
    "ablation": Schema(
        ("kind", "name", "layers", "control", "split", "metric"),
        ("value", "low", "high", "p", "n", "parameters", "seed"),
    ),
    "trials": Schema(("state",), ("number", "value", "seconds")),
    "intermediate": Schema((), ("trial", "step", "value")),
    "importances": Schema(("parameter",), ("importance",)),
    "breakdown": Schema(("variant", "split", "kind", "group", "metric"), ("value", "low", "high", "n")),
    "layers": Schema(
        ("task", "corpus", "control", "split", "metric"),
        ("layer", "value", "low", "high", "n", "parameters", "seconds"),
    ),
}
PREDICTED: dict[str, tuple[Kind, Schema]] = {
    "answer": (
        "answers", Schema(("question", "context", "answer"), ("start", "end", "score", "exact_match", "f1"))
    ),
    "word": ("tags", Schema(("sentence", "word", "label"))),
    "label": ("class", Schema()),
    "score": ("score", Schema((), ("target", "score"))),
}  # fmt: skip
"""The column by which predictions are told -> what their rows are labelled with, and what columns they need then."""

PROBABILITY = "probability_"
"""What the columns of the probabilities of classes begin with; they are in the order of the corpus's labels."""

LARGEST = 1e30
"""A number beyond this is as good as infinite, which is as good as missing: no axis can hold it."""

TAG = re.compile(r"O|[BI]-.+", re.DOTALL)
RESULTS = ("metrics", "ablation", "trials", "layers")
"""A finished run has one of these."""


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

    @property
    def kind(self) -> Kind:
        """What the predicted rows are labelled with; none where nothing was predicted."""
        told = told_by(self.predictions)
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

    def told(self, *keys: str) -> Mapping[str, Any]:
        """A table of the record; empty where it is missing or something else."""
        found: Any = self.record
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def read_tables(folder: Path) -> Tables:
    """Read a run folder.

    Raises:
        ReportError: the run did not finish, or a file in it cannot be read.
    """
    if not (folder / "record.json").is_file():
        again = "Run the study again" if (folder / "journal.log").exists() else "Run the recipe again"
        raise ReportError(f"{folder} is no finished run: it has no record.json. {again}.")
    for path in folder.iterdir():
        if path.suffix in (".csv", ".json", ".toml") and path.is_symlink():
            raise ReportError(f"{path} is a link; a run folder holds its files itself.")
    if not any((folder / f"{name}.csv").is_file() for name in RESULTS):
        names = ", ".join(f"{name}.csv" for name in RESULTS)
        raise ReportError(f"{folder} is no finished run: it has none of {names}. Run the recipe again.")
    frames = {name: read_table(folder / f"{name}.csv", schema) for name, schema in SCHEMAS.items()}
    frames["predictions"] = _predictions(folder / "predictions.csv", frames["predictions"])
    record, name = read_record(folder / "record.json"), folder.resolve().name
    if name.startswith("."):  # the temporary name of a run that is being written
        name = str(record.get("name") or "run")
    return Tables(name, record, _text(folder / "recipe.toml"), **frames)


def read_table(path: Path, schema: Schema) -> pd.DataFrame:
    """A csv file with the columns of a schema at least; empty where there is no such file.

    Raises:
        ReportError: it is no table, lacks a column, or holds a word where a number belongs.
    """
    expected = [*schema.text, *schema.numbers]
    if not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype="float" if name in schema.numbers else "str") for name in expected})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frame = pd.read_csv(
                path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8", lineterminator="\n"
            )
    except (ValueError, OSError, Warning) as error:
        raise ReportError(f"{path} is no table that can be read ({_first_line(error)}).") from error
    return _checked(path, frame, schema)


def told_by(predictions: pd.DataFrame) -> str | None:
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


def as_numbers(texts: pd.Series) -> pd.Series:
    """Texts as finite numbers; what is none is missing."""
    values = pd.to_numeric(texts, errors="coerce").astype(float)
    return values.where(values.abs() < LARGEST)


def number(value: Any) -> float | None:
    """A finite number of a record, or None for anything else."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real and abs(value) < LARGEST and math.isfinite(value) else None


def _predictions(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Predictions with the columns of their kind."""
    told = told_by(frame)
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
    return _checked(path, frame, Schema(schema.text, (*schema.numbers, *optional)))


def _checked(path: Path, frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    missing = [name for name in (*schema.text, *schema.numbers) if name not in frame]
    if missing:
        raise ReportError(f"{path}: it has no column '{missing[0]}'. It has {', '.join(map(str, frame.columns))}.")
    return frame.assign(**{name: _numbers(path, frame, name) for name in schema.numbers})


def _numbers(path: Path, frame: pd.DataFrame, name: str) -> pd.Series:
    texts = frame[name]
    bad = pd.to_numeric(texts, errors="coerce").isna() & ~texts.str.strip().str.lower().isin(["", "nan"])
    if bad.any():
        row = int(np.argmax(bad))
        raise ReportError(f"{path}: row {row + 1}, column '{name}': expected a number, got {texts.iloc[row][:40]!r}.")
    return as_numbers(texts)


def read_record(path: Path) -> Mapping[str, Any]:
    """The record of a run; raises :class:`ReportError` where it cannot be read."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ReportError(f"{path} cannot be read ({_first_line(error)}).") from error
    if not isinstance(record, dict):
        raise ReportError(f"{path}: expected a JSON object, found {type(record).__name__}.")
    return record


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} cannot be read ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
