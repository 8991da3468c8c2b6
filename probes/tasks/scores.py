"""Score of a text, or of a pair of texts, such as a similarity."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plugin_registry import Registered
from permafrost.data.plugins import Metric
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.metrics.bootstrap import bootstrap_metric
from permafrost.probes.metrics.calibration import Calibration, calibrate
from permafrost.probes.metrics.metrics import pearson, spearman
from permafrost.probes.results.grid import Examples, Grid
from permafrost.probes.tasks.base import (
    Calibrated,
    Item,
    OutputSpace,
    Predict,
    Prediction,
    ResampledPair,
    Target,
)
from permafrost.probes.tasks.examples import score_errors, text_names
from permafrost.probes.tasks.rows import (
    RowScorer,
    RowTask,
    align_predictions,
    own_metric,
    predict_items,
    text_columns,
)


class ScoreScorer(RowScorer):
    """Scorer of one number per row."""

    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return the predictions ``[row]`` as they are."""
        return predictions

    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`; a correlation with a constant is undefined."""
        return math.nan if np.ptp(decoded) == 0 else super().value(metric, decoded)


class Similarity(RowTask):
    """One score per text or pair, measured by its correlation with the gold score."""

    kind = "score"
    name = "similarity"
    loss = "log_variance"
    losses = ("mse", "log_variance")
    metric = "spearman"
    metrics: ClassVar = Registered({"pearson": pearson, "spearman": spearman}, Metric, own_metric)
    heads = ("cosine", "regression")
    scorer_class = ScoreScorer
    compares_texts = True
    reference = "the cosine of latents as they are, of the last layer and of the best one on {split}"
    required = ("target", "score")
    numbers = ("target", "score", "raw")

    def check(self, corpus: Corpus) -> None:
        """Raise a :class:`CorpusError` if the scores that select are all the same, or a single one."""
        targets, split = corpus.split(corpus.selection_split).targets, corpus.selection_split
        if len(targets) < 2:
            raise CorpusError(
                f"{corpus.name}: its {split} split has {len(targets)} row, and a correlation needs two; give it more "
                "rows."
            )
        if np.ptp(targets) == 0:
            raise CorpusError(
                f"{corpus.name}: all its {split} scores are the same ({len(targets)} of them), and nothing correlates "
                "with a constant; add rows with other scores to it."
            )

    def head(self, spec: ProbeSpec, texts_per_row: int) -> str:
        """As :meth:`Task.head`: by default the cosine of two texts, and a regression from one."""
        if spec.head == "auto" and texts_per_row == 1:
            return "regression"
        if spec.head == "cosine" and texts_per_row == 1:
            raise SpecError("probe.head = 'cosine' needs two texts a row; corpus.columns names one: use 'regression'.")
        return super().head(spec, texts_per_row)

    def calibrate(self, predictions: NDArray[np.float32], corpus: Corpus, top: float) -> Calibrated | None:
        """Fit the map from raw predictions to scores in 0..1."""
        return calibrate(predictions, corpus.split(corpus.selection_split).targets, top)

    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: ScoreScorer, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return texts, target and score in the unit of the corpus, and raw prediction of every row."""
        unit = scorer.corpus.score_range or (0.0, 1.0)
        assert isinstance(calibration, Calibration)
        score, target = to_corpus_range(calibration(predictions), unit), to_corpus_range(scorer.rows.targets, unit)
        return text_columns(scorer) | {"target": target, "score": score, "raw": predictions}

    def examples(self, predictions: pd.DataFrame) -> Sequence[Grid | Examples]:
        """Return the rows with the largest errors."""
        return [score_errors(predictions)]

    def paired(self, base: pd.DataFrame, other: pd.DataFrame, metric: str) -> ResampledPair | str:
        """As :meth:`Task.paired`, by row."""
        aligned = align_predictions(base, other, [*text_names(base), "target"], ("raw", "score"))
        if isinstance(aligned, str):
            return aligned
        target = aligned[0].index.get_level_values("target").to_numpy()
        by_run = [[frame[seed].to_numpy() for seed in frame] for frame in aligned]
        return [bootstrap_metric(self.metrics[metric], seeds, target) for seeds in by_run]

    def answers(self, space: OutputSpace, items: Sequence[Item], predict: Predict) -> list[Prediction]:
        """Return a score for each item, in the unit of the corpus, and what the probe gave before calibration."""
        assert isinstance(space.calibration, Calibration)
        assert space.score_range is not None
        raw = predict_items(items, predict)
        scores = to_corpus_range(space.calibration(raw), space.score_range)
        return [{"score": float(score), "raw": float(value)} for score, value in zip(scores, raw, strict=True)]

    def parse_target(self, space: OutputSpace, value: str, column: str, spec: CorpusSpec) -> Target:
        """As :meth:`Task.parse_target`."""
        low, high = space.score_range or (0.0, 1.0)
        try:
            score = float(value)
        except ValueError:
            score = math.nan
        if not low <= score <= high:
            raise CorpusError(f"expected a score from {low:g} to {high:g} in column '{column}', got {value!r}.")
        return score

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return the score of each row, in 0..1."""
        return list(rows.targets.tolist())

    def is_complete(self, space: OutputSpace) -> bool:
        """Return whether there are a range of scores and a calibration."""
        return bool(space.score_range and isinstance(space.calibration, Calibration))


def to_corpus_range(score: NDArray[Any], corpus_range: tuple[float, float]) -> NDArray[np.float64]:
    """Rescale scores from 0..1 to the corpus's range, ``(low, high)``."""
    low, high = corpus_range
    return score * (high - low) + low
