"""Reading of the result of a finished run from its folder; needs neither torch nor pandas."""

import csv
import io
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from permafrost.data.settings.toml import read_toml
from permafrost.data.spec import parse
from permafrost.data.text import unquote_formula
from permafrost.probes.config.names import BEST, RECIPE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyResult
from permafrost.probes.results.run_folder import RunError, RunFolder

METRICS = "metrics.csv"


def read_result(path: Path) -> RunResult:
    """Return the result of a run that trained, as the command that wrote it returned it.

    Raises:
        InputError: the folder is no finished run of this version.
        DamageError: a file differs from what the run wrote.
    """
    folder = RunFolder(path, RunError)
    record = folder.record
    return RunResult(
        path=path,
        seconds=record["seconds"]["all"],
        texts=record["texts"],
        texts_distinct=record["texts_distinct"],
        texts_run=record["texts_run"],
        selected=str(record.get("selected", "")),
        parameters=record.get("parameters", {}),
        backbone_parameters=record.get("backbone_parameters", {}),
        metrics=read_metrics(folder),
    )


def read_study(path: Path) -> StudyResult:
    """Return the result of a finished study, as the command that wrote it returned it; errors as above."""
    record = RunFolder(path, RunError).record
    return StudyResult(
        study=record["study"],
        folder=path,
        trials=record["trials"],
        refused=record["refused"],
        number=record["best"]["number"],
        value=record["best"]["value"],
        params=record["best"]["params"],
        recipe=path / BEST,
        seconds=record["seconds"]["session"],
    )


def read_recipe(folder: RunFolder) -> Recipe:
    """Return the recipe of a run as its folder holds it."""
    source = str(folder.path / RECIPE)
    return parse(Recipe, read_toml(folder.read(RECIPE).decode("utf-8"), source), source)


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.csv`` with the types of :class:`MetricRow`."""
    from permafrost.probes.results.metric_row import MetricRow  # loads pandas

    hints = get_type_hints(MetricRow)
    types = {field.name: hints[field.name] for field in fields(MetricRow)}
    lines = csv.DictReader(io.StringIO(folder.read(METRICS).decode("utf-8"), newline=""))
    return [{name: _parse(line[name], kind) for name, kind in types.items()} for line in lines]


def _parse(text: str, kind: Any) -> Any:
    if kind is str:
        return unquote_formula(text)
    if not text:
        return float("nan") if kind is float else None
    return float(text) if kind in (float, float | None) else int(text)


def read_similarity(path: Path) -> SimilarityResult:
    """Return the result of a comparison of sentences, as the command that wrote it returned it; errors as above."""
    import pandas as pd

    from permafrost.probes.metrics.cosines import matrix_from_pairs

    folder = RunFolder(path, RunError)
    types = {"backbone": str, "first": int, "second": int, "cosine": float}
    lines = csv.DictReader(io.StringIO(folder.read("cosines.csv").decode("utf-8"), newline=""))
    cosines = pd.DataFrame(
        [{name: _parse(line[name], kind) for name, kind in types.items()} for line in lines], columns=list(types)
    )
    texts, backbones = read_recipe(folder).similarity.texts, folder.record["backbones"]
    numbers = pd.RangeIndex(1, len(texts) + 1, name="sentence")
    return SimilarityResult(
        path=path,
        cosines=cosines,
        tables={
            backbone: pd.DataFrame(matrix_from_pairs(cosines, backbone, len(texts)), numbers, numbers)
            for backbone in backbones
        },
        texts=texts,
        backbones=tuple(backbones),
        refused=folder.record["refused"],
        texts_run=folder.record["texts_run"],
        seconds=folder.record["seconds"]["all"],
    )
