"""Metrics of an ablation's subsets, with bootstrap intervals over rows and a paired test against the last layer."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.probes.config.ablation import Subset, format_layers, subsets
from permafrost.probes.config.columns import Column, single_layer, view_name
from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.experiments.subset_training import Positions, SubsetTrainer
from permafrost.probes.metrics.bootstrap import BootstrapSamples, PairedDifference, paired_difference
from permafrost.probes.results.metric_row import PROBE_VARIANT, TRAINED_PARAMETERS, MetricRow
from permafrost.probes.tasks.base import Scorer
from permafrost.probes.tasks.registry import task_of
from permafrost.probes.variants.metric_rows import backbones


class SubsetMetrics:
    """Metrics of trained subsets, each measured once."""

    def __init__(self, trainer: SubsetTrainer, control: str = "", reference: "SubsetMetrics | None" = None) -> None:
        """Measure nothing yet.

        Args:
            control: as :attr:`MetricRow.control`.
            reference: metrics of the trained backbone, whose last layer subsets are tested against; default, these.
        """
        self.trainer, self.control, self.reference = trainer, control, reference or self
        self.corpus = trainer.corpus
        self._resampled: dict[tuple[Positions, str, str], BootstrapSamples | None] = {}

    def rows(self, subset: Subset, splits: Sequence[str] = ()) -> list[MetricRow]:
        """Return the number of trained parameters of a subset, and every metric that is defined.

        After each metric follows its difference to the last layer of the trained backbone alone, if there is a test.
        On validation metrics have no interval and no test.

        Args:
            splits: where it is measured; default, on validation and on the scored split.
        """
        positions, where = subset.layer_positions, self._where(subset)
        rows = [MetricRow(**where, metric=TRAINED_PARAMETERS, value=self.trainer[positions].parameters)]
        against = subset_name(subsets("single", self.reference.trainer.columns)[-1], self.reference.trainer.columns)
        for split in splits or dict.fromkeys((self.corpus.selection_split, self.corpus.test_split)):
            for metric in task_of(self.corpus).metrics:
                resampled = self._measure(positions, split, metric)
                if resampled is None:
                    continue
                on_split = where | {"split": split, "metric": metric}
                rows.append(MetricRow(**on_split, **asdict(resampled.estimate())))
                if test := self._test(positions, split, metric, resampled):
                    rows.append(MetricRow(**on_split, against=against, **asdict(test)))
        return rows

    def _where(self, subset: Subset) -> dict[str, Any]:
        """Return the fields that all rows of a subset have in common."""
        columns = [self.trainer.columns[position] for position in subset.layer_positions]
        return {
            "variant": PROBE_VARIANT,
            "backbone": backbones(self.trainer.members[0].recipe, self.trainer.columns),
            "corpus": self.corpus.name,
            "view": view_name(columns),
            "layer": single_layer(columns),
            "subset": subset_name(subset, self.trainer.columns),
            "control": self.control,
            "task": task_of(self.corpus).name,
        }

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


def subset_name(subset: Subset, columns: Sequence[Column]) -> str:
    """Return the name of a subset in the tables: ``all``, ``view NAME``, or its kind with its layers.

    Args:
        columns: all columns of the probe.
    """
    layers = format_layers([columns[position].layer for position in subset.layer_positions])
    return {"all": "all", "view": f"view {subset.name}"}.get(subset.kind, f"{subset.kind} {layers}")


def _without_interval(metric: str, answers: Sequence[NDArray[Any]], scorer: Scorer) -> BootstrapSamples | None:
    """Return the mean of a metric over seeds without resamples; None if it is undefined."""
    value = float(np.mean([scorer.value(metric, answer) for answer in answers]))
    return BootstrapSamples(value, np.empty(0), len(scorer.rows)) if np.isfinite(value) else None
