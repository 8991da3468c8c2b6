"""Metrics of an ablation's subsets, with bootstrap intervals over rows and a paired test against the last layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.probes.config.ablation import Subset, format_layers
from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.experiments.subset_training import Positions, SubsetTrainer
from permafrost.probes.metrics.bootstrap import BootstrapSamples, PairedDifference, paired_difference
from permafrost.probes.tasks.base import Scorer
from permafrost.probes.tasks.registry import task_of


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One row of ``ablation.csv``."""

    kind: str
    """all, single, without, prefix, suffix, view, greedy or backbone."""

    name: str
    """The layer, view or backbone of the subset; for greedy, the layer that was selected last."""

    layers: str
    control: str
    """Empty, ``untrained`` or ``random targets``."""

    split: str
    metric: str
    value: float
    """Mean over seeds, or of their mean prediction."""

    low: float | None
    high: float | None
    p: float | None
    """Two-sided, of the difference from the last layer of the trained backbone alone, on the same rows."""

    n: int
    parameters: int
    seed: int | None = None
    """Empty: every value is of all seeds."""


class SubsetMetrics:
    """Metrics of trained subsets, each measured once."""

    def __init__(self, trainer: SubsetTrainer, control: str = "", reference: "SubsetMetrics | None" = None) -> None:
        """Measure nothing yet.

        Args:
            control: as :attr:`AblationRow.control`.
            reference: metrics of the trained backbone, whose last layer subsets are tested against; default, these.
        """
        self.trainer, self.control, self.reference = trainer, control, reference or self
        self.corpus = trainer.corpus
        self._resampled: dict[tuple[Positions, str, str], BootstrapSamples | None] = {}

    def rows(self, subset: Subset, splits: Sequence[str] = ()) -> list[AblationRow]:
        """Return a row for every metric of a subset that is defined; on validation without interval.

        Args:
            splits: where it is measured; default, on validation and on the scored split.
        """
        positions = subset.layer_positions
        layers = format_layers([self.trainer.columns[position].layer for position in positions])
        rows = []
        for split in splits or dict.fromkeys((self.corpus.selection_split, self.corpus.test_split)):
            for metric in task_of(self.corpus).metrics:
                resampled = self._measure(positions, split, metric)
                if resampled is None:
                    continue
                measured = resampled.estimate()
                test = self._test(positions, split, metric, resampled)
                rows.append(
                    AblationRow(
                        kind=subset.kind,
                        name=subset.name,
                        layers=layers,
                        control=self.control,
                        split=split,
                        metric=metric,
                        value=resampled.value,
                        low=measured.low,
                        high=measured.high,
                        p=test.p if test else None,
                        n=resampled.n,
                        parameters=self.trainer[positions].parameters,
                    )
                )
        return rows

    def _test(
        self, positions: Positions, split: str, metric: str, resampled: BootstrapSamples
    ) -> PairedDifference | None:
        """Test a metric against that of the reference's last layer; None for that layer itself and random targets."""
        is_reference = self.reference is self and positions == self.trainer.last_layer
        if is_reference or self.control == RANDOM_TARGETS:
            return None
        reference = self.reference._measure(self.reference.trainer.last_layer, split, metric)
        return paired_difference(reference, resampled) if reference else None

    def _measure(self, positions: Positions, split: str, metric: str) -> BootstrapSamples | None:
        key = (positions, split, metric)
        if key not in self._resampled:
            answers, scorer = self.trainer[positions].answers[split], self.trainer.scorers[split]
            if split in (self.corpus.test_split, "train"):
                self._resampled[key] = scorer.resampled(metric, answers)
            else:
                self._resampled[key] = _without_interval(metric, answers, scorer)
        return self._resampled[key]


def _without_interval(metric: str, answers: Sequence[NDArray[Any]], scorer: Scorer) -> BootstrapSamples | None:
    """Return the mean of a metric over seeds without resamples; None if it is undefined."""
    value = float(np.mean([scorer.value(metric, answer) for answer in answers]))
    return BootstrapSamples(value, np.empty(0), len(scorer.rows)) if np.isfinite(value) else None
