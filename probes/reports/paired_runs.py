"""Paired resampling of two runs: the metric of both on the same bootstrap resamples of the rows that both predicted."""

from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Spans
from permafrost.data.corpora.records import Kind
from permafrost.data.ragged import offsets_from_lengths
from permafrost.probes.config.names import CORRELATIONS, PROBABILITY
from permafrost.probes.metrics.bootstrap import BootstrapSamples, bootstrap_metric, bootstrap_ratio
from permafrost.probes.metrics.entities import entity_counts
from permafrost.probes.metrics.metrics import METRICS
from permafrost.probes.results.run_tables import Tables

ResampledPair = Sequence[BootstrapSamples | None]
"""Of the first and of the second run; None if the metric is undefined."""


def paired_resamples(base: Tables, run: Tables) -> ResampledPair | str:
    """Return the metric of two runs over the same resamples of rows; or a phrase that says why it cannot be paired."""
    metrics, resample_pair = PAIRS.get(base.kind, (METRICS, None))
    if base.metric != run.metric or run.metric not in metrics:
        return "another metric"
    if resample_pair is None or run.kind == "none":
        return "no predictions"
    if base.kind != run.kind or base.split != run.split:
        return "not the same rows"
    return resample_pair(base, run)


def _resample_rows(base: Tables, run: Tables) -> ResampledPair | str:
    """Resample scores or classes by row."""
    texts = [name for name in ("sentence", "sentence1", "sentence2") if name in base["predictions"]]
    columns = ("raw", "score") if base.metric in CORRELATIONS else ("label", "score")
    aligned = _align(base, run, [*texts, "target"], columns)
    if isinstance(aligned, str):
        return aligned
    target = aligned[0].index.get_level_values("target").to_numpy()
    by_run: list[list[NDArray[Any]]] = [[frame[seed].to_numpy() for seed in frame] for frame in aligned]
    if base.kind == "class":
        index = {name: position for position, name in enumerate(_classes(base, run))}
        target = np.array([index[name] for name in target.astype(str)])
        by_run = [[np.array([index[name] for name in labels.astype(str)]) for labels in seeds] for seeds in by_run]
    return [bootstrap_metric(base.metric, seeds, target) for seeds in by_run]


def _classes(base: Tables, run: Tables) -> list[str]:
    """The classes that occur in either run, in the order of the corpus, which the columns of probabilities keep."""
    tables = (base["predictions"], run["predictions"])
    ordered = [str(name).removeprefix(PROBABILITY) for name in base["predictions"] if str(name).startswith(PROBABILITY)]
    present = sorted({name for table in tables for column in ("target", "label") for name in table[column]})
    return list(dict.fromkeys([*ordered, *present]))


def _resample_answers(base: Tables, run: Tables) -> ResampledPair | str:
    """Resample answers by question; each row holds its own metrics."""
    aligned = _align(base, run, ["question", "context", "target"], (base.metric,))
    if isinstance(aligned, str):
        return aligned
    ones = np.ones(len(aligned[0]))
    return [bootstrap_ratio([(frame[seed].to_numpy(), ones) for seed in frame]) for frame in aligned]


def _resample_sentences(base: Tables, run: Tables) -> ResampledPair | str:
    """Resample tags by sentence; both runs must have the same sentences in the same order."""
    by_run = [
        [seed_rows for _, seed_rows in tables["predictions"].groupby("seed", sort=False, dropna=False)]
        for tables in (base, run)
    ]
    every_seed = [*by_run[0], *by_run[1]]
    first = every_seed[0][["sentence", "word", "target"]].to_numpy()
    for rows in every_seed:
        if not np.array_equal(rows[["sentence", "word", "target"]].to_numpy(), first):
            return "not the same rows"
    labels = sorted({tag for rows in every_seed for tag in (*rows["target"], *rows["label"])})
    sentences = every_seed[0]["sentence"].to_numpy()
    ends = np.append(np.flatnonzero(sentences[1:] != sentences[:-1]) + 1, len(sentences))
    offsets = offsets_from_lengths(np.diff(ends, prepend=0))
    return [bootstrap_ratio([_counts(rows, offsets, labels, base.metric) for rows in seeds]) for seeds in by_run]


def _counts(
    rows: pd.DataFrame, offsets: NDArray[np.int64], labels: Sequence[str], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator and denominator of a metric by sentence, ``[sentence]`` each."""
    predicted, gold = (np.searchsorted(labels, rows[name].to_numpy().astype(str)) for name in ("label", "target"))
    if metric == "accuracy":
        right = np.add.reduceat((predicted == gold).astype(np.float64), offsets[:-1])
        return right, np.diff(offsets).astype(np.float64)
    counts = entity_counts(predicted, Spans(np.zeros((len(gold), 2), np.int64), gold, offsets), labels)
    predicted_count, gold_count, both = counts.sum(1).astype(np.float64).T
    denominators = {"precision": predicted_count, "recall": gold_count}
    return both, denominators.get(metric, (predicted_count + gold_count) / 2)


PAIRS: dict[Kind, tuple[Container[str], Callable[[Tables, Tables], ResampledPair | str]]] = {
    "score": (METRICS, _resample_rows),
    "class": (METRICS, _resample_rows),
    "tags": (("f1", "precision", "recall", "accuracy"), _resample_sentences),
    "answers": (("f1", "exact_match"), _resample_answers),
}
"""Kind of predictions -> the metrics that can be paired, and the function that resamples them."""


def _align(
    base: Tables, run: Tables, keys: Sequence[str], columns: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame] | str:
    """``[row, seed]`` of each run, in the order of the first, indexed by keys and a count of repeats."""
    first, second = (_rows_by_seed(tables["predictions"], keys, columns) for tables in (base, run))
    if first is None or second is None:
        return "no predictions"
    if len(first) != len(second) or not first.index.sort_values().equals(second.index.sort_values()):
        return "not the same rows"
    return first, second.loc[first.index]


def _rows_by_seed(table: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pd.DataFrame | None:
    """``[row, seed]`` of the first of some columns; None if it or a value is missing."""
    column = next((name for name in columns if name in table), None)
    if column is None or len(keys) < 2 or not set(keys) <= set(table):
        return None
    table = table.assign(seed=table["seed"].fillna(-1))
    table = table.assign(repeat=table.groupby([*keys, "seed"]).cumcount())
    by_seed = table.pivot(index=[*keys, "repeat"], columns="seed", values=column)
    return None if by_seed.isna().to_numpy().any() else by_seed
