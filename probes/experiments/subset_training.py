"""Training of an ablation: a recipe's probe on subsets of its columns, each distinct subset once with every seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.probes.config.ablation import Subset, subsets
from permafrost.probes.config.columns import Column
from permafrost.probes.models.probe import stack
from permafrost.probes.tasks.base import Scorer
from permafrost.probes.tasks.registry import loss_and_metric, mean_prediction, predictions, scorer_of, task_of
from permafrost.probes.variants.members import MemberConfig, TrainedMember, train_each

Positions = tuple[int, ...]
"""A subset of columns, as ascending indices into all columns of the recipe."""


@dataclass(frozen=True, eq=False)
class SubsetResult:
    """One subset of columns, trained with every seed."""

    parameters: int
    """Number of trained parameters per seed."""

    value: float
    """Selection metric on validation: the mean over seeds, or of their mean prediction; -inf if it is undefined."""

    answers: Mapping[str, Sequence[NDArray[Any]]]
    """Split -> decoded predictions (see :meth:`Scorer.decode`) of each seed, or of their mean prediction alone."""


class SubsetTrainer:
    """Trainer of a probe on subsets of columns, and a mapping: positions of the columns -> :class:`SubsetResult`."""

    def __init__(self, members: Sequence[MemberConfig], corpus: Corpus, progress: Progress) -> None:
        """Create a trainer that has trained nothing yet.

        Args:
            members: ``[seed]``, on all columns of the recipe.
        """
        self.members, self.corpus, self.progress = members, corpus, progress
        self.columns: tuple[Column, ...] = members[0].inputs.columns
        self.scorers: dict[str, Scorer] = {split: scorer_of(corpus, split) for split in corpus.splits}
        self._results: dict[Positions, SubsetResult] = {}

    def train(self, wanted: Iterable[Positions], label: str) -> None:
        """Train the subsets that are not trained yet.

        Args:
            label: of the progress bar.
        """
        missing = [positions for positions in dict.fromkeys(wanted) if positions not in self._results]
        configs = [replace(member, layers=positions) for positions in missing for member in self.members]
        trained: dict[Positions, list[TrainedMember]] = {}
        with self.progress.bar(label, len(configs)) as advance:
            for index, member in train_each(configs, self.corpus):
                positions = configs[index].layers
                trained.setdefault(positions, []).append(member)
                if len(trained[positions]) == len(self.members):
                    self._results[positions] = _subset_result(trained.pop(positions), self.corpus, self.scorers)
                advance(1)

    def __getitem__(self, positions: Positions) -> SubsetResult:
        return self._results[positions]

    @property
    def last_layer(self) -> Positions:
        """The last layer alone."""
        return subsets("single", self.columns)[-1].layer_positions

    def select_greedily(self, max_layers: int) -> list[Subset]:
        """Select layers one by one: the best on validation, then the one that improves on it most, and so on."""
        candidates = {int(single.name): single.layer_positions for single in subsets("single", self.columns)}
        selected: set[int] = set()
        steps: list[Subset] = []
        while candidates and len(steps) < max_layers:
            extended = {layer: tuple(sorted(selected | set(positions))) for layer, positions in candidates.items()}
            self.train(extended.values(), f"greedy selection, step {len(steps) + 1}")
            best = max(extended, key=lambda layer: self[extended[layer]].value)
            selected |= set(candidates.pop(best))
            steps.append(Subset("greedy", str(best), extended[best]))
        return steps


def _subset_result(seeds: Sequence[TrainedMember], corpus: Corpus, scorers: Mapping[str, Scorer]) -> SubsetResult:
    answers = _answers(seeds, scorers)
    recipe = seeds[0].recipe
    if any(seed.history.best_epoch < 0 for seed in seeds):
        value = -math.inf
    elif recipe.train.average:
        _, metric = loss_and_metric(recipe, task_of(corpus))
        value = scorers[corpus.selection_split].value(metric, answers[corpus.selection_split][0])
    else:
        value = float(np.mean([seed.history.best_value for seed in seeds]))
    return SubsetResult(seeds[0].parameters, value, answers)


def _answers(seeds: Sequence[TrainedMember], scorers: Mapping[str, Scorer]) -> dict[str, list[NDArray[Any]]]:
    """Return split -> answers of each seed, or of their mean prediction; splits of the same rows are predicted once."""
    average, inputs = seeds[0].recipe.train.average, seeds[0].inputs
    stacked = stack([seed.probe for seed in seeds]).eval() if average and len(seeds) > 1 else seeds[0].probe
    answers: dict[str, list[NDArray[Any]]] = {}
    with torch.inference_mode():
        for split, scorer in scorers.items():
            same = next((other for other in answers if scorers[other].rows is scorer.rows), None)
            if same:
                answers[split] = answers[same]
                continue
            if average:
                predicted = [mean_prediction(stacked, inputs, scorer.rows)]
            else:
                predicted = [predictions(seed.probe, inputs, scorer.rows)[0] for seed in seeds]
            answers[split] = [scorer.decode(prediction) for prediction in predicted]
    return answers
