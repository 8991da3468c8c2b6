"""Two runs on the same rows: their predictions as figures over the same resampled rows, drawn from the tables alone."""

from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Spans
from permafrost.data.corpora.records import Kind
from permafrost.data.ragged import bounds
from permafrost.probes.config.names import CORRELATIONS, PROBABILITY
from permafrost.probes.metrics.bootstrap import Resampled, resample, resample_ratio
from permafrost.probes.metrics.entities import entity_counts
from permafrost.probes.metrics.metrics import METRICS
from permafrost.probes.results.run_tables import Tables

Side = Sequence[Resampled | None]


def resampled(base: Tables, run: Tables) -> Side | str:
    """The chosen metric of two runs over the same resampled rows; or why there is none, in words."""
    metrics, pair = PAIRS.get(base.kind, (METRICS, None))
    if base.metric != run.metric or run.metric not in metrics:
        return "another metric"
    if pair is None or run.kind == "none":
        return "no predictions"
    if base.kind != run.kind or base.split != run.split:
        return "not the same rows"
    return pair(base, run)


def _rows(base: Tables, run: Tables) -> Side | str:
    """Scores and classes."""
    texts = [name for name in ("sentence", "sentence1", "sentence2") if name in base.predictions]
    columns = ("raw", "score") if base.metric in CORRELATIONS else ("label", "score")
    found = _aligned(base, run, [*texts, "target"], columns)
    if isinstance(found, str):
        return found
    target = found[0].index.get_level_values("target").to_numpy()
    sides: list[list[NDArray[Any]]] = [[frame[seed].to_numpy() for seed in frame] for frame in found]
    if base.kind == "class":
        code = {name: place for place, name in enumerate(_classes(base, run))}
        target = np.array([code[name] for name in target.astype(str)])
        sides = [[np.array([code[name] for name in column.astype(str)]) for column in side] for side in sides]
    return [resample(base.metric, side, target) for side in sides]


def _classes(base: Tables, run: Tables) -> list[str]:
    """The classes that occur in either run, in the corpus's order, which the columns of probabilities keep."""
    tables = (base.predictions, run.predictions)
    told = [str(name).removeprefix(PROBABILITY) for name in base.predictions if str(name).startswith(PROBABILITY)]
    said = sorted({name for table in tables for column in ("target", "label") for name in table[column]})
    return list(dict.fromkeys([*told, *said]))


def _answers(base: Tables, run: Tables) -> Side | str:
    """Answers, each row of which has been judged."""
    found = _aligned(base, run, ["question", "context", "target"], (base.metric,))
    if isinstance(found, str):
        return found
    ones = np.ones(len(found[0]))
    return [resample_ratio([(frame[seed].to_numpy(), ones) for seed in frame]) for frame in found]


def _tags(base: Tables, run: Tables) -> Side | str:
    """Tagged sentences, the same ones in the same order."""
    sides = [[part for _, part in one.predictions.groupby("seed", sort=False, dropna=False)] for one in (base, run)]
    first = sides[0][0][["sentence", "word", "target"]].to_numpy()
    for part in (*sides[0], *sides[1]):
        if not np.array_equal(part[["sentence", "word", "target"]].to_numpy(), first):
            return "not the same rows"
    labels = sorted({tag for part in (*sides[0], *sides[1]) for tag in (*part["target"], *part["label"])})
    sentences = sides[0][0]["sentence"].to_numpy()
    ends = np.append(np.flatnonzero(sentences[1:] != sentences[:-1]) + 1, len(sentences))
    offsets = bounds(np.diff(ends, prepend=0))
    return [resample_ratio([_counts(part, offsets, labels, base.metric) for part in side]) for side in sides]


def _counts(
    rows: pd.DataFrame, offsets: NDArray[np.int64], labels: Sequence[str], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    said, true = (np.searchsorted(labels, rows[name].to_numpy().astype(str)) for name in ("label", "target"))
    if metric == "accuracy":
        right = np.add.reduceat((said == true).astype(np.float64), offsets[:-1])
        return right, np.diff(offsets).astype(np.float64)
    counts = entity_counts(said, Spans(np.zeros((len(true), 2), np.int64), true, offsets), labels)
    said_of, true_of, both = counts.sum(1).astype(np.float64).T
    return both, {"precision": said_of, "recall": true_of}.get(metric, (said_of + true_of) / 2)


PAIRS: dict[Kind, tuple[Container[str], Callable[[Tables, Tables], Side | str]]] = {
    "score": (METRICS, _rows),
    "class": (METRICS, _rows),
    "tags": (("f1", "precision", "recall", "accuracy"), _tags),
    "answers": (("f1", "exact_match"), _answers),
}
"""What predictions are of -> the metrics that can be paired, and how."""


def _aligned(
    base: Tables, run: Tables, keys: Sequence[str], columns: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame] | str:
    """``[row, seed]`` of each, in the order of the first; indexed by keys and how often these came before."""
    first, second = (_wide(one.predictions, keys, columns) for one in (base, run))
    if first is None or second is None:
        return "no predictions"
    if len(first) != len(second) or not first.index.sort_values().equals(second.index.sort_values()):
        return "not the same rows"
    return first, second.loc[first.index]


def _wide(table: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pd.DataFrame | None:
    said = next((name for name in columns if name in table), None)
    if said is None or len(keys) < 2 or not set(keys) <= set(table):
        return None
    table = table.assign(seed=table["seed"].fillna(-1))
    table = table.assign(again=table.groupby([*keys, "seed"]).cumcount())
    wide = table.pivot(index=[*keys, "again"], columns="seed", values=said)
    return None if wide.isna().to_numpy().any() else wide
