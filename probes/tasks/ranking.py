"""Pairs to rank: the passages of each query in the order of their scores."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plugin_registry import Registered
from permafrost.data.plugins import Metric
from permafrost.probes.metrics.bootstrap import BootstrapSamples, bootstrap_ratio
from permafrost.probes.metrics.questions import question_word
from permafrost.probes.metrics.ranking import RANKING_METRICS, RankingMetric, rank_candidates, relevant_ranks
from permafrost.probes.results.grid import Examples, Grid, cell_text
from permafrost.probes.results.run_tables import first_seed
from permafrost.probes.tasks.base import (
    RANKED,
    BreakdownRow,
    Calibrated,
    Counts,
    CountScorer,
    Decoded,
    Item,
    OutputSpace,
    Predict,
    Prediction,
    ResampledPair,
    Target,
)
from permafrost.probes.tasks.examples import MOST_ERRORS
from permafrost.probes.tasks.rows import RowTask, align_predictions, call_metric, measured_ratio, predict_items

MOST_TABLE_ROWS = 100_000
"""Pairs that a prediction table holds; of more, it has the first ten of each query and the relevant ones."""

RankedQueries = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Ranks and relevances of the relevant passages, ``[query, relevant]``."""


class RankScorer(CountScorer):
    """Scorer of the order of the candidates of each query; its metrics are means over queries with a relevant one."""

    def __init__(self, metrics: Any, corpus: Corpus, split: str) -> None:
        super().__init__(metrics, corpus, split)
        self.queries = self.rows.texts[:, 0]
        self.defined = has_ranking(self.rows)
        self._recent: list[tuple[NDArray[Any], RankedQueries]] = []

    @property
    def size(self) -> int:
        """Number of queries with a relevant passage."""
        return len(np.unique(self.queries[self.rows.targets > 0]))

    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return the scores ``[row]`` as they are."""
        return predictions

    def ranks(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rank of every row; what is no candidate is ranked last."""
        targets = self.rows.targets
        return rank_candidates(np.where(targets < 0, -np.inf, scores), targets.astype(np.float64), self.queries)

    def counts(self, metric: str, decoded: NDArray[Any]) -> Counts:
        """Return the metric of every query that has a relevant passage, in ascending order of the queries, and ones."""
        ranked = next((ranked for scores, ranked in self._recent if scores is decoded), None)
        if ranked is None:
            targets = self.rows.targets.astype(np.float64)
            ranked = relevant_ranks(self.ranks(decoded), targets, self.queries)
            self._recent = [(decoded, ranked), *self._recent[:7]]  # the scores of a few seeds, for all metrics
        values = self.metrics[metric](*ranked)
        return values, np.ones(len(values))

    def resampled(self, metric: str, decoded: Decoded) -> BootstrapSamples | None:
        """As :meth:`Scorer.resampled`, over queries; None if there is nothing to rank."""
        return super().resampled(metric, decoded) if self.defined else None

    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`."""
        return super().value(metric, decoded) if self.defined else float("nan")


def has_ranking(rows: Rows) -> bool:
    """Return whether a query has both a relevant passage and another one."""
    relevant, other = (rows.texts[side, 0] for side in (rows.targets > 0, rows.targets == 0))
    return bool(np.isin(relevant, other).any())


def _of_queries(name: str, part: Metric) -> RankingMetric:
    """Return a metric from outside of the relevant passages of one query."""

    def metric(ranks: NDArray[np.float64], relevances: NDArray[np.float64]) -> NDArray[np.float64]:
        queries = zip(ranks, relevances, np.isfinite(ranks), strict=True)
        return np.array([call_metric(name, part, first[found], second[found]) for first, second, found in queries])

    return metric


class Ranking(RowTask):
    """The candidates of each query in the order of their cosines with it."""

    kind = "rank"
    name = "ranking"
    unit = "queries"
    loss = "multiple_negatives_ranking"
    losses = ("multiple_negatives_ranking",)
    metric = "ndcg@10"
    metrics: ClassVar = Registered(RANKING_METRICS, Metric, _of_queries)
    heads = ("cosine",)
    scorer_class = RankScorer
    text_counts = (2,)
    compares_texts = True
    reference = "the cosine of latents as they are, of the last layer and of the best one on {split}"
    required = ("query", "passage", "target", "score", "rank")
    numbers = ("target", "score", "rank")

    def check(self, corpus: Corpus) -> None:
        """Raise a :class:`CorpusError` if there is nothing to rank in the split that selects."""
        split = corpus.selection_split
        if not has_ranking(corpus.split(split)):
            raise CorpusError(
                f"{corpus.name}: no {split} query has both a relevant passage and another one, so there is nothing to "
                "rank; add pairs with relevance 0, or leave out those of all splits to rank all passages."
            )

    def text_names(self, texts_per_row: int) -> Item:
        """As :meth:`Task.text_names`."""
        return RANKED

    def breakdown(self, scorer: RankScorer, decoded: Decoded) -> Iterator[BreakdownRow]:
        """Yield the metrics of the queries with each question word, the most frequent first; nothing for one word."""
        relevant = np.unique(scorer.queries[scorer.rows.targets > 0])
        words = np.array([question_word(str(scorer.corpus.texts[query])) for query in relevant])
        by_metric = {metric: [scorer.counts(metric, scores)[0] for scores in decoded] for metric in self.metrics}
        groups = list(pd.Series(words).value_counts().index)
        for word in groups if len(groups) > 1 and scorer.defined else ():
            ones = np.ones(int((words == word).sum()))
            for metric, by_seed in by_metric.items():
                counts = [(values[words == word], ones) for values in by_seed]
                yield BreakdownRow("question word", str(word), metric, measured_ratio(counts, len(ones)))

    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: RankScorer, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return query, passage, relevance, score and rank within the query, of every candidate."""
        rows, ranks = scorer.rows, scorer.ranks(predictions)
        shown = rows.targets >= 0
        if shown.sum() > MOST_TABLE_ROWS:
            shown &= (ranks <= 10) | (rows.targets > 0)
        columns = ([str(scorer.corpus.texts[index]) for index in column] for column in rows.texts[shown].T)
        texts = dict(zip(RANKED, columns, strict=True))
        return texts | {"target": rows.targets[shown], "score": predictions[shown], "rank": ranks[shown]}

    def examples(self, predictions: pd.DataFrame) -> Sequence[Grid | Examples]:
        """Return the queries whose first relevant passage has the lowest rank."""
        ordered = first_seed(predictions).sort_values("rank", kind="stable")
        first, relevant = (rows.groupby("query").first() for rows in (ordered, ordered[ordered["target"] > 0]))
        worst = relevant[relevant["rank"] > 1].nlargest(MOST_ERRORS, "rank")
        lines = [
            [cell_text(query), cell_text(top), cell_text(row["passage"]), f"{row['rank']:,.0f}"]
            for (query, row), top in zip(worst.iterrows(), first.loc[worst.index, "passage"], strict=True)
        ]
        caption = "Queries whose first relevant passage has the lowest rank, of the first seed."
        return [
            Grid(
                caption=caption if lines else "The first passage of every query is relevant.",
                heads=["query", "ranked first", "first relevant passage", "its rank"],
                rows=lines,
                text_columns=3,
                sentences=True,
            )
        ]

    def paired(self, base: pd.DataFrame, other: pd.DataFrame, metric: str) -> ResampledPair | str:
        """As :meth:`Task.paired`, by query."""
        base, other = (table[table["target"] > 0] for table in (base, other))
        aligned = align_predictions(base, other, [*RANKED, "target"], ["rank"])
        if isinstance(aligned, str):
            return aligned
        index = aligned[0].index
        targets = index.get_level_values("target").to_numpy(np.float64)
        queries = pd.factorize(index.get_level_values("query"))[0].astype(np.int64)
        resampled = []
        for frame in aligned:
            values = [self.metrics[metric](*relevant_ranks(frame[seed].to_numpy(), targets, queries)) for seed in frame]
            resampled.append(bootstrap_ratio([(of_seed, np.ones(len(of_seed))) for of_seed in values]))
        return resampled

    def answers(self, space: OutputSpace, items: Sequence[Item], predict: Predict) -> list[Prediction]:
        """Return the score of each pair."""
        return [{"score": float(score)} for score in predict_items(items, predict)]

    def compared(self, items: Sequence[Item], answers: list[Prediction]) -> list[Prediction]:
        """Return the answers with the rank of each pair among those of its query, from 1; equal scores share one."""
        scores = defaultdict[str, list[float]](list)
        for item, answer in zip(items, answers, strict=True):
            scores[item[0]].append(answer["score"])
        return [
            answer | {"rank": 1 + sum(score > answer["score"] for score in scores[item[0]])}
            for item, answer in zip(items, answers, strict=True)
        ]

    def parse_target(self, space: OutputSpace, value: str, column: str, spec: CorpusSpec) -> Target:
        """As :meth:`Task.parse_target`."""
        try:
            return float(value)
        except ValueError:
            raise CorpusError(f"expected a relevance in column '{column}', 0 or above, got {value!r}.") from None

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return the relevance of each pair."""
        return list(rows.targets.tolist())

    def is_complete(self, space: OutputSpace) -> bool:
        """Return that a ranking needs no names and no calibration."""
        return True
